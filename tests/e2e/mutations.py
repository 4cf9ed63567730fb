"""What the tests here are to notice; tests/mutations.py says how an entry reads and runs them."""
MUTATIONS = [
    ("weights-released", "a model's file does not stay in memory beside its weights", "src/core/file.cpp", "if (data_) (void)::madvise(const_cast<std::byte*>(data_), size_, MADV_DONTNEED);", "",
     "tests/e2e/test_memory.py", "resident"),
    ("kill-atomic", "thirty kills lose nothing", "src/train/checkpoint.cpp", "  atomic_folder(path, [&](const std::string& folder) {",
     "  make_folders(path);\n  ([&](const auto& write) { write(path); })([&](const std::string& folder) {", "tests/e2e/test_kill.py", "thirty"),
    ("api-hidden", "the library shows its interface alone", "cmake/Library.cmake", "-Wl,--exclude-libs,ALL", "-Wl,--as-needed", "tests/e2e/test_install.py", "interface_alone"),
    ("api-internals", "no internal header is installed", "cmake/Install.cmake", "install(DIRECTORY include/fathom DESTINATION", "install(DIRECTORY include/fathom src/api DESTINATION",
     "tests/e2e/test_install.py", "what_is_installed"),
    ("api-moved", "what is installed may be moved", "cmake/fathom.pc.in", "prefix=${pcfiledir}/@up@", "prefix=@CMAKE_INSTALL_PREFIX@", "tests/e2e/test_install.py", "pkg_config"),
]
