# find_package(sinew) for what `cargo cinstall` has installed: the target sinew::sinew, static where there is an archive.
#
#     list(APPEND CMAKE_PREFIX_PATH /where/it/was/installed)
#     find_package(sinew REQUIRED)
#     target_link_libraries(program PRIVATE sinew::sinew)
if(TARGET sinew::sinew)
  return()
endif()

find_package(Threads REQUIRED)
get_filename_component(_sinew_here "${CMAKE_CURRENT_LIST_DIR}" ABSOLUTE)
find_path(SINEW_INCLUDE_DIR sinew.h HINTS "${_sinew_here}/../../../include" "${_sinew_here}/../src/c_api")
find_library(SINEW_LIBRARY NAMES libsinew.a sinew
             HINTS "${_sinew_here}/../.." "${_sinew_here}/../../../lib" "${_sinew_here}/../target/dist")

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(sinew REQUIRED_VARS SINEW_LIBRARY SINEW_INCLUDE_DIR)

if(sinew_FOUND)
  add_library(sinew::sinew UNKNOWN IMPORTED)
  set_target_properties(sinew::sinew PROPERTIES
    IMPORTED_LOCATION "${SINEW_LIBRARY}"
    INTERFACE_INCLUDE_DIRECTORIES "${SINEW_INCLUDE_DIR}"
    INTERFACE_LINK_LIBRARIES "Threads::Threads;${CMAKE_DL_LIBS};$<$<PLATFORM_ID:Linux>:m>")
endif()
