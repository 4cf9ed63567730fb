"""Kills training runs at random moments, inside the writing of checkpoints too, and holds what comes out after all the
resumes equal to a run that nothing disturbed: weights, moments and every line of the metrics. FATHOM_BUILD names the build folder.
"""
import json
import os
import pathlib
import random
import resource
import signal
import subprocess
import sys
import time

import pytest

BUILD = pathlib.Path(os.environ.get("FATHOM_BUILD", pathlib.Path(__file__).resolve().parents[2] / "build/release")).resolve()
TRAIN = BUILD / "fathom-train"
KILLS = 30
CLOCK = ("seconds", "tokens_per_second", "flops_per_second", "share_of_matmul")

pytestmark = pytest.mark.skipif(not TRAIN.exists(), reason="no fathom-train in the build folder")


def config(text):
    return {
        "model": {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 2, "num_key_value_heads": 2,
                  "fathom": {"routed_blocks": "every_second", "capacity": 0.25, "rule": "predictor"}},
        "data": {"text": [str(text)], "vocab_size": 300, "validation_share": 0.1},
        "sequence_length": 32, "batch_size": 4, "budget": {"steps": 240},
        "interval": {"log_steps": 1, "eval_steps": 40, "eval_tokens": 512, "final_eval_tokens": 512, "checkpoint_steps": 2, "checkpoint_seconds": 0},
        "calibration": {"tokens": 512, "dials": [0.7]},
        "precision": "f32", "f32_route": "onednn", "seed": 5, "threads": 1,
    }


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a text, its configuration and the run that nothing disturbs."""
    folder = tmp_path_factory.mktemp("kill")
    words = ["red", "boat", "tree", "house", "sees", "likes", "the", "a", "old", "bird", "train", "and"]
    rng = random.Random(1)
    documents = [" ".join(rng.choice(words) for _ in range(rng.randint(20, 120))) + "\n" for _ in range(300)]
    (folder / "text.txt").write_text("<|endoftext|>\n".join(documents))
    (folder / "config.json").write_text("// comments are allowed\n" + json.dumps(config(folder / "text.txt")))
    done = subprocess.run(start_words(folder, "whole"), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder


def start_words(folder, run, *more):
    return [str(TRAIN), "train", str(folder / "config.json"), "--out", str(folder / run), *more]


def resume_words(folder, run):
    return [str(TRAIN), "train", "--resume", str(folder / run)]


def next_words(folder, run, *more):
    """What a person types: resume where there is a run, else start."""
    return resume_words(folder, run) if (folder / run / "config.json").exists() else start_words(folder, run, *more)


def metrics(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in CLOCK} for line in lines]


def checkpoints(run):
    folder = run / "checkpoints"
    return sorted(folder.glob("step-*")) if folder.exists() else []


def check_whole(checkpoint):
    """A folder that has a checkpoint's name is a whole checkpoint."""
    from safetensors import safe_open
    with safe_open(checkpoint / "state.safetensors", "pt") as state:
        for name in state.keys():
            state.get_tensor(name)
    data = json.loads((checkpoint / "checkpoint.json").read_text())
    assert data["progression"]["step"] == int(checkpoint.name[5:])


def same(folder, run):
    whole, other = folder / "whole", folder / run
    assert metrics(other) == metrics(whole)
    assert (other / "model" / "model.safetensors").read_bytes() == (whole / "model" / "model.safetensors").read_bytes()
    assert (other / "model" / "fathom_dial.json").read_bytes() == (whole / "model" / "fathom_dial.json").read_bytes()
    assert (checkpoints(other)[-1] / "state.safetensors").read_bytes() == (checkpoints(whole)[-1] / "state.safetensors").read_bytes()


def wait_for(process, condition, seconds=60):
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.0005)
    return False


def size(path):
    return path.stat().st_size if path.exists() else 0


def half_written(run):
    folder = run / "checkpoints"
    try:
        return any(name.startswith(".step-") for name in os.listdir(folder))
    except FileNotFoundError:
        return False


