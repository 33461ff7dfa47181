# Arrow as an imported target, from the folder that `./dev setup` fills: <FLOWMESH_ARROW_DIR>/{include,lib}.
# Without it everything is built but libflowmesh_arrow.so, and Parquet files are refused with an error
# that says so.
set(FLOWMESH_ARROW_VERSION 26.0.1)
if(DEFINED ENV{XDG_CACHE_HOME})
  set(CACHE_HOME $ENV{XDG_CACHE_HOME})
else()
  set(CACHE_HOME $ENV{HOME}/.cache)
endif()
set(FLOWMESH_ARROW_DIR ${CACHE_HOME}/flowmesh/arrow-${FLOWMESH_ARROW_VERSION}
    CACHE PATH "Folder with Arrow's include/ and lib/")
if(EXISTS ${FLOWMESH_ARROW_DIR}/lib/libarrow.so)
  add_library(arrow INTERFACE)
  target_include_directories(arrow SYSTEM INTERFACE ${FLOWMESH_ARROW_DIR}/include)
  target_link_libraries(arrow INTERFACE
    ${FLOWMESH_ARROW_DIR}/lib/libparquet.so ${FLOWMESH_ARROW_DIR}/lib/libarrow.so)
  target_link_options(arrow INTERFACE -Wl,-rpath,${FLOWMESH_ARROW_DIR}/lib)
else()
  message(STATUS "FlowMesh: no Arrow in ${FLOWMESH_ARROW_DIR} (./dev setup installs it): Parquet files are refused")
endif()
