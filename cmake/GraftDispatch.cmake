# Whether kernels can be in the library several times, for processors of several kinds, and how such a copy is made.
set(GRAFT_HAS_DISPATCH OFF)
set(graft_no_dispatch "")
if(GRAFT_NATIVE)
  set(graft_no_dispatch "GRAFT_NATIVE is on")
elseif(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$" OR NOT CMAKE_SIZEOF_VOID_P EQUAL 8)
  set(graft_no_dispatch "the processor is no x86-64")
elseif(NOT CMAKE_CXX_COMPILER_ID MATCHES "^(GNU|Clang)$" OR NOT CMAKE_EXECUTABLE_FORMAT STREQUAL "ELF" OR NOT CMAKE_LINKER OR NOT CMAKE_OBJCOPY)
  set(graft_no_dispatch "it needs g++ or clang++, GNU ld and objcopy")
elseif(NOT GRAFT_DISPATCH STREQUAL "OFF")
  execute_process(COMMAND ${CMAKE_LINKER} --help OUTPUT_VARIABLE graft_ld_help ERROR_QUIET)
  execute_process(COMMAND ${CMAKE_OBJCOPY} --help OUTPUT_VARIABLE graft_objcopy_help ERROR_QUIET)
  if(NOT graft_ld_help MATCHES "--force-group-allocation" OR NOT graft_objcopy_help MATCHES "--keep-global-symbol")
    set(graft_no_dispatch "${CMAKE_LINKER} or ${CMAKE_OBJCOPY} is not GNU's")
  endif()
endif()
if(GRAFT_DISPATCH STREQUAL "ON" AND graft_no_dispatch)
  message(FATAL_ERROR "GRAFT_DISPATCH=ON, but ${graft_no_dispatch}; use AUTO or OFF")
endif()

set(graft_processor "any ${CMAKE_SYSTEM_PROCESSOR}")
if(GRAFT_NATIVE)
  set(graft_processor "this machine's processor")
elseif(GRAFT_DISPATCH STREQUAL "OFF")
  string(APPEND graft_processor " alone (GRAFT_DISPATCH is OFF)")
elseif(graft_no_dispatch)
  string(APPEND graft_processor " alone (${graft_no_dispatch})")
else()
  set(GRAFT_HAS_DISPATCH ON)
  string(APPEND graft_processor ", AVX2 and AVX-512")
endif()
message(STATUS "graft ${PROJECT_VERSION}: oneDNN ${GRAFT_HAS_ONEDNN}, kernels for ${graft_processor}, CUDA ${graft_cuda_state}")

# The component once more, compiled with these options. Its objects are joined into one in which all that it defines is local, but for
# graft_<component>_backend, which becomes graft_<component>_backend_<name>, and type information, by which exceptions are caught: an inline
# function or template that other code has too would else be taken from whichever copy the linker meets first.
function(graft_variant component name)
  set(target graft_${component}_${name})
  get_target_property(sources graft_${component} SOURCES)
  get_target_property(libraries graft_${component} LINK_LIBRARIES)
  get_target_property(options graft_${component} COMPILE_OPTIONS)
  get_target_property(includes graft_${component} INCLUDE_DIRECTORIES)
  add_library(${target} OBJECT ${sources})
  target_compile_features(${target} PRIVATE cxx_std_20)
  target_compile_options(${target} PRIVATE ${options} -fno-lto $<$<CXX_COMPILER_ID:GNU>:-fno-gnu-unique> ${ARGN})  # objcopy leaves unique symbols global
  target_include_directories(${target} PRIVATE ${includes})
  target_link_libraries(${target} PRIVATE ${libraries})
  set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE ON INTERPROCEDURAL_OPTIMIZATION OFF)

  set(object ${PROJECT_BINARY_DIR}/graft_${component}_${name}.o)
  set(backend graft_${component}_backend)
  add_custom_command(
    OUTPUT ${object}
    COMMAND ${CMAKE_LINKER} -r --force-group-allocation -o ${object} $<TARGET_OBJECTS:${target}>
    COMMAND ${CMAKE_OBJCOPY} -w --keep-global-symbol=${backend}* --keep-global-symbol=_ZTI* --keep-global-symbol=_ZTS*
            --redefine-sym ${backend}=${backend}_${name} ${object}
    DEPENDS ${target} $<TARGET_OBJECTS:${target}>
    COMMENT "Joining the ${component} kernels for ${name}"
    COMMAND_EXPAND_LISTS VERBATIM)
  set_source_files_properties(${object} PROPERTIES EXTERNAL_OBJECT ON GENERATED ON)
  set(graft_variants ${graft_variants} ${object} PARENT_SCOPE)
endfunction()
