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

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(GraftOneDNN REQUIRED_VARS GraftOneDNN_LIBRARY GraftOneDNN_INCLUDE_DIR VERSION_VAR GraftOneDNN_VERSION)
if(GraftOneDNN_FOUND AND NOT TARGET graft::onednn)
  add_library(graft::onednn UNKNOWN IMPORTED GLOBAL)
  set_target_properties(graft::onednn PROPERTIES IMPORTED_LOCATION ${GraftOneDNN_LIBRARY} INTERFACE_INCLUDE_DIRECTORIES ${GraftOneDNN_INCLUDE_DIR}
                        INTERFACE_LINK_LIBRARIES "${CMAKE_DL_LIBS}")
endif()
