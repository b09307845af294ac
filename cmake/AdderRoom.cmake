# A room is one folder under src/ and one static library. tools/check_rooms.py holds its edges
# against rooms.toml.

add_library(adder_options INTERFACE)
target_compile_options(adder_options INTERFACE
  "$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wconversion;-Wshadow;-Wno-sign-conversion>"
  # Only the multiply-adds that the source asks for: the same bits from every compiler.
  $<$<COMPILE_LANGUAGE:CXX>:-ffp-contract=off>)
if(ADDER_CUDA_FOUND)
  # -Xcompiler reaches the host's compiler alone; nvcc's front end, which reads device code, has
  # warnings of its own. Device code keeps nvcc's --fmad=true. The fused operation runs at twice the
  # rate of a product and a sum and rounds once instead of twice; the bits of a line stay those of
  # one compiler, since no other compiles device code. A line that must give the bits of another
  # device writes its products and sums as __fmul_rn and __fadd_rn, which are never fused.
  target_compile_options(adder_options INTERFACE
    "$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra,-Wconversion,-Wshadow>"
    "$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wno-sign-conversion,-ffp-contract=off>"
    # constexpr functions of core may be called on the device.
    $<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr>
    # A kernel on the default stream would run outside of the context's order.
    $<$<COMPILE_LANGUAGE:CUDA>:-Wdefault-stream-launch>
    # Source lines for profilers and compute-sanitizer; the code stays the same.
    $<$<COMPILE_LANGUAGE:CUDA>:-lineinfo>)
endif()
target_include_directories(adder_options INTERFACE
  ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/include)
