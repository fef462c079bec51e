# cmake --install: the library, its headers, and what find_package(graft) reads.
include(CMakePackageConfigHelpers)
set(graft_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/graft)
install(TARGETS graft EXPORT graftTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
install(EXPORT graftTargets NAMESPACE graft:: DESTINATION ${graft_package_dir})
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/graftConfig.cmake.in ${PROJECT_BINARY_DIR}/graftConfig.cmake
                              INSTALL_DESTINATION ${graft_package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/graftConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/graftConfig.cmake ${PROJECT_BINARY_DIR}/graftConfigVersion.cmake
              ${PROJECT_SOURCE_DIR}/cmake/FindGraftHDF5.cmake ${PROJECT_SOURCE_DIR}/cmake/FindGraftPCRE2.cmake ${PROJECT_SOURCE_DIR}/cmake/FindGraftOneDNN.cmake
        DESTINATION ${graft_package_dir})
