# What this machine has of CUDA. nvcc is called by rules of our own (src/cuda), not as a language of CMake's: that would make the
# linker of every program that uses libqem.a a CUDA one. Sets:
#   QEM_NVCC           the compiler whose kernels go into libqem; empty: the functions of qem/cuda.h say that there is no CUDA
#   QEM_CUDART         the static runtime library
#   QEM_CUDA_INCLUDE   the toolkit's headers, enough for the tests of the kernels on the host; empty where there are none
set(QEM_CUDA AUTO CACHE STRING "Decoding on the GPU: AUTO (where nvcc is found), ON (an error where not), OFF")
set_property(CACHE QEM_CUDA PROPERTY STRINGS AUTO ON OFF)
if(CMAKE_BUILD_TYPE STREQUAL "Release")
  set(QEM_CUDA_ARCHITECTURES "75;80;90;120" CACHE STRING "Compute capabilities that kernels are compiled for")
else()
  set(QEM_CUDA_ARCHITECTURES "75" CACHE STRING "Compute capabilities that kernels are compiled for")
endif()

set(QEM_NVCC "")
set(QEM_CUDA_INCLUDE "")
if(NOT QEM_CUDA)
  message(STATUS "CUDA: off; its tests are skipped")
  return()
endif()

set(places $ENV{CUDA_HOME}/bin $ENV{CUDA_PATH}/bin /usr/local/cuda/bin /opt/cuda/bin)
if(CMAKE_CUDA_COMPILER)
  set(QEM_NVCC_FOUND ${CMAKE_CUDA_COMPILER})
elseif(DEFINED ENV{CUDACXX})
  set(QEM_NVCC_FOUND $ENV{CUDACXX})
else()
  find_program(QEM_NVCC_FOUND nvcc PATHS ${places} DOC "The CUDA compiler")
endif()
if(QEM_NVCC_FOUND)
  get_filename_component(QEM_CUDA_ROOT ${QEM_NVCC_FOUND} REALPATH)
  get_filename_component(QEM_CUDA_ROOT ${QEM_CUDA_ROOT}/../.. ABSOLUTE)
endif()
find_path(QEM_CUDA_INCLUDE_FOUND cuda_runtime_api.h
  HINTS ${QEM_CUDA_ROOT}/include ${QEM_CUDA_ROOT}/targets/x86_64-linux/include PATHS /usr/local/cuda/include)
find_library(QEM_CUDART_FOUND cudart_static
  HINTS ${QEM_CUDA_ROOT}/lib64 ${QEM_CUDA_ROOT}/lib ${QEM_CUDA_ROOT}/targets/x86_64-linux/lib PATHS /usr/local/cuda/lib64)
mark_as_advanced(QEM_NVCC_FOUND QEM_CUDA_INCLUDE_FOUND QEM_CUDART_FOUND)

if(QEM_CUDA_INCLUDE_FOUND)
  set(QEM_CUDA_INCLUDE ${QEM_CUDA_INCLUDE_FOUND})
endif()
if(NOT QEM_NVCC_FOUND OR NOT QEM_CUDART_FOUND OR NOT QEM_CUDA_INCLUDE)
  if(NOT QEM_CUDA STREQUAL "AUTO")
    message(FATAL_ERROR "QEM_CUDA=${QEM_CUDA}, but nvcc and cudart_static are not both here; "
                        "name the compiler with -DCMAKE_CUDA_COMPILER=...")
  endif()
  message(STATUS "CUDA: no nvcc; libqem is built without kernels")
elseif(QEM_SANITIZE AND QEM_CUDA STREQUAL "AUTO")
  message(STATUS "CUDA: under sanitizers libqem is built without kernels; they are tested on the host")
else()
  set(QEM_NVCC ${QEM_NVCC_FOUND})
  set(QEM_CUDART ${QEM_CUDART_FOUND})
  list(JOIN QEM_CUDA_ARCHITECTURES ", " names)
  message(STATUS "CUDA: ${QEM_NVCC} for compute capabilities ${names}")
endif()
