# The library libadder.so, the examples, and the installation: `cmake --install` writes
#   include/adder/*.h, lib/libadder.so, lib/cmake/adder/adderConfig.cmake, bin/adder
# A consumer writes find_package(adder) and links adder::adder; no third-party library is seen.
if(NOT TARGET adder_api)
  return()
endif()
include(CMakePackageConfigHelpers)

add_library(adder_shared SHARED $<TARGET_OBJECTS:adder_api>)
add_library(adder::adder ALIAS adder_shared)
set_target_properties(adder_shared PROPERTIES
  OUTPUT_NAME adder
  EXPORT_NAME adder
  LINKER_LANGUAGE CXX
  VERSION ${PROJECT_VERSION}
  SOVERSION ${PROJECT_VERSION_MAJOR}
  LINK_DEPENDS ${PROJECT_SOURCE_DIR}/src/api/exports.map)
# Rooms stay inside: nothing of them may be seen, or two copies in one process would mix.
target_link_libraries(adder_shared PRIVATE adder_api)
target_link_options(adder_shared PRIVATE
  -Wl,--exclude-libs,ALL -Wl,--version-script=${PROJECT_SOURCE_DIR}/src/api/exports.map)
if(NOT ADDER_SANITIZE)
  target_link_options(adder_shared PRIVATE -Wl,--no-undefined)
endif()
target_include_directories(adder_shared INTERFACE
  $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
target_compile_features(adder_shared INTERFACE cxx_std_20)

add_executable(embed ${PROJECT_SOURCE_DIR}/examples/embed.cpp)
target_link_libraries(embed PRIVATE adder::adder)
target_compile_options(embed PRIVATE -Wall -Wextra -Wconversion -Wshadow -Wno-sign-conversion)
if(ADDER_SANITIZE)
  string(REPLACE ";" "," _sanitize "${ADDER_SANITIZE}")
  target_compile_options(embed PRIVATE -fsanitize=${_sanitize})
  target_link_options(adder_shared PRIVATE -fsanitize=${_sanitize})
  target_link_options(embed PRIVATE -fsanitize=${_sanitize})
endif()
add_custom_target(examples DEPENDS embed)

install(TARGETS adder_shared EXPORT adderTargets
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
if(TARGET adder)
  install(TARGETS adder RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/adder DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
  FILES_MATCHING PATTERN "*.h")
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})

set(_package ${CMAKE_INSTALL_LIBDIR}/cmake/adder)
install(EXPORT adderTargets NAMESPACE adder:: DESTINATION ${_package} FILE adderConfig.cmake)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/adderConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/adderConfigVersion.cmake DESTINATION ${_package})

if(ADDER_TESTS)
  add_test(NAME example_embed COMMAND embed --steps 5)
  set_tests_properties(example_embed PROPERTIES LABELS install TIMEOUT 300)
  if(ADDER_SANITIZE)
    message(STATUS "skipped with sanitizers: the install test (an outside project has none)")
  else()
    add_test(NAME install COMMAND ${CMAKE_COMMAND}
      -DBUILD_DIR=${PROJECT_BINARY_DIR} -DSOURCE_DIR=${PROJECT_SOURCE_DIR}
      -DGENERATOR=${CMAKE_GENERATOR} -DCXX=${CMAKE_CXX_COMPILER}
      -P ${PROJECT_SOURCE_DIR}/tests/install_test.cmake)
    set_tests_properties(install PROPERTIES LABELS install TIMEOUT 300)
  endif()
endif()
