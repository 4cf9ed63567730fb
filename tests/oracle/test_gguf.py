"""Our GGUF reader and the block types of ggml against the `gguf` package: files that it writes, values that it unpacks and packs."""
import json
import os
import pathlib
import subprocess

import pytest

gguf = pytest.importorskip("gguf")
np = pytest.importorskip("numpy")
from gguf import GGMLQuantizationType as Type  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOL = pathlib.Path(os.environ.get("FATHOM_BUILD", ROOT / "build")) / "tests" / "tools" / "gguf_tool"

PLAIN = ["F32", "F16", "BF16"]
ONE_LEVEL = ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"]
TWO_LEVELS = ["Q4_K", "Q5_K", "Q6_K"]
# Where the f16 numbers stand in a block.
F16_AT = {"F16": [0], "Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}


def tool(*arguments):
    run = subprocess.run([TOOL, *map(str, arguments)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


def random_blocks(name, rows, columns, seed, finite):
    """Rows of blocks of random bits; `finite` keeps NaN and infinity out of the f16 numbers."""
    elements, size = gguf.GGML_QUANT_SIZES[Type[name]]
    raw = np.random.default_rng(seed).integers(0, 256, (rows, columns // elements, size), dtype=np.uint8)
    if finite:
        for at in F16_AT.get(name, []):
            raw[..., at + 1] &= 0xBF
        if name in ("F32", "BF16"):
            raw[..., -1] &= 0xBF
    return raw.reshape(rows, -1)


def write(path, tensors, fill=lambda writer: None):
    """tensors: name → (type's name, rows of blocks as bytes)."""
    writer = gguf.GGUFWriter(path, "llama")
    fill(writer)
    for name, (kind, raw) in tensors.items():
        writer.add_tensor(name, raw, raw_dtype=Type[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def theirs(kind, raw):
    return gguf.quants.dequantize(raw, Type[kind])


@pytest.mark.parametrize("command", ["dequantize", "unpack"])
@pytest.mark.parametrize("finite", [True, False], ids=["finite", "any bits"])
def test_dequantised_values_are_the_packages(tmp_path, command, finite):
    tensors = {f"blk.0.{kind.lower()}.weight": (kind, random_blocks(kind, 37, 768, seed, finite)) for seed, kind in enumerate(PLAIN + ONE_LEVEL + TWO_LEVELS)}
    write(tmp_path / "m.gguf", tensors)
    listed = json.loads(tool("list", tmp_path / "m.gguf"))["tensors"]
    assert {t["name"]: (t["type"], t["shape"], t["bytes"]) for t in listed} == {name: (kind, [37, 768], raw.size) for name, (kind, raw) in tensors.items()}
    tool(command, tmp_path / "m.gguf", tmp_path / "values")
    got = np.fromfile(tmp_path / "values", np.float32).reshape(len(listed), 37, 768)
    for values, t in zip(got, listed):
        kind, raw = tensors[t["name"]]
        with np.errstate(invalid="ignore"):
            want = theirs(kind, raw)
        nan = np.isnan(want)
        assert finite is False or not nan.any(), kind
        assert np.array_equal(np.isnan(values), nan), kind
        assert np.array_equal(values[~nan].view(np.uint32), want[~nan].view(np.uint32)), kind


def distributions():
    rng, n = np.random.default_rng(1), (64, 1024)
    normal = rng.standard_normal(n)
    return {
        "normal": normal * 0.02, "laplace": rng.laplace(size=n), "uniform": rng.uniform(-1, 1, n), "positive": np.abs(normal) + 1, "negative": -np.abs(normal) - 1,
        "outliers": np.where(rng.random(n) < 0.01, 100 * normal, normal), "large": normal * 1e4, "small": normal * 1e-5, "zeros": np.zeros(n),
        "some zeros": np.where(rng.random(n) < 0.5, 0, normal), "constant": np.repeat(rng.standard_normal((64, 32)), 32, axis=1), "grid": np.round(normal * 4) / 4,
        "halves": (rng.integers(-254, 255, n) + 0.0) / 2,
    }


@pytest.mark.parametrize("kind", PLAIN + ONE_LEVEL)
def test_quantised_blocks_are_the_packages(tmp_path, kind):
    for name, values in distributions().items():
        x = np.ascontiguousarray(values, dtype=np.float32)
        x.tofile(tmp_path / "in")
        tool("quantize", kind, tmp_path / "in", tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == gguf.quants.quantize(x, Type[kind]).tobytes(), name


@pytest.mark.parametrize("kind,better_than", [("Q4_K", "Q4_1"), ("Q5_K", "Q5_1"), ("Q6_K", "Q5_1")])
def test_two_level_blocks_hold_the_values(tmp_path, kind, better_than):
    """The package reads them, and with fewer bits for the scales they are as good as rounding alone."""
    for name, values in distributions().items():
        x = np.ascontiguousarray(values, dtype=np.float32)
        x.tofile(tmp_path / "in")
        tool("quantize", kind, tmp_path / "in", tmp_path / "out")
        blocks = np.fromfile(tmp_path / "out", np.uint8).reshape(64, -1)
        error = np.square(theirs(kind, blocks) - x.astype(np.float64)).mean()
        other = np.square(theirs(better_than, gguf.quants.quantize(x, Type[better_than])) - x.astype(np.float64)).mean()
        # A minimum of a K group is never above 0 and Q6_K has none: values on one side spend codes on the gap. Some are exact with a minimum of their own.
        if name not in ("positive", "constant", "grid") and (kind, name) != ("Q6_K", "negative"):
            assert error <= 1.06 * other, (name, error, other)
        assert error <= 0.01 * np.square(x).mean(), (name, error)


def test_metadata_of_every_type(tmp_path):
    numbers = {"u8": (255, "uint8"), "i8": (-128, "int8"), "u16": (65535, "uint16"), "i16": (-32768, "int16"), "u32": (2**32 - 1, "uint32"), "i32": (-2**31, "int32"),
               "u64": (2**63 - 1, "uint64"), "i64": (-2**63, "int64"), "f32": (0.1, "float32"), "f64": (0.1, "float64")}
    tokens = [f"token {i} ü" for i in range(5000)] + [""]

    def fill(writer):
        for key, (value, kind) in numbers.items():
            getattr(writer, f"add_{kind}")(f"n.{key}", value)
        writer.add_bool("yes", True)
        writer.add_string("text", "größe\n\"quoted\"")
        writer.add_array("tokens", tokens)
        writer.add_array("integers", [1, -2, 3])
        writer.add_array("floats", [0.5, -1.25])
        writer.add_array("flags", [True, False, True])

    write(tmp_path / "m.gguf", {"a": ("F32", random_blocks("F32", 1, 8, 1, True))}, fill)
    got = json.loads(tool("list", tmp_path / "m.gguf"))
    assert got["version"] == 3 and got["alignment"] == 32
    m = got["metadata"]
    for key, (value, _) in numbers.items():
        want = float(np.float32(value)) if key == "f32" else value
        assert m[f"n.{key}"] == {"type": key, "array": False, "elements": [want]}
    assert m["general.architecture"]["elements"] == ["llama"]
    assert m["yes"] == {"type": "boolean", "array": False, "elements": [True]}
    assert m["text"]["elements"] == ["größe\n\"quoted\""]
    assert m["tokens"] == {"type": "string", "array": True, "elements": tokens}
    assert m["integers"] == {"type": "i32", "array": True, "elements": [1, -2, 3]}
    assert m["floats"] == {"type": "f32", "array": True, "elements": [0.5, -1.25]}
    assert m["flags"] == {"type": "boolean", "array": True, "elements": [True, False, True]}


def test_alignment_and_shapes(tmp_path):
    shapes = {"one": (7,), "two": (3, 5), "three": (2, 3, 4), "four": (2, 1, 3, 32)}
    rng = np.random.default_rng(2)
    values = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_custom_alignment(256)
    for name, x in values.items():
        writer.add_tensor(name, x)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    got = json.loads(tool("list", tmp_path / "m.gguf"))
    assert got["alignment"] == 256 and {t["name"]: tuple(t["shape"]) for t in got["tensors"]} == shapes
    tool("dequantize", tmp_path / "m.gguf", tmp_path / "values")
    assert (tmp_path / "values").read_bytes() == b"".join(values[t["name"]].tobytes() for t in got["tensors"])


def test_big_endian_is_refused_by_name(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama", endianess=gguf.GGUFEndian.BIG)
    writer.add_tensor("a", np.ones(8, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    run = subprocess.run([TOOL, "list", tmp_path / "m.gguf"], capture_output=True, text=True)
    assert run.returncode == 1 and "m.gguf: version: found 50331648, a big-endian file of version 3, expected 2 or 3, little-endian" in run.stderr


def test_a_real_model(tmp_path):
    """The model of scripts/get-smollm2, or the file that FATHOM_GGUF names."""
    path = os.environ.get("FATHOM_GGUF") or next(map(str, (ROOT / "models").glob("*.gguf")), None)
    if not path:
        pytest.skip("scripts/get-smollm2 did not run, and FATHOM_GGUF is not set")
    reader = gguf.GGUFReader(path)
    got = json.loads(tool("list", path))
    assert {t["name"]: (t["type"], t["shape"]) for t in got["tensors"]} == {t.name: (t.tensor_type.name, [int(n) for n in reversed(t.shape)]) for t in reader.tensors}
    for key, v in got["metadata"].items():
        assert v["elements"] == (c if isinstance(c := reader.fields[key].contents(), list) else [c]), key
    tool("dequantize", path, tmp_path / "values")
    values, at = np.memmap(tmp_path / "values", np.float32, "r"), 0
    by_name = {t.name: t for t in reader.tensors}
    for t in got["tensors"]:
        want = theirs(t["type"], by_name[t["name"]].data).reshape(-1)
        assert np.array_equal(values[at:at + want.size].view(np.uint32), want.view(np.uint32)), t["name"]
        at += want.size
    assert at == values.size
