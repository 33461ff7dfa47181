# libtorch as imported targets. The wheel's own find_package(Torch) insists on nvcc; this needs nothing
# but the folder that `./dev setup` fills: <FLOWMESH_TORCH_DIR>/{include,lib}.
#
#   torch_headers  include paths and definitions
#   torch_cpu      what a rank links: libtorch_cpu and libc10. libtorch_cuda is opened at run time.
set(FLOWMESH_TORCH_VERSION 2.11.0)
if(DEFINED ENV{XDG_CACHE_HOME})
  set(CACHE_HOME $ENV{XDG_CACHE_HOME})
else()
  set(CACHE_HOME $ENV{HOME}/.cache)
endif()
set(FLOWMESH_TORCH_DIR ${CACHE_HOME}/flowmesh/libtorch-${FLOWMESH_TORCH_VERSION}
    CACHE PATH "Folder with libtorch's include/ and lib/")
if(NOT EXISTS ${FLOWMESH_TORCH_DIR}/lib/libtorch_cpu.so)
  message(FATAL_ERROR "No libtorch in ${FLOWMESH_TORCH_DIR}: run ./dev setup, give -DFLOWMESH_TORCH_DIR=..., "
                      "or build without the rank: -DFLOWMESH_RANK=OFF")
endif()

add_library(torch_headers INTERFACE)
target_include_directories(torch_headers SYSTEM INTERFACE
  ${FLOWMESH_TORCH_DIR}/include ${FLOWMESH_TORCH_DIR}/include/torch/csrc/api/include)
target_compile_definitions(torch_headers INTERFACE USE_DISTRIBUTED USE_C10D_GLOO)
target_compile_options(torch_headers INTERFACE -fopenmp)

add_library(torch_cpu INTERFACE)
target_link_libraries(torch_cpu INTERFACE torch_headers
  ${FLOWMESH_TORCH_DIR}/lib/libtorch_cpu.so ${FLOWMESH_TORCH_DIR}/lib/libc10.so
  ${FLOWMESH_TORCH_DIR}/lib/libgomp.so.1)
# --disable-new-dtags: libtorch_cpu finds its own neighbours through the program's RPATH as well.
target_link_options(torch_cpu INTERFACE
  -Wl,--disable-new-dtags,-rpath,${FLOWMESH_TORCH_DIR}/lib -Wl,--allow-shlib-undefined)
