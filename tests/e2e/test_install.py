"""What `cmake --install` leaves is enough to build with, from outside: programs, headers one by one, pkg-config; wherever it is moved."""
import os
import pathlib
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
CXX = os.environ.get("CXX", "c++")
STRICT = ["-std=c++20", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror"]


def run(*words, **more):
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, timeout=600, **more)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def sanitize(build):
    on = "FATHOM_SANITIZE:BOOL=ON" in (build / "CMakeCache.txt").read_text()
    return ["-fsanitize=address,undefined"] if on else []


@pytest.fixture(scope="module")
def prefix(build, tmp_path_factory):
    """Installed, and then moved."""
    first = tmp_path_factory.mktemp("install") / "first"
    run("cmake", "--install", build, "--prefix", first)
    moved = first.parent / "moved"
    first.rename(moved)
    return moved


def outside(prefix, project, sanitize, targets):
    """Builds a project that knows nothing but the prefix; returns its build folder."""
    folder = project / "build"
    run("cmake", "-S", project, "-B", folder, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Debug", f"-DCMAKE_PREFIX_PATH={prefix}", "-DCMAKE_FIND_USE_PACKAGE_REGISTRY=OFF",
        f"-DCMAKE_CXX_FLAGS={' '.join(['-Wall -Wextra -Wpedantic -Werror', *sanitize])}")
    run("cmake", "--build", folder, "-j2", "--target", *targets)
    return folder


def test_what_is_installed(prefix, build):
    files = sorted(str(p.relative_to(prefix)) for p in prefix.rglob("*") if not p.is_dir())
    lib = re.search(r"^(\S+)/cmake/fathom/fathomConfig.cmake$", "\n".join(files), re.M)[1]
    headers = [f"include/fathom/{p.name}" for p in sorted((ROOT / "include/fathom").iterdir())]
    assert [f for f in files if f.startswith("include")] == headers and len(headers) > 6
    assert not [f for f in files if re.search(r"\.(cpp|inl|o)$", f)]
    for name in ("bin/fathom", f"{lib}/libfathom.so", f"{lib}/libfathom.a", f"{lib}/pkgconfig/fathom.pc", f"{lib}/cmake/fathom/fathomConfigVersion.cmake",
                 "share/doc/fathom/LICENSE", "share/doc/fathom/NOTICE", "share/bash-completion/completions/fathom", "share/zsh/site-functions/_fathom"):
        assert name in files, name
    # No file that a program is built with names the places where this was built.
    for path in [*prefix.rglob("*.cmake"), *prefix.rglob("*.pc"), *prefix.rglob("*.h")]:
        assert str(ROOT) not in path.read_text() and str(build) not in path.read_text() and "/first" not in path.read_text(), path
    version = run(prefix / "bin/fathom", "version").split()[-1]
    assert f"libfathom.so.{version}" in "\n".join(files) and f"libfathom.so.{version.rsplit('.', 1)[0]}" in "\n".join(files)
    assert "fathom" in (prefix / "share/bash-completion/completions/fathom").read_text()


def test_training_is_installed_where_it_was_built(prefix, build):
    if not (build / "fathom-train").exists():
        pytest.skip("built without training")
    assert run(prefix / "bin/fathom-train", "version").startswith("fathom-train ")  # it has found LibTorch


def test_the_library_shows_its_interface_alone(prefix, sanitize):
    if sanitize:
        pytest.skip("a sanitizer has names of its own")
    library = next(prefix.rglob("libfathom.so"))
    names = run("nm", "-DC", "--defined-only", library).splitlines()
    ours = {m[1] for n in names if (m := re.match(r"\w+ \w (?:(?:typeinfo|typeinfo name|vtable) for )?(fathom::.*)", n))}
    strangers = [n for n in ours if not re.match(r"fathom::(Model|Engine|Stream|Error|score|name|version|set_log)\b", n)]
    assert not strangers and not [n for n in ours if "::State::" in n] and len(ours) > 30
    assert not [n for n in names if re.search("nlohmann|ThreadPool|pcre2|ZSTD|utf8proc", n)]


@pytest.mark.parametrize("header", sorted(p.name for p in (ROOT / "include/fathom").iterdir()))
def test_a_header_stands_alone(prefix, header):
    code = f"#include <fathom/{header}>\n#include <fathom/{header}>\n"
    run(CXX, *STRICT, "-fsyntax-only", "-x", "c++", "-I", prefix / "include", "-", input=code)
    included = re.findall(r"#\s*include\s*([\"<])([^\">]+)", (prefix / "include/fathom" / header).read_text())
    assert all(re.fullmatch(r"fathom/\w+\.h" if quote == '"' else r"\w+", name) for quote, name in included), included


