# oneDNN as the target graft::onednn. Debian's own package configuration demands OpenCL, which graft does not use and which may be absent.
# Looks in DNNL_ROOT (variable or environment) first.
set(graft_onednn_hints ${DNNL_ROOT} $ENV{DNNL_ROOT} $ENV{DNNLROOT})
find_path(GraftOneDNN_INCLUDE_DIR oneapi/dnnl/dnnl.hpp HINTS ${graft_onednn_hints} PATH_SUFFIXES include)
find_library(GraftOneDNN_LIBRARY NAMES dnnl HINTS ${graft_onednn_hints} PATH_SUFFIXES lib)
mark_as_advanced(GraftOneDNN_INCLUDE_DIR GraftOneDNN_LIBRARY)

set(GraftOneDNN_VERSION "")
if(GraftOneDNN_INCLUDE_DIR)
  file(STRINGS ${GraftOneDNN_INCLUDE_DIR}/oneapi/dnnl/dnnl_version.h graft_onednn_lines REGEX "^#define[ \t]+DNNL_VERSION_(MAJOR|MINOR|PATCH)[ \t]")
  foreach(line ${graft_onednn_lines})
    string(REGEX REPLACE ".*[ \t]([0-9]+).*" "\\1" number "${line}")
    list(APPEND GraftOneDNN_VERSION ${number})
  endforeach()
  string(REPLACE ";" "." GraftOneDNN_VERSION "${GraftOneDNN_VERSION}")
endif()

# graft splits products itself and keeps oneDNN on one thread, for which it knows ways with these runtimes only.
set(GraftOneDNN_RUNTIME "")
set(graft_onednn_problem "")
if(GraftOneDNN_INCLUDE_DIR)
  file(STRINGS ${GraftOneDNN_INCLUDE_DIR}/oneapi/dnnl/dnnl_config.h graft_onednn_lines REGEX "^#define[ \t]+DNNL_CPU_THREADING_RUNTIME[ \t]")
  string(REGEX REPLACE ".*[ \t]DNNL_RUNTIME_([A-Z]+).*" "\\1" GraftOneDNN_RUNTIME "${graft_onednn_lines}")
  if(NOT GraftOneDNN_RUNTIME MATCHES "^(OMP|SEQ|THREADPOOL)$")
    set(graft_onednn_problem
        "the oneDNN in ${GraftOneDNN_INCLUDE_DIR} was built with the CPU runtime \"${GraftOneDNN_RUNTIME}\"; graft needs one built with OMP, SEQ or THREADPOOL")
  endif()
endif()

include(FindPackageHandleStandardArgs)
if(graft_onednn_problem)
  set(GraftOneDNN_FOUND OFF)
  if(GraftOneDNN_FIND_REQUIRED)
    message(FATAL_ERROR "${graft_onednn_problem}")
  endif()
  message(STATUS "Not used: ${graft_onednn_problem}")
  return()
endif()
find_package_handle_standard_args(GraftOneDNN REQUIRED_VARS GraftOneDNN_LIBRARY GraftOneDNN_INCLUDE_DIR VERSION_VAR GraftOneDNN_VERSION)
if(GraftOneDNN_FOUND AND NOT TARGET graft::onednn)
  add_library(graft::onednn UNKNOWN IMPORTED GLOBAL)
  set_target_properties(graft::onednn PROPERTIES IMPORTED_LOCATION ${GraftOneDNN_LIBRARY} INTERFACE_INCLUDE_DIRECTORIES ${GraftOneDNN_INCLUDE_DIR}
                        INTERFACE_LINK_LIBRARIES "${CMAKE_DL_LIBS}")
endif()
