# The serial C library of HDF5, as the target graft::hdf5. Unlike FindHDF5 it needs no C compiler and runs no test programs,
# so that it also serves projects that find an installed graft. Looks in HDF5_ROOT (variable or environment) first.
set(graft_hdf5_hints ${HDF5_ROOT} $ENV{HDF5_ROOT})
find_path(GraftHDF5_INCLUDE_DIR hdf5.h HINTS ${graft_hdf5_hints} PATH_SUFFIXES include include/hdf5/serial hdf5/serial)
find_library(GraftHDF5_LIBRARY NAMES hdf5_serial hdf5 HINTS ${graft_hdf5_hints} PATH_SUFFIXES lib hdf5/serial)
mark_as_advanced(GraftHDF5_INCLUDE_DIR GraftHDF5_LIBRARY)

set(GraftHDF5_VERSION "")
if(GraftHDF5_INCLUDE_DIR)
  file(STRINGS ${GraftHDF5_INCLUDE_DIR}/H5public.h graft_hdf5_lines REGEX "^#define[ \t]+H5_VERS_(MAJOR|MINOR|RELEASE)[ \t]")
  foreach(line ${graft_hdf5_lines})
    string(REGEX REPLACE ".*[ \t]([0-9]+).*" "\\1" number "${line}")
    list(APPEND GraftHDF5_VERSION ${number})
  endforeach()
  string(REPLACE ";" "." GraftHDF5_VERSION "${GraftHDF5_VERSION}")
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(GraftHDF5 REQUIRED_VARS GraftHDF5_LIBRARY GraftHDF5_INCLUDE_DIR VERSION_VAR GraftHDF5_VERSION)
if(GraftHDF5_FOUND AND NOT TARGET graft::hdf5)
  add_library(graft::hdf5 UNKNOWN IMPORTED GLOBAL)
  set_target_properties(graft::hdf5 PROPERTIES IMPORTED_LOCATION ${GraftHDF5_LIBRARY} INTERFACE_INCLUDE_DIRECTORIES ${GraftHDF5_INCLUDE_DIR})
endif()
