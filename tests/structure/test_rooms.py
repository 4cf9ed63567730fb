"""Who may include whom. Reads fathom_room(… USES …) of src/*/CMakeLists.txt and every #include under src/.

The order of the rooms is here, once; a room may use only rooms of a lower rank. `infer` and `nn` share `model` and what is
below it and never see each other; `tune` alone stands on both: the engine is its teacher, the network its student. Only `nn`, `train`, `tune` and the commands of fathom-train know LibTorch. The public headers
(include/fathom/) include the standard library and each other, and of the rooms `api` alone includes them.
"""
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]

RANK = {"core": 0, "formats": 1, "text": 1, "kernels": 1, "data": 2, "routing": 3, "model": 4, "infer": 5, "api": 6, "convert": 6, "study": 7, "serve": 7, "cli": 8}
RANK_NN = {room: rank for room, rank in RANK.items() if rank <= RANK["model"]} | {"nn": 5, "train": 6}
TRAINING = {"nn", "train"}
RANK_TUNE = RANK_NN | {room: rank for room, rank in RANK.items() if rank <= RANK["convert"]} | {"tune": 7}
ROOMS = set(RANK) | TRAINING | {"tune"}
LARGEST_BYTES = 20 * 1024
SUFFIXES = {".h", ".cpp", ".cu", ".cuh", ".inc", ".inl"}

INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]', re.M)
LIBTORCH = re.compile(r"^(torch|ATen|c10|caffe2)/|^torch\.h$")


def sources(root):
    return sorted(p for p in (root / "src").rglob("*") if p.suffix in SUFFIXES)


def uses_graph(root):
    """Room → the rooms of its fathom_room(… USES …)."""
    graph = {}
    for file in sorted((root / "src").glob("*/CMakeLists.txt")):
        text = re.sub(r"#.*", "", file.read_text())
        for call in re.findall(r"fathom_room\(([^)]*)\)", text):
            words = call.split()
            used, inside = [], False
            for word in words[1:]:
                if word in ("USES", "LIBS", "SUBDIRS"):
                    inside = word == "USES"
                elif inside:
                    used.append(word)
            graph[words[0]] = used
    return graph


def closure(graph, room):
    seen, todo = set(), list(graph.get(room, []))
    while todo:
        used = todo.pop()
        if used not in seen:
            seen.add(used)
            todo += graph.get(used, [])
    return seen


def upward_uses(root):
    graph, faults = uses_graph(root), []
    for room, used in graph.items():
        if room not in ROOMS:
            faults.append(f"{room}: a room that the order in tests/structure does not know")
            continue
        ranks = RANK_TUNE if room == "tune" else RANK_NN if room in TRAINING else RANK
        for other in used:
            if other not in ranks:
                faults.append(f"{room} uses {other}, which is not below it")
            elif ranks[other] >= ranks[room]:
                faults.append(f"{room} uses {other}: upward or sideways")
    return faults


def allowed_rooms(root, graph, path):
    """The rooms whose headers the file may include."""
    parts = path.relative_to(root / "src").parts
    room = parts[0]
    if room != "cli":
        return {room} | closure(graph, room)
    if len(parts) > 2 and parts[1] == "train":  # the commands of fathom-train
        return {"cli", "train", "tune"} | closure(graph, "train") | closure(graph, "tune")
    return set(RANK)


def bad_includes(root):
    graph, faults = uses_graph(root), []
    for path in sources(root):
        name = path.relative_to(root)
        allowed = allowed_rooms(root, graph, path)
        for quote, included in INCLUDE.findall(path.read_text(errors="replace")):
            room = included.split("/")[0]
            if quote == '"' and not any((root / place / included).exists() for place in ("src", "include")):
                faults.append(f"{name}: \"{included}\" is not a file under src/ (write includes as \"room/file.h\")")
            elif room in ROOMS and (root / "src" / included).exists() and room not in allowed:
                faults.append(f"{name} includes {included}, outside of {', '.join(sorted(allowed))}")
    return faults


def libtorch_includes(root):
    faults = []
    for path in sources(root):
        parts = path.relative_to(root / "src").parts
        if parts[0] in TRAINING | {"tune"} or parts[:2] == ("cli", "train"):
            continue
        faults += [f"{path.relative_to(root)} includes {included}" for _, included in INCLUDE.findall(path.read_text(errors="replace")) if LIBTORCH.search(included)]
    return faults


def mixed_engine_and_network(root):
    """The engine above model never sees nn or train, and they never see it, whatever CMake says."""
    engine, faults = {room for room, rank in RANK.items() if rank > RANK["model"]} - {"cli"}, []
    for path in sources(root):
        room = path.relative_to(root / "src").parts[0]
        forbidden = TRAINING | {"tune"} if room in engine else engine | {"tune"} if room in TRAINING else set()
        for _, included in INCLUDE.findall(path.read_text(errors="replace")):
            if included.split("/")[0] in forbidden:
                faults.append(f"{path.relative_to(root)} includes {included}")
    for room, used in uses_graph(root).items():
        forbidden = TRAINING | {"tune"} if room in engine else engine | {"tune"} if room in TRAINING else set()
        faults += [f"{room} uses {other}" for other in used if other in forbidden]
    return faults


def too_large(root):
    return [f"{p.relative_to(root)}: {p.stat().st_size} bytes, at most {LARGEST_BYTES}" for p in sources(root) if p.stat().st_size > LARGEST_BYTES]


