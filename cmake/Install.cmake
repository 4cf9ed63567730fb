# cmake --install BUILD --prefix PREFIX: the programs, the library with its headers, and what finds it. The folder may be moved
# afterwards; only fathom-train stays bound to the LibTorch that it was built with, by its absolute path.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

install(TARGETS fathom_shared fathom_static EXPORT fathom INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY include/fathom DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
install(FILES LICENSE NOTICE DESTINATION ${CMAKE_INSTALL_DOCDIR})

set(package ${CMAKE_INSTALL_LIBDIR}/cmake/fathom)
install(EXPORT fathom NAMESPACE fathom:: FILE fathomTargets.cmake DESTINATION ${package})
configure_package_config_file(cmake/fathomConfig.cmake.in ${PROJECT_BINARY_DIR}/package/fathomConfig.cmake INSTALL_DESTINATION ${package})
# As the SOVERSION: 0.1 and 0.2 are two interfaces.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/package/fathomConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/package/fathomConfig.cmake ${PROJECT_BINARY_DIR}/package/fathomConfigVersion.cmake DESTINATION ${package})

file(RELATIVE_PATH up /p/${CMAKE_INSTALL_LIBDIR}/pkgconfig /p)  # pkg-config's files find themselves, wherever they are moved to
configure_file(cmake/fathom.pc.in ${PROJECT_BINARY_DIR}/package/fathom.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/package/fathom.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

if(TARGET fathom)
  install(TARGETS fathom)
  if(NOT CMAKE_CROSSCOMPILING)
    set(completion ${PROJECT_BINARY_DIR}/completion)
    file(MAKE_DIRECTORY ${completion})
    add_custom_command(OUTPUT ${completion}/fathom ${completion}/_fathom DEPENDS fathom VERBATIM
                       COMMAND fathom completion bash > ${completion}/fathom COMMAND fathom completion zsh > ${completion}/_fathom)
    add_custom_target(fathom_completion ALL DEPENDS ${completion}/fathom ${completion}/_fathom)
    install(FILES ${completion}/fathom DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
    install(FILES ${completion}/_fathom DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
  endif()
endif()
if(TARGET fathom-train)
  set_target_properties(fathom-train PROPERTIES INSTALL_RPATH "${FATHOM_TORCH_ROOT}/lib")
  install(TARGETS fathom-train)
endif()
