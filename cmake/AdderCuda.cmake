# CUDA is optional. ADDER_CUDA=AUTO (the default) takes it where a toolkit is found, OFF leaves it
# out, ON fails without one. Sets ADDER_CUDA_FOUND, which the rest of the build reads.
set(ADDER_CUDA AUTO CACHE STRING "Build the CUDA lines: AUTO (where there is a toolkit), ON or OFF")
set_property(CACHE ADDER_CUDA PROPERTY STRINGS AUTO ON OFF)
# 80: A100, and by its PTX everything newer. 90a: H100 and H200, whose matrix units and block copies
# are not in the portable instruction set.
set(ADDER_CUDA_ARCHITECTURES 80 90a CACHE STRING "GPU architectures to compile for")

# Says why there is no CUDA: a line of the configuration, or its end where CUDA was asked for.
function(adder_without_cuda reason)
  if(ADDER_CUDA STREQUAL "AUTO")
    message(STATUS "CUDA: off (${reason})")
  else()
    message(FATAL_ERROR "ADDER_CUDA=${ADDER_CUDA}, but ${reason}")
  endif()
endfunction()

# A macro, since enable_language works only outside of functions.
macro(adder_find_cuda)
  # check_language looks where CUDACXX says, and /usr/local/cuda/bin is often not in PATH. It asks
  # no second time once it failed, though a toolkit may have been installed since.
  if(NOT CMAKE_CUDA_COMPILER)
    unset(CMAKE_CUDA_COMPILER CACHE)
    find_program(ADDER_NVCC nvcc HINTS ENV CUDA_PATH ENV CUDA_HOME PATHS /usr/local/cuda
      PATH_SUFFIXES bin)
    mark_as_advanced(ADDER_NVCC)
    if(ADDER_NVCC AND NOT DEFINED ENV{CUDACXX})
      set(ENV{CUDACXX} ${ADDER_NVCC})
    endif()
  endif()
  if(NOT CMAKE_CUDA_HOST_COMPILER)
    set(CMAKE_CUDA_HOST_COMPILER ${CMAKE_CXX_COMPILER})
  endif()
  set(CMAKE_CUDA_ARCHITECTURES ${ADDER_CUDA_ARCHITECTURES})
  if(CMAKE_CUDA_COMPILER OR DEFINED ENV{CUDACXX})
    include(CheckLanguage)
    check_language(CUDA)
  endif()
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
  endif()
  if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
    adder_without_cuda("there is no nvcc in PATH, CUDA_PATH or /usr/local/cuda")
  elseif(NOT CMAKE_CUDA_COMPILER)
    adder_without_cuda("$ENV{CUDACXX} does not work with ${CMAKE_CXX_COMPILER}")
  elseif(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12.0)
    adder_without_cuda("CUDA ${CMAKE_CUDA_COMPILER_VERSION} has no C++20; 12.0 has")
  else()
    find_package(CUDAToolkit REQUIRED)
    set(ADDER_CUDA_FOUND ON)
    if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION) # CMake 3.25 does not know that nvcc has it
      set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
      set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
    endif()
    set(CMAKE_CUDA_STANDARD 20)
    set(CMAKE_CUDA_STANDARD_REQUIRED ON)
    set(CMAKE_CUDA_EXTENSIONS OFF)
    if(ADDER_CCACHE AND NOT CMAKE_CUDA_COMPILER_LAUNCHER)
      set(CMAKE_CUDA_COMPILER_LAUNCHER ${ADDER_CCACHE})
    endif()
    message(STATUS
      "CUDA: on (${CMAKE_CUDA_COMPILER_VERSION}, architectures ${CMAKE_CUDA_ARCHITECTURES})")
  endif()
endmacro()

set(ADDER_CUDA_FOUND OFF)
if(NOT ADDER_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "ADDER_CUDA=${ADDER_CUDA}: expected AUTO, ON or OFF")
elseif(ADDER_CUDA STREQUAL "OFF")
  message(STATUS "CUDA: off (ADDER_CUDA=OFF)")
elseif(ADDER_SANITIZE)
  # The driver maps its memory where AddressSanitizer keeps its shadow, and device code is not
  # instrumented: there would be nothing to gain.
  adder_without_cuda("sanitizers check the CPU's code only")
else()
  adder_find_cuda()
endif()
