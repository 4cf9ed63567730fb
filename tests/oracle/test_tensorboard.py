"""Our event files as the `tensorboard` package reads them."""
import os
import pathlib
import subprocess

import numpy as np
import pytest

pytest.importorskip("tensorboard")
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator  # noqa: E402
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOL = pathlib.Path(os.environ.get("FATHOM_BUILD", ROOT / "build")) / "tests" / "tools" / "formats_tool"


def write(folder, start):
    run = subprocess.run([TOOL, "tensorboard", folder, str(start)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def read(folder):
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    return events


def floats(events, tag):
    return {e.step: float(e.tensor_proto.float_val[0] if e.tensor_proto.float_val else np.frombuffer(e.tensor_proto.tensor_content, np.float32)[0])
            for e in events.Tensors(tag)}


def test_scalars_histograms_and_text(tmp_path):
    path = write(tmp_path, 0)
    assert pathlib.Path(path).name.startswith("events.out.tfevents.")
    assert len(list(RawEventFileLoader(path).Load())) == 2 + 20 + 3  # every record's checksums are right
    events = read(tmp_path)
    assert set(events.Tags()["tensors"]) == {"loss/train", "größe", "router/score", "nothing", "config"}
    loss = floats(events, "loss/train")
    assert loss == {s: float(np.float32(10.0 / (s + 1))) for s in range(10)}
    assert [e.wall_time for e in events.Tensors("loss/train")] == [1e9 + s for s in range(10)]
    assert np.isnan(floats(events, "größe")[3])

    (histogram,) = events.Tensors("router/score")
    left, right, count = np.frombuffer(histogram.tensor_proto.tensor_content, np.float32).reshape(-1, 3).T  # of each bucket
    assert count.sum() == pytest.approx(20000)
    assert (right >= left).all() and left[0] < -3 and right[-1] > 3
    middle = (left + right) / 2
    assert (middle * count).sum() / count.sum() == pytest.approx(0, abs=0.05)

    (text,) = events.Tensors("config")
    assert text.tensor_proto.string_val[0].decode() == "a **bold** word\n\n<b>& é</b>"
    assert events.SummaryMetadata("config").plugin_data.plugin_name == "text"
    assert events.SummaryMetadata("loss/train").plugin_data.plugin_name == "scalars"
    assert events.SummaryMetadata("router/score").plugin_data.plugin_name == "histograms"


def test_a_resumed_run_replaces_what_came_after_its_step(tmp_path):
    write(tmp_path, 0)
    write(tmp_path, 6)  # steps 6 to 9 again, to 15
    events = read(tmp_path)
    steps = [e.step for e in events.Tensors("loss/train")]
    assert steps == list(range(16))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_file_cut_off_is_read_up_to_the_cut(tmp_path):
    path = pathlib.Path(write(tmp_path, 0))
    path.write_bytes(path.read_bytes()[:400])
    assert len(list(RawEventFileLoader(str(path)).Load())) >= 4
