"""Our safetensors reader and writer against the `safetensors` package, both ways."""
import json
import os
import pathlib
import struct
import subprocess

import pytest

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")
from safetensors import safe_open  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOL = pathlib.Path(os.environ.get("FATHOM_BUILD", ROOT / "build")) / "tests" / "tools" / "formats_tool"

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.int64, torch.int32,
          torch.int16, torch.int8, torch.uint64, torch.uint32, torch.uint16, torch.uint8, torch.bool]


def tool(*arguments):
    run = subprocess.run([TOOL, *map(str, arguments)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


def tensors():
    g = torch.Generator().manual_seed(3)
    out = {}
    for i, dtype in enumerate(DTYPES):
        for j, shape in enumerate([(3, 5), (7,), (2, 1, 4), (0, 3), ()]):
            t = torch.randint(0, 2 if dtype == torch.bool else 100, shape, generator=g)
            out[f"model.{i}.tensor-{j} ü"] = t.to(dtype)
    out["floats"] = torch.randn(1000, generator=g) * torch.exp(torch.randn(1000, generator=g) * 8)
    return out


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.contiguous().view(-1).view(torch.uint8), b.contiguous().view(-1).view(torch.uint8))


def test_package_to_us_to_package(tmp_path):
    ours, theirs = tmp_path / "ours.safetensors", tmp_path / "theirs.safetensors"
    want = tensors()
    safetensors_torch.save_file(want, theirs, metadata={"format": "pt", "note": "ü \"quoted\""})
    tool("safetensors-copy", theirs, ours)
    got = safetensors_torch.load_file(ours)
    assert got.keys() == want.keys()
    for name in want:
        assert same(got[name], want[name]), name
    with safe_open(ours, "pt") as f:
        assert f.metadata() == {"format": "pt", "note": "ü \"quoted\""}
    (length,) = struct.unpack("<Q", ours.read_bytes()[:8])
    assert (8 + length) % 64 == 0
    assert "__metadata__" in json.loads(ours.read_bytes()[8:8 + length])
    # A second copy is the same file.
    tool("safetensors-copy", ours, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == ours.read_bytes()


@pytest.mark.parametrize("name,dtype", [("F64", torch.float64), ("F32", torch.float32), ("F16", torch.float16), ("BF16", torch.bfloat16)])
def test_conversion_is_torchs(tmp_path, name, dtype):
    # Random bits: normal numbers, subnormals, zeros, infinities and NaN of both signs.
    g = torch.Generator().manual_seed(5)
    bits = torch.randint(-2**31, 2**31 - 1, (200_000,), generator=g, dtype=torch.int64).to(torch.int32)
    near_half = (torch.randn(100_000, generator=g) * torch.exp2(torch.randint(-30, 18, (100_000,), generator=g).float()))
    floats = torch.cat([bits.view(torch.float32), near_half, torch.tensor([0.0, -0.0, float("inf"), -float("inf"), 65519.996, 65520.0, 2.0**-25])])
    safetensors_torch.save_file({"x": floats}, tmp_path / "in.safetensors")
    tool("safetensors-convert", tmp_path / "in.safetensors", tmp_path / "out.safetensors", name)
    got, want = safetensors_torch.load_file(tmp_path / "out.safetensors")["x"], floats.to(dtype)
    nan = floats.isnan()
    assert got.dtype == dtype and torch.equal(got.isnan(), nan)
    assert same(got[~nan], want[~nan])
    # And back to f32.
    tool("safetensors-convert", tmp_path / "out.safetensors", tmp_path / "back.safetensors", "F32")
    back = safetensors_torch.load_file(tmp_path / "back.safetensors")["x"]
    assert same(back[~nan], want[~nan].to(torch.float32)) and torch.equal(back.isnan(), nan)


def test_sharded_index(tmp_path):
    want = tensors()
    names = sorted(want)
    parts = [names[0::2], names[1::2]]
    weight_map = {}
    for i, part in enumerate(parts):
        file = f"model-{i + 1:05d}-of-00002.safetensors"
        safetensors_torch.save_file({n: want[n] for n in part}, tmp_path / file)
        weight_map |= {n: file for n in part}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    tool("safetensors-copy", tmp_path, tmp_path / "joined.safetensors")
    got = safetensors_torch.load_file(tmp_path / "joined.safetensors")
    assert got.keys() == want.keys() and all(same(got[n], want[n]) for n in want)


def test_both_refuse_the_same_bad_files(tmp_path):
    """What the package refuses we refuse too (we refuse more: gaps of any kind, ranks past 8, control characters)."""
    def file(header, data=b"", length=None):
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(text) if length is None else length) + text + data

    a = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    bad = {
        "short": b"\x01\x02",
        "length": file(a, length=1 << 40),
        "overlap": file({"a": a, "b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}, bytes(12)),
        "gap": file({"a": a, "b": {"dtype": "F32", "shape": [1], "data_offsets": [12, 16]}}, bytes(16)),
        "tail": file({"a": a}, bytes(9)),
        "cut": file({"a": a}, bytes(7)),
        "size": file({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, bytes(8)),
        "overflow": file({"a": {"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 8]}}, bytes(8)),
        "dtype": file({"a": {"dtype": "F31", "shape": [2], "data_offsets": [0, 8]}}, bytes(8)),
        "json": file(b"{\"a\": "),
        "not an object": file([1, 2]),
    }
    for name, content in bad.items():
        path = tmp_path / "bad.safetensors"
        path.write_bytes(content)
        with pytest.raises(Exception):
            safetensors_torch.load_file(path)
        run = subprocess.run([TOOL, "safetensors-copy", path, tmp_path / "x"], capture_output=True, text=True)
        assert run.returncode == 1 and "bad.safetensors: " in run.stderr, (name, run)
        assert not (tmp_path / "x").exists()
