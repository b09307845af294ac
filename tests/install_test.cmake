# What a user of the library does: install into an empty prefix, then build and test an outside
# project that knows nothing but find_package(adder).
#   cmake -DBUILD_DIR= -DSOURCE_DIR= -DGENERATOR= -DCXX= -P install_test.cmake
set(work ${BUILD_DIR}/install_test)
file(REMOVE_RECURSE ${work})

function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE code OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT code EQUAL 0)
    list(JOIN ARGN " " line)
    message(FATAL_ERROR "${line}\n${output}")
  endif()
  set(output "${output}" PARENT_SCOPE)
endfunction()

run(${CMAKE_COMMAND} --install ${BUILD_DIR} --prefix ${work}/prefix)

# Installed headers name no other library.
file(GLOB headers ${work}/prefix/include/adder/*.h)
if(NOT headers)
  message(FATAL_ERROR "no headers were installed")
endif()
foreach(header IN LISTS headers)
  file(STRINGS ${header} includes REGEX "#include \"")
  foreach(line IN LISTS includes)
    if(NOT line MATCHES "#include \"adder/")
      message(FATAL_ERROR "${header}: ${line}")
    endif()
  endforeach()
endforeach()

# Only the public names are exported.
find_program(nm NAMES nm)
if(nm)
  file(GLOB library ${work}/prefix/lib*/libadder.so ${work}/prefix/lib*/*/libadder.so)
  run(${nm} -DC --defined-only ${library})
  string(REGEX MATCHALL "[^\n]+" symbols "${output}")
  set(public 0)
  foreach(symbol IN LISTS symbols)
    if(symbol MATCHES " [TVWBDR] .*adder::v0::" AND NOT symbol MATCHES "Impl")
      math(EXPR public "${public} + 1")
    elseif(NOT symbol MATCHES " A ")
      message(FATAL_ERROR "exported but not public: ${symbol}")
    endif()
  endforeach()
  if(public EQUAL 0)
    message(FATAL_ERROR "nothing is exported")
  endif()
  message(STATUS "${public} public symbols are exported and no others")
else()
  message(STATUS "skipped: the exported symbols (there is no nm)")
endif()

run(${CMAKE_COMMAND} -S ${SOURCE_DIR}/examples/find_package -B ${work}/outside -G ${GENERATOR}
  -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_COMPILER=${CXX} -DCMAKE_PREFIX_PATH=${work}/prefix)
run(${CMAKE_COMMAND} --build ${work}/outside)
run(${CMAKE_CTEST_COMMAND} --test-dir ${work}/outside --no-tests=error --output-on-failure)
message(STATUS "the outside project found, built and ran")
file(REMOVE_RECURSE ${work})
