# All third-party libraries but CUDA are found here; docs/decisions.md gives the reason for each.
find_program(ADDER_CCACHE ccache)
if(ADDER_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${ADDER_CCACHE})
endif()

find_package(OpenMP REQUIRED COMPONENTS CXX)
find_package(Threads REQUIRED)
find_package(hwy REQUIRED)
# Debian's dnnl package config asks for OpenCL, which the CPU engine does not use; header and
# library are found directly.
find_path(ADDER_DNNL_INCLUDE dnnl.hpp REQUIRED)
find_library(ADDER_DNNL_LIBRARY dnnl REQUIRED)
add_library(adder_onednn INTERFACE)
target_include_directories(adder_onednn SYSTEM INTERFACE ${ADDER_DNNL_INCLUDE})
target_link_libraries(adder_onednn INTERFACE ${ADDER_DNNL_LIBRARY})
find_package(fmt REQUIRED)
find_package(tomlplusplus REQUIRED)
find_package(CLI11 REQUIRED)
find_path(ADDER_RAPIDJSON_INCLUDE rapidjson/reader.h REQUIRED)
if(ADDER_TESTS)
  find_package(GTest REQUIRED)
  include(GoogleTest)
endif()