def public_headers(root):
    public = sorted((root / "include/fathom").glob("*")) if (root / "include/fathom").exists() else []
    faults = [f"{p.relative_to(root)} includes {included}" for p in public for quote, included in INCLUDE.findall(p.read_text())
              if not (included.startswith("fathom/") if quote == '"' else re.fullmatch(r"[a-z_]+", included))]
    for path in sources(root):
        if path.relative_to(root / "src").parts[0] != "api":
            faults += [f"{path.relative_to(root)} includes {included}" for _, included in INCLUDE.findall(path.read_text(errors="replace")) if included.startswith("fathom/")]
    return faults


def without_readme(root):
    rooms = {p.relative_to(root / "src").parts[0] for p in sources(root)}
    return [f"src/{room} has no README.md" for room in sorted(rooms) if not (root / "src" / room / "README.md").exists()]


CHECKS = [upward_uses, bad_includes, libtorch_includes, mixed_engine_and_network, too_large, public_headers, without_readme]


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
def test_rooms(check):
    assert check(ROOT) == []


# ---- The checks find what they are for: a small good tree, and one fault at a time in it.

def tree(root, files):
    for name, text in files.items():
        path = root / name if name.startswith("include/") else root / "src" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


GOOD = {
    "core/CMakeLists.txt": "fathom_room(core LIBS json)", "core/README.md": "", "core/error.h": "#include <string>\n",
    "routing/CMakeLists.txt": "fathom_room(routing USES core) # comment USES infer", "routing/README.md": "", "routing/dial.h": '#include "core/error.h"\n',
    "model/CMakeLists.txt": "fathom_room(model\n  USES routing\n  LIBS x)", "model/README.md": "", "model/config.h": '#include "core/error.h"\n#include "routing/dial.h"\n',
    "infer/CMakeLists.txt": "fathom_room(infer USES model)", "infer/README.md": "", "infer/engine.h": '#include "model/config.h"\n',
    "nn/CMakeLists.txt": "fathom_room(nn USES model LIBS Torch::cpu)", "nn/README.md": "", "nn/net.h": '#include <ATen/ATen.h>\n#include "model/config.h"\n',
    "tune/CMakeLists.txt": "fathom_room(tune USES nn infer LIBS Torch::cpu)", "tune/README.md": "", "tune/teacher.h": '#include <ATen/ATen.h>\n#include "infer/engine.h"\n#include "nn/net.h"\n',
    "api/CMakeLists.txt": "fathom_room(api USES infer)", "api/README.md": "", "api/engine.cpp": '#include "fathom/engine.h"\n#include "infer/engine.h"\n',
    "include/fathom/engine.h": '#include <string_view>\n#include "fathom/error.h"\n', "include/fathom/error.h": "",
    "cli/README.md": "", "cli/main.cpp": '#include "infer/engine.h"\n', "cli/train/main.cpp": '#include <torch/torch.h>\n',
}


def test_a_good_tree_passes(tmp_path):
    root = tree(tmp_path, GOOD)
    assert [fault for check in CHECKS for fault in check(root)] == []


@pytest.mark.parametrize("check,files,part", [
    (upward_uses, {"routing/CMakeLists.txt": "fathom_room(routing USES core model)"}, "routing uses model: upward"),
    (upward_uses, {"infer/CMakeLists.txt": "fathom_room(infer USES model nn)"}, "infer uses nn, which is not below it"),
    (upward_uses, {"nn/CMakeLists.txt": "fathom_room(nn USES model infer)"}, "nn uses infer, which is not below it"),
    (upward_uses, {"formats/CMakeLists.txt": "fathom_room(formats USES text)"}, "formats uses text: upward or sideways"),
    (upward_uses, {"extra/CMakeLists.txt": "fathom_room(extra)"}, "extra: a room that the order"),
    (bad_includes, {"core/error.h": '#include "model/config.h"\n'}, "core/error.h includes model/config.h"),
    (bad_includes, {"core/error.h": '  #  include <model/config.h>\n'}, "core/error.h includes model/config.h"),
    (bad_includes, {"core/error.h": '#include "config.h"\n'}, "is not a file under src/"),
    (bad_includes, {"cli/main.cpp": '#include "nn/net.h"\n'}, "cli/main.cpp includes nn/net.h"),
    (libtorch_includes, {"cli/train_command.cpp": '#include <c10/util/Half.h>\n'}, "includes c10/util/Half.h"),
    (libtorch_includes, {"infer/engine.h": '#include <ATen/ATen.h>\n'}, "infer/engine.h includes ATen/ATen.h"),
    (mixed_engine_and_network, {"infer/engine.h": '#include "nn/net.h"\n'}, "infer/engine.h includes nn/net.h"),
    (mixed_engine_and_network, {"infer/engine.h": '#include "tune/tuner.h"\n'}, "infer/engine.h includes tune/tuner.h"),
    (upward_uses, {"tune/CMakeLists.txt": "fathom_room(tune USES nn infer study)"}, "tune uses study, which is not below it"),
    (mixed_engine_and_network, {"nn/net.h": '#include "infer/engine.h"\n'}, "nn/net.h includes infer/engine.h"),
    (public_headers, {"include/fathom/model.h": '#include <string>\n#include "model/config.h"\n'}, "include/fathom/model.h includes model/config.h"),
    (public_headers, {"include/fathom/model.h": "#include <nlohmann/json.hpp>\n"}, "model.h includes nlohmann/json.hpp"),
    (public_headers, {"include/fathom/model.h": "", "core/error.h": '#include "fathom/model.h"\n'}, "core/error.h includes fathom/model.h"),
    (too_large, {"core/error.h": "// " + "x" * 31000}, "core/error.h: 31003 bytes"),
    (without_readme, {"data/shards.h": ""}, "src/data has no README.md"),
])
def test_each_fault_is_found(tmp_path, check, files, part):
    faults = check(tree(tmp_path, GOOD | files))
    assert any(part in fault for fault in faults), faults