def test_thirty_kills(home):
    run, rng = home / "killed", random.Random(2)
    kills, inside = 0, 0
    for attempt in range(200):
        if kills == KILLS:
            break
        process = subprocess.Popen(next_words(home, "killed"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        kind = rng.choice(["start", "step", "writing", "writing"])
        if kind == "start":
            time.sleep(rng.uniform(0, 1.0))
        elif kind == "step":
            before = size(run / "metrics.jsonl")
            wait_for(process, lambda: size(run / "metrics.jsonl") > before + 500)
            time.sleep(rng.uniform(0, 0.02))
        else:
            wait_for(process, lambda: half_written(run))
        process.kill()
        _, errors = process.communicate()
        if process.returncode == 0:
            break  # it was done before the moment came
        assert process.returncode == -signal.SIGKILL, errors
        kills += 1
        inside += half_written(run)
        for checkpoint in checkpoints(run):
            check_whole(checkpoint)
    assert kills == KILLS, "the run ended too early: give it more steps"
    assert inside >= 3, "no kill fell into the writing of a checkpoint"
    done = subprocess.run(next_words(home, "killed"), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    same(home, "killed")
    assert not half_written(run)
    assert not [p.name for p in run.iterdir() if ".tmp-" in p.name]


def test_interrupt_saves_and_says_how_to_go_on(home):
    run = home / "interrupted"
    process = subprocess.Popen(start_words(home, "interrupted"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert wait_for(process, lambda: size(run / "metrics.jsonl") > 2000)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert f"fathom train --resume {run}" in errors
    step = int(checkpoints(run)[-1].name[5:])
    assert f"stopped after step {step} of 240" in errors
    assert metrics(run)[-1]["step"] == step
    done = subprocess.run(resume_words(home, "interrupted"), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    same(home, "interrupted")


def test_second_interrupt_stops_at_once(home):
    run = home / "twice"
    words = start_words(home, "twice", "--accumulation", "2000", "--interval.eval_steps", "0")  # a step takes seconds
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert wait_for(process, lambda: (run / "metrics.jsonl").exists())
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    assert process.poll() is None  # the first waits for the end of the step
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=5)
    assert process.returncode == -signal.SIGINT


def test_full_disk_leaves_the_last_checkpoint(home):
    run = home / "full"
    process = subprocess.Popen(start_words(home, "full"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert wait_for(process, lambda: len(checkpoints(run)) >= 2)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    last = checkpoints(run)[-1]
    limit = size(last / "state.safetensors") - 1000
    assert limit > size(run / "metrics.jsonl")
    done = subprocess.run(resume_words(home, "full"), capture_output=True, text=True, timeout=300,
                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    assert done.returncode == 1, done.stderr
    assert "state.safetensors" in done.stderr and "cannot write: File too large" in done.stderr
    assert checkpoints(run)[-1] == last
    check_whole(last)
    assert not half_written(run)
    done = subprocess.run(resume_words(home, "full"), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    same(home, "full")


def test_two_processes_do_not_share_a_run(home):
    run = home / "shared"
    process = subprocess.Popen(start_words(home, "shared"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert wait_for(process, lambda: size(run / "metrics.jsonl") > 500)
    second = subprocess.run(resume_words(home, "shared"), capture_output=True, text=True, timeout=60)
    assert second.returncode == 1 and "another process works in this run folder" in second.stderr
    process.kill()
    process.communicate()


def test_tensorboard_sees_one_run(home):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    events = EventAccumulator(str(home / "whole"))
    events.Reload()
    tags = events.Tags()["scalars"]
    for tag in ("train/loss", "train/share/0", "train/agreement/1", "train/aux/predictor_bce", "train/never", "eval/loss", "eval/loss_topk", "final/loss"):
        assert tag in tags, tags
    losses = [line["loss"] for line in metrics(home / "whole") if line["type"] == "train"]
    assert [e.value for e in events.Scalars("train/loss")] == pytest.approx(losses)


@pytest.mark.parametrize("words,code,says", [
    (["train"], 2, "CONFIG"),
    (["train", "missing.json"], 1, "missing.json"),
    (["train", "{config}", "--optimizer.lrr", "1"], 2, '"optimizer.lr" perhaps'),
    (["train", "{config}", "--set", "optimizer.lr"], 2, "FIELD=VALUE"),
    (["train", "{config}", "--set", "optimizer.lr=fast"], 2, "--optimizer.lr fast: found the string \"fast\", expected a number from 0"),
    (["train", "{config}", "--steps", "5", "--flops", "1e9"], 2, "one of --steps, --tokens and --flops"),
    (["train", "{config}", "--steps", "0"], 2, "--steps 0: found the number 0, expected a whole number from 1"),
    (["train", "{config}", "--resume", "{home}/nothing"], 1, "no such folder"),
    (["train", "--resume", "{home}/nothing"], 1, "no such folder"),
    (["train", "{config}", "--out", "{home}/whole"], 1, "the folder of another run"),
    (["train", "--resume", "{home}/whole", "--optimizer.lr", "1"], 1, "optimizer.lr"),
    (["train", "{config}", "--out", "{home}/t", "--data.text", "{home}/none.txt"], 1, "none.txt"),
    (["train", "{config}", "--out", "{home}/s", "--sequence_length", "2048", "--data.dataset", "{home}/whole/data"], 1, "tokens"),
    (["export", "{home}/whole"], 2, "--out"),
    (["export", "{home}/whole", "--out", "{home}/m"], 1, "checkpoint.json"),
    (["trian"], 2, "train"),
])
def test_wrong_words(home, words, code, says):
    filled = [w.format(config=home / "config.json", home=home) for w in words]
    done = subprocess.run([str(TRAIN), *filled], capture_output=True, text=True, timeout=60, cwd=home)
    assert done.returncode == code, done.stderr
    assert says in done.stderr, done.stderr


def test_a_budget_below_a_step_is_said(home, tmp_path):
    for flops, says in (("1e3", True), ("3e9", False)):
        done = subprocess.run([str(TRAIN), "train", str(home / "config.json"), "--flops", flops, "--out", str(tmp_path / flops)], capture_output=True, text=True, timeout=60, cwd=home)
        assert done.returncode == 0, done.stderr
        assert ("budget: flops: 1.00k is less than half a step costs; one step is made" in done.stderr) == says, done.stderr
        assert ("1 step of" in done.stderr) == says, done.stderr


def test_fathom_hands_on(home):
    if not (BUILD / "fathom").exists():
        pytest.skip("no fathom in the build folder")
    done = subprocess.run([str(BUILD / "fathom"), "train", str(home / "config.json"), "--print-config", "--seed", "9"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["seed"] == 9


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-q"]))
