# A room is one folder under src/ and one static library; tools/check_rooms.py holds its edges against rooms.toml.

add_library(adder_options INTERFACE)
target_compile_options(adder_options INTERFACE
  -Wall -Wextra -Wconversion -Wshadow -Wno-sign-conversion
  # Only the multiply-adds that the source asks for: the same bits from every compiler.
  -ffp-contract=off)
target_include_directories(adder_options INTERFACE ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/include)
if(ADDER_SANITIZE)
  string(REPLACE ";" "," _sanitize "${ADDER_SANITIZE}")
  target_compile_options(adder_options INTERFACE -fsanitize=${_sanitize} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(adder_options INTERFACE -fsanitize=${_sanitize})
endif()

# Highway targets kept: AVX2 and AVX-512 on x86, NEON on Arm, and the scalar floor. The mask is the
# x86 targets that are left out: bits 0-7 (beyond AVX-512F/BW/DQ/VL) and 10-15 (SSE2, SSSE3, SSE4).
set(ADDER_HWY_DEFINITIONS "HWY_DISABLED_TARGETS=0xFCFF")

# adder_room(NAME x SOURCES a.cpp... [ROOMS core ...] [LIBS hwy::hwy ...])
function(adder_room)
  cmake_parse_arguments(R "" "NAME" "SOURCES;ROOMS;LIBS" ${ARGN})
  add_library(adder_${R_NAME} STATIC ${R_SOURCES})
  target_link_libraries(adder_${R_NAME} PRIVATE adder_options)
  foreach(room IN LISTS R_ROOMS)
    target_link_libraries(adder_${R_NAME} PUBLIC adder_${room})
  endforeach()
  target_link_libraries(adder_${R_NAME} PRIVATE ${R_LIBS})
  if("hwy::hwy" IN_LIST R_LIBS)
    target_compile_definitions(adder_${R_NAME} PRIVATE ${ADDER_HWY_DEFINITIONS})
  endif()
endfunction()

# The tests that the thread sanitizer runs: those with the label `threads`.
add_custom_target(threads_tests)
# Those that CI runs under the address sanitizer: label `memory` (what reads untrusted bytes).
add_custom_target(memory_tests)

# adder_test(NAME x_test SOURCES x_test.cpp... [ROOMS ...] [LIBS ...] [LABELS ...] [TIMEOUT s])
function(adder_test)
  if(NOT ADDER_TESTS)
    return()
  endif()
  cmake_parse_arguments(R "" "NAME;TIMEOUT" "SOURCES;ROOMS;LIBS;LABELS" ${ARGN})
  add_executable(${R_NAME} ${R_SOURCES})
  target_link_libraries(${R_NAME} PRIVATE adder_options GTest::gtest GTest::gtest_main ${R_LIBS})
  foreach(room IN LISTS R_ROOMS)
    target_link_libraries(${R_NAME} PRIVATE adder_${room})
  endforeach()
  target_compile_definitions(${R_NAME} PRIVATE ADDER_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  if(NOT R_TIMEOUT)
    set(R_TIMEOUT 300)
  endif()
  # Tests share the cores: a team that waits must not spin.
  set(_properties TIMEOUT ${R_TIMEOUT} ENVIRONMENT OMP_WAIT_POLICY=passive)
  if(R_LABELS)
    list(APPEND _properties LABELS "${R_LABELS}")
  endif()
  if("threads" IN_LIST R_LABELS)
    add_dependencies(threads_tests ${R_NAME})
  elseif("memory" IN_LIST R_LABELS)
    add_dependencies(memory_tests ${R_NAME})
  endif()
  gtest_discover_tests(${R_NAME} DISCOVERY_MODE PRE_TEST PROPERTIES ${_properties})
endfunction()