def test_find_package(prefix, folder, build, sanitize, tmp_path):
    """The examples as a project of its own, and the tour's program, with the shared library and with the archive."""
    project = tmp_path / "examples"
    shutil.copytree(ROOT / "examples", project)
    tour = re.search(r"```cpp\n(.*?)```", (ROOT / "docs/api.md").read_text(), re.S)[1]
    (project / "tour.cpp").write_text(tour)
    with open(project / "CMakeLists.txt", "a") as f:
        f.write("add_executable(tour tour.cpp)\ntarget_link_libraries(tour PRIVATE fathom::fathom)\n"
                "add_executable(tour_static tour.cpp)\ntarget_link_libraries(tour_static PRIVATE fathom::static)\n")
    built = outside(prefix, project, sanitize, ["example_generate", "tour", "tour_static"])
    assert run(built / "generate", "mod", "The sea", cwd=folder) == run(build / "examples/generate", "mod", "The sea", cwd=folder)
    text = run(build / "fathom", "generate", "mod", "--prompt", "The sea", "--max-tokens", 40, "--seed", 1, cwd=folder)
    assert run(built / "tour", "mod", cwd=folder) == run(built / "tour_static", "mod", cwd=folder) == text
    assert "libfathom" in run("ldd", built / "tour") and "libfathom" not in run("ldd", built / "tour_static")
    failed = subprocess.run([built / "tour", "nothing"], capture_output=True, text=True)
    assert failed.returncode == 1 and failed.stderr.startswith("nothing: ")  # an exception crosses the library's border


def test_versions(prefix, tmp_path):
    (tmp_path / "CMakeLists.txt").write_text("""
        cmake_minimum_required(VERSION 3.25)
        project(app LANGUAGES CXX)
        foreach(version 0.1 0.2 0.1.0 1.0)
          find_package(fathom ${version} QUIET)
          message(STATUS "${version}: ${fathom_FOUND}")
        endforeach()
        """)
    said = run("cmake", "-S", tmp_path, "-B", tmp_path / "build", "-G", "Ninja", f"-DCMAKE_PREFIX_PATH={prefix}", "-DCMAKE_CXX_COMPILER_WORKS=ON")
    assert re.findall(r"-- (\S+): (\d)", said) == [("0.1", "1"), ("0.2", "0"), ("0.1.0", "1"), ("1.0", "0")]


def test_pkg_config(prefix, folder, build, sanitize, tmp_path):
    if not shutil.which("pkg-config"):
        pytest.skip("no pkg-config")
    env = dict(os.environ, PKG_CONFIG_PATH=str(next(prefix.rglob("fathom.pc")).parent))
    flags = run("pkg-config", "--cflags", "--libs", "fathom", env=env).split()
    run(CXX, *STRICT, *sanitize, ROOT / "examples/score.cpp", "-o", tmp_path / "score", *flags, f"-Wl,-rpath,{next(prefix.rglob('libfathom.so')).parent}")
    assert run(tmp_path / "score", "mod", "The sea", cwd=folder) == run(build / "examples/score", "mod", "The sea", cwd=folder)
    assert "-lpcre2-8" in run("pkg-config", "--libs", "--static", "fathom", env=env)


def test_as_a_part_of_another_project(tmp_path):
    """Configured alone, which says what would be built: the library, and neither programs nor tests nor training."""
    (tmp_path / "main.cpp").write_text("#include <fathom/fathom.h>\nint main() { return fathom::version().empty(); }\n")
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.25)\nproject(app LANGUAGES CXX)\nset(CMAKE_CXX_FLAGS \"-DOF_THE_APP\")\n"
        f"add_subdirectory({ROOT} fathom)\nadd_executable(app main.cpp)\ntarget_link_libraries(app PRIVATE fathom::fathom)\n")
    run("cmake", "-S", tmp_path, "-B", tmp_path / "build", "-G", "Ninja")
    everything = run("ninja", "-C", tmp_path / "build", "-t", "commands", "all")
    assert "src/api/engine.cpp" in everything and "main.cpp" in everything
    for part in ("src/cli", "src/study", "src/convert", "src/nn", "src/train", "tests/", "examples/"):
        assert f"{ROOT}/{part}" not in everything, part
    app = next(line for line in everything.splitlines() if "main.cpp.o -c" in line)
    assert f"{ROOT}/include" in app and f"{ROOT}/src" not in app and "-ffp-contract" not in app
    engine = next(line for line in everything.splitlines() if "src/api/engine.cpp" in line)
    assert "-O2" in engine, "fast, though the other project asks for no kind of build"
