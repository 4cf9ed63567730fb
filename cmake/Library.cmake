# The library for other programs (docs/api.md):
#   fathom::fathom  shared; shows what include/fathom/ declares and hides the rest, so that nothing of it meets what else a program links
#   fathom::static  one archive with all rooms, for a program of one file
find_package(Threads REQUIRED)
set(objects "")
foreach(room core formats text kernels routing model infer api)
  list(APPEND objects $<TARGET_OBJECTS:fathom_${room}>)
endforeach()

add_library(fathom_shared SHARED $<TARGET_OBJECTS:fathom_api>)
target_link_libraries(fathom_shared PRIVATE fathom_infer fathom_model)
target_link_options(fathom_shared PRIVATE -Wl,--exclude-libs,ALL)
# Until 1.0.0 a minor version may break what was linked against the one before.
set_target_properties(fathom_shared PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR} EXPORT_NAME fathom)
add_library(fathom::fathom ALIAS fathom_shared)

add_library(fathom_static STATIC ${objects})
target_link_libraries(fathom_static INTERFACE Threads::Threads $<BUILD_INTERFACE:${ZSTD_LIBRARY}> $<BUILD_INTERFACE:${PCRE2_LIBRARY}> $<BUILD_INTERFACE:${UTF8PROC_LIBRARY}>
                      $<INSTALL_INTERFACE:zstd> $<INSTALL_INTERFACE:pcre2-8> $<INSTALL_INTERFACE:utf8proc>)
set_target_properties(fathom_static PROPERTIES EXPORT_NAME static)
add_library(fathom::static ALIAS fathom_static)

foreach(library fathom_shared fathom_static)
  target_include_directories(${library} INTERFACE $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>)
  target_compile_features(${library} INTERFACE cxx_std_20)
  set_target_properties(${library} PROPERTIES OUTPUT_NAME fathom LINKER_LANGUAGE CXX EXCLUDE_FROM_ALL $<NOT:$<BOOL:${FATHOM_INSTALL}>>
                        ARCHIVE_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/lib LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/lib)
endforeach()
