# find_package(sinew) for what `cargo cinstall` has installed, or for this repository once the library is built there:
#
#     list(APPEND CMAKE_PREFIX_PATH /where/it/was/installed)
#     find_package(sinew REQUIRED)
#     target_link_libraries(program PRIVATE sinew::sinew)
#
# sinew::static and sinew::shared are the libraries that were found, sinew::sinew is the static one, or else the other.
if(TARGET sinew::sinew)
  return()
endif()

find_package(Threads REQUIRED)
# Installed, this file is PREFIX/share/cmake/sinew/sinew-config.cmake; here it is cmake/sinew-config.cmake. Only these
# places are looked at: a library of another version elsewhere would be worse than none.
get_filename_component(_sinew_prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
get_filename_component(_sinew_root "${CMAKE_CURRENT_LIST_DIR}/.." ABSOLUTE)
set(_sinew_libraries "${_sinew_prefix}/lib" "${_sinew_prefix}/lib64" "${_sinew_root}/target/dist")
if(CMAKE_LIBRARY_ARCHITECTURE)
  list(INSERT _sinew_libraries 0 "${_sinew_prefix}/lib/${CMAKE_LIBRARY_ARCHITECTURE}")
endif()
find_path(SINEW_INCLUDE_DIR sinew.h PATHS "${_sinew_prefix}/include" "${_sinew_root}/src/c_api"
          NO_DEFAULT_PATH NO_CMAKE_FIND_ROOT_PATH)
find_library(SINEW_STATIC_LIBRARY NAMES libsinew.a PATHS ${_sinew_libraries}
             NO_DEFAULT_PATH NO_CMAKE_FIND_ROOT_PATH)
find_library(SINEW_SHARED_LIBRARY NAMES libsinew.so libsinew.dylib PATHS ${_sinew_libraries}
             NO_DEFAULT_PATH NO_CMAKE_FIND_ROOT_PATH)
mark_as_advanced(SINEW_INCLUDE_DIR SINEW_STATIC_LIBRARY SINEW_SHARED_LIBRARY)

set(SINEW_LIBRARY "${SINEW_STATIC_LIBRARY}")
if(NOT SINEW_LIBRARY)
  set(SINEW_LIBRARY "${SINEW_SHARED_LIBRARY}")
endif()
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(sinew REQUIRED_VARS SINEW_LIBRARY SINEW_INCLUDE_DIR)

if(sinew_FOUND)
  if(SINEW_STATIC_LIBRARY)
    add_library(sinew::static STATIC IMPORTED)
    set_target_properties(sinew::static PROPERTIES
      IMPORTED_LOCATION "${SINEW_STATIC_LIBRARY}"
      INTERFACE_INCLUDE_DIRECTORIES "${SINEW_INCLUDE_DIR}"
      INTERFACE_LINK_LIBRARIES "Threads::Threads;${CMAKE_DL_LIBS};$<$<PLATFORM_ID:Linux>:m>")
  endif()
  if(SINEW_SHARED_LIBRARY)
    add_library(sinew::shared SHARED IMPORTED)
    set_target_properties(sinew::shared PROPERTIES
      IMPORTED_LOCATION "${SINEW_SHARED_LIBRARY}"
      INTERFACE_INCLUDE_DIRECTORIES "${SINEW_INCLUDE_DIR}")
  endif()
  add_library(sinew::sinew INTERFACE IMPORTED)
  if(SINEW_STATIC_LIBRARY)
    set_target_properties(sinew::sinew PROPERTIES INTERFACE_LINK_LIBRARIES sinew::static)
  else()
    set_target_properties(sinew::sinew PROPERTIES INTERFACE_LINK_LIBRARIES sinew::shared)
  endif()
endif()