if(ADDER_SANITIZE)
  string(REPLACE ";" "," _sanitize "${ADDER_SANITIZE}")
  target_compile_options(adder_options INTERFACE
    -fsanitize=${_sanitize} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(adder_options INTERFACE -fsanitize=${_sanitize})
endif()
option(ADDER_FUZZ
  "Build the libFuzzer targets of tests/fuzz; every room counts its coverage (clang)" OFF)
if(ADDER_FUZZ)
  target_compile_options(adder_options INTERFACE -fsanitize=fuzzer-no-link
    -fsanitize-ignorelist=${PROJECT_SOURCE_DIR}/tests/fuzz/ignorelist.txt)
  target_link_options(adder_options INTERFACE -fsanitize=fuzzer-no-link)
endif()

# Both are linked after adder_options: the first by SIMD rooms, the second by tests, variants and
# the command line.
add_library(adder_simd_options INTERFACE)
add_library(adder_lean_options INTERFACE)

# We keep these Highway targets: AVX2 and AVX-512 on x86, NEON on Arm, and the scalar floor. The
# mask names the x86 targets that we leave out: bits 0-7 (beyond AVX-512F/BW/DQ/VL) and 10-15 (SSE2,
# SSSE3, SSE4). The floor is HWY_SCALAR with every compiler. For some compilers Highway would take
# EMU128 instead, which loses the subnormal halves, so we declare EMU128 broken.
target_compile_definitions(adder_simd_options INTERFACE
  HWY_DISABLED_TARGETS=0xFCFF HWY_BROKEN_EMU128=1)

if("address" IN_LIST ADDER_SANITIZE)
  # UBSan's checks of every pointer double the code, and AddressSanitizer reports the same bugs more
  # precisely. Rooms that read files and requests keep all checks.
  set(_pointer_checks -fno-sanitize=null,alignment,pointer-overflow,vptr,object-size)
  target_compile_options(adder_lean_options INTERFACE ${_pointer_checks})
  target_compile_options(adder_simd_options INTERFACE ${_pointer_checks})
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # SIMD words are hundreds of inlined temporaries. Without bookkeeping of their lifetimes, and
    # with calls in place of inline checks, they compile in a quarter of the time. gcc 12 also
    # misaligns AVX-512 words in its frames for use-after-return (PR 110027).
    target_compile_options(adder_simd_options INTERFACE -fno-sanitize-address-use-after-scope
      --param=asan-use-after-return=0 --param=asan-instrumentation-with-call-threshold=0)
  endif()
endif()

# Some sources of measure and ref belong to their room and to a family's test. Each is compiled
# once, into an object library that the first target to name it defines. Sets `out` to the sources,
# with the objects in place of such sources.
function(adder_shared_sources out)
  set(sources)
  foreach(source IN LISTS ARGN)
    cmake_path(ABSOLUTE_PATH source NORMALIZE OUTPUT_VARIABLE path)
    if(path MATCHES "/src/measure/([a-z0-9_]+_variants|call|compare|tensors)\\.cpp$" OR
        path MATCHES "/src/kernels/ref/[a-z0-9_]+_ref\\.cpp$")
      cmake_path(GET path STEM stem)
      if(NOT TARGET adder_object_${stem})
        add_library(adder_object_${stem} OBJECT ${path})
        target_link_libraries(adder_object_${stem} PRIVATE
          adder_core adder_options adder_lean_options fmt::fmt)
      endif()
      list(APPEND sources $<TARGET_OBJECTS:adder_object_${stem}>)
    else()
      list(APPEND sources ${source})
    endif()
  endforeach()
  set(${out} ${sources} PARENT_SCOPE)
endfunction()

# The sources after CUDA are compiled only with CUDA; the target's other sources see ADDER_CUDA as 1
# or 0.
function(adder_cuda_sources target)
  if(ARGN)
    target_compile_definitions(${target} PRIVATE ADDER_CUDA=$<BOOL:${ADDER_CUDA_FOUND}>)
    if(ADDER_CUDA_FOUND)
      target_sources(${target} PRIVATE ${ARGN})
      # The static runtime: a program starts on machines that have no toolkit.
      target_link_libraries(${target} PRIVATE CUDA::cudart_static)
    endif()
  endif()
endfunction()

# adder_room(NAME x SOURCES a.cpp... [CUDA a.cu...] [ROOMS core ...] [LIBS hwy::hwy ...])
function(adder_room)
  cmake_parse_arguments(R "" "NAME" "SOURCES;CUDA;ROOMS;LIBS" ${ARGN})
  adder_shared_sources(sources ${R_SOURCES})
  add_library(adder_${R_NAME} STATIC ${sources})
  target_link_libraries(adder_${R_NAME} PRIVATE adder_options)
  foreach(room IN LISTS R_ROOMS)
    target_link_libraries(adder_${R_NAME} PUBLIC adder_${room})
  endforeach()
  target_link_libraries(adder_${R_NAME} PRIVATE ${R_LIBS})
  adder_cuda_sources(adder_${R_NAME} ${R_CUDA})
  if("hwy::hwy" IN_LIST R_LIBS)
    target_link_libraries(adder_${R_NAME} PRIVATE adder_simd_options)
  elseif("CLI11::CLI11" IN_LIST R_LIBS)
    target_link_libraries(adder_${R_NAME} PRIVATE adder_lean_options)
    if(ADDER_SANITIZE)
      target_compile_options(adder_${R_NAME} PRIVATE -O0) # templates without end that run once
    endif()
  endif()
endfunction()

# This target builds the tests with the label `threads`, which the thread sanitizer runs.
add_custom_target(threads_tests)
# adder_test(NAME x_test SOURCES x_test.cpp... [CUDA x_test.cu...] [ROOMS ...] [LIBS ...]
#   [LABELS ...] [TIMEOUT seconds])
function(adder_test)
  if(NOT ADDER_TESTS)
    return()
  endif()
  cmake_parse_arguments(R "" "NAME;TIMEOUT" "SOURCES;CUDA;ROOMS;LIBS;LABELS" ${ARGN})
  adder_shared_sources(sources ${R_SOURCES})
  add_executable(${R_NAME} ${sources})
  target_link_libraries(${R_NAME} PRIVATE
    adder_options adder_lean_options GTest::gtest GTest::gtest_main ${R_LIBS})
  foreach(room IN LISTS R_ROOMS)
    target_link_libraries(${R_NAME} PRIVATE adder_${room})
  endforeach()
  adder_cuda_sources(${R_NAME} ${R_CUDA})
  # A test's own source is compiled more often than it runs.
  target_compile_options(${R_NAME} PRIVATE $<$<AND:$<CONFIG:Release>,$<COMPILE_LANGUAGE:CXX>>:-O1>)
  target_compile_definitions(${R_NAME} PRIVATE ADDER_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  if(NOT R_TIMEOUT)
    set(R_TIMEOUT 300)
  endif()
  if(ADDER_SANITIZE)
    math(EXPR R_TIMEOUT "4 * ${R_TIMEOUT}")
  endif()
  # ctest starts the tests that may take longest first.
  set(_properties TIMEOUT ${R_TIMEOUT} COST ${R_TIMEOUT})
  if(R_LABELS)
    list(APPEND _properties LABELS "${R_LABELS}")
  endif()
  if("threads" IN_LIST R_LABELS)
    add_dependencies(threads_tests ${R_NAME})
  endif()
  gtest_discover_tests(${R_NAME} DISCOVERY_MODE PRE_TEST PROPERTIES ${_properties})
endfunction()
