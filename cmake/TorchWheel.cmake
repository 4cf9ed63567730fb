# LibTorch from the torch wheel, without find_package(Torch): that one looks for protobuf, CUDA and Python and adds
# flags of its own. The target Torch::cpu has the headers as SYSTEM, links torch_cpu and c10 alone, and compiles every
# user with -fopenmp: ATen's at::parallel_for is inline and silently serial in a file compiled without it.
#
#   -DTORCH_ROOT=/path/to/site-packages/torch, or the variable TORCH_ROOT of the environment, or .venv in the source.
set(TORCH_ROOT "" CACHE PATH "Folder of a torch 2.13 installation (holds include/ and lib/)")
set(torch_root "${TORCH_ROOT}")
if(NOT torch_root AND DEFINED ENV{TORCH_ROOT})
  set(torch_root "$ENV{TORCH_ROOT}")
endif()
if(NOT torch_root)
  file(GLOB torch_found ${PROJECT_SOURCE_DIR}/.venv/lib/python3*/site-packages/torch)
  if(torch_found)
    list(GET torch_found 0 torch_root)
  endif()
endif()
if(NOT torch_root OR NOT EXISTS "${torch_root}/lib/libtorch_cpu.so" OR NOT EXISTS "${torch_root}/include/ATen/ATen.h")
  message(FATAL_ERROR
    "LibTorch not found (TORCH_ROOT='${torch_root}', needs lib/libtorch_cpu.so and include/ATen/ATen.h).\n"
    "Run scripts/setup, which installs the torch wheel into .venv, or give -DTORCH_ROOT=/path/to/torch,\n"
    "or build the engine alone with -DFATHOM_TRAIN=OFF.")
endif()
message(STATUS "LibTorch: ${torch_root}")

add_library(Torch::cpu INTERFACE IMPORTED GLOBAL)
set_target_properties(Torch::cpu PROPERTIES
  INTERFACE_INCLUDE_DIRECTORIES "${torch_root}/include;${torch_root}/include/torch/csrc/api/include"
  INTERFACE_SYSTEM_INCLUDE_DIRECTORIES "${torch_root}/include;${torch_root}/include/torch/csrc/api/include"
  INTERFACE_COMPILE_OPTIONS "-fopenmp"
  # libgomp comes from torch/lib as well: one OpenMP runtime in the process, found by the same RUNPATH.
  INTERFACE_LINK_LIBRARIES "${torch_root}/lib/libtorch_cpu.so;${torch_root}/lib/libc10.so;${torch_root}/lib/libgomp.so.1"
  INTERFACE_LINK_OPTIONS "-Wl,-rpath,${torch_root}/lib")
set(FATHOM_TORCH_ROOT "${torch_root}")
