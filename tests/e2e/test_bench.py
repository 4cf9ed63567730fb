"""fathom bench: what it says of a shape, of a peer beside it, and of what it cannot measure. No figure of speed is asserted."""
import json
import os
import pathlib
import stat
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
FATHOM = pathlib.Path(os.environ.get("FATHOM_BUILD", ROOT / "build")) / "fathom"
MODEL = ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
SHORT = ["--prompt", "48", "--generate", "16", "--depth", "8", "--rounds", "1", "--threads", "1", "--quiet", "--json"]


def fathom(*words):
    return subprocess.run([str(FATHOM), "bench", *map(str, words)], capture_output=True, text=True, timeout=300)


PACKED = {"f32": 4, "f16": 2, "bf16": 2, "q8_0": 34 / 32, "q4_0": 18 / 32, "q4_1": 20 / 32, "q5_0": 22 / 32, "q5_1": 24 / 32, "q4_k": 148 / 256, "q5_k": 180 / 256, "q6_k": 210 / 256}


@pytest.mark.parametrize("type,packed", PACKED.items())
def test_a_shape_and_its_routed_form(type, packed):
    result = fathom("--shape", "256,4,4,2,256,512", "--routed", "every-second:0.25", "--type", type, "--batch", "1,3", *SHORT)
    assert result.returncode == 0, result.stderr
    [run] = json.loads(result.stdout)["runs"]
    elements = 4 * (2 * 256 * 256 + 2 * 128 * 256 + 3 * 256 * 256) + 512 * 256
    assert elements * packed <= run["weight_bytes"] <= elements * packed + 4 * (256 * 2 * 5 + 4096)  # and norms
    lines = {(line["work"], line["model"]): line for line in run["lines"]}
    assert {work for work, _ in lines} == {"prompt 48", "generate 16, depth 8", "generate 16, batch 3, depth 8"}
    for (work, model), line in lines.items():
        assert line["tokens_per_second"] > 0 and line["slowest"] <= line["tokens_per_second"] <= line["fastest"]
        decodes = work.startswith("generate")
        assert line["limit_gb_per_second"] > 0 and line["limit_gop_per_second"] > 0
        assert line["gb_per_second"] > 0 and line["gop_per_second"] > 0
        assert line["share_of_limit"] == pytest.approx(line["gb_per_second"] / line["limit_gb_per_second"] if decodes else line["gop_per_second"] / line["limit_gop_per_second"])
        if model == "dense":
            assert line["expected_run_share"] == 1 and line["run_share"] == 1 and line["speedup"] == 1 and line["allowed_speedup"] == 1
        else:
            assert line["expected_run_share"] == 0.25 and 0 < line["run_share"] < 0.6  # 25 % of the tokens that calibrated it
            assert line["allowed_speedup"] > 1
            flops = lambda l: l["gop_per_second"] / l["tokens_per_second"]
            assert 0 < line["flops_saved"] == pytest.approx(1 - flops(line) / flops(lines[work, "dense"])) and line["seconds_saved"] == pytest.approx(1 - 1 / line["speedup"])
            if not decodes:
                assert line["allowed_speedup"] == pytest.approx(1 / (1 - line["flops_saved"]))
    # Dense: products of every matrix with every token, and the pairs of tokens that attention sees, 4 · 4 · 64 operations each in 4 blocks.
    rate = lambda work: lines[work, "dense"]["gop_per_second"] * 1e9 / lines[work, "dense"]["tokens_per_second"]
    head, blocks, pair = 2 * 512 * 256, 2 * 4 * (2 * 256 * 256 + 2 * 128 * 256 + 3 * 256 * 256), 4 * 4 * 4 * 64
    assert rate("prompt 48") == pytest.approx(blocks + head / 48 + pair * 49 / 2)
    for work in ("generate 16, depth 8", "generate 16, batch 3, depth 8"):
        assert rate(work) == pytest.approx(blocks + head + pair * (8 + 17 / 2))
    prompt = lines["prompt 48", "dense"]  # in one step, which reads every matrix once, and keys and values
    assert 0.8 * run["weight_bytes"] < prompt["gb_per_second"] * 1e9 * 48 / prompt["tokens_per_second"] < 1.2 * run["weight_bytes"] + 4 * 48 * 2 * 128 * 4
    # One text saves the bytes of what it skips; three seldom skip together. What is allowed lies between what bytes and what FLOPs allow.
    read = lambda work, model: lines[work, model]["gb_per_second"] / lines[work, model]["tokens_per_second"]
    fewer = {work: read(work, "dense") / read(work, "routed every-second:0.25") for work in ("generate 16, depth 8", "generate 16, batch 3, depth 8")}
    assert 1 < fewer["generate 16, batch 3, depth 8"] < fewer["generate 16, depth 8"]
    for work, by_bytes in fewer.items():
        line = lines[work, "routed every-second:0.25"]
        assert min(by_bytes, 1 / (1 - line["flops_saved"])) <= line["allowed_speedup"] * 1.0001 and line["allowed_speedup"] <= 1.0001 * max(by_bytes, 1 / (1 - line["flops_saved"]))


def test_the_table_shows_what_the_json_holds():
    words = ["--shape", "256,4,4,2,256,512", "--routed", "every-second:0.25", "--batch", "1,8", *SHORT[:-1]]
    table = fathom(*words).stdout
    assert max(map(len, table.splitlines())) <= 175, table
    head, *rows = table.split("\n", 3)[3].splitlines()
    assert head.split() == ["tokens/s", "range", "GB/s", "Gop/s", "attention", "KV", "cache", "skipped", "expected", "FLOPs", "saved", "time", "saved", "speed-up", "allowed"]
    assert [row for row in rows if row and not row.startswith(" ")] == ["prompt 48", "generate 16, depth 8", "generate 16, batch 8, depth 8"]
    routed = [row for row in rows if row.startswith("  routed every-second:0.25 ")]
    assert len(routed) == 3 and all(" 75.0 % " in row for row in routed), table
    # Of reading and of arithmetic, and of reading keys and values where it decodes.
    assert [row.count(" %)") for row in routed] == [2, 3, 3], table


def test_other_paths_of_a_shape():
    form = "all-but-ends:0.25:granularity=attention+mlp:paths=skip,light,full:light_rank=32:light_capacity=0.25:kv=keep"
    result = fathom("--shape", "128,4,4,2,256,512", "--routed", form, "--type", "q8_0", *SHORT)
    assert result.returncode == 0, result.stderr
    [run] = json.loads(result.stdout)["runs"]
    line = [line for line in run["lines"] if line["model"] == "routed " + form][0]
    assert 0 < line["run_share"] < 0.6 and line["allowed_speedup"] > 1


@pytest.mark.parametrize("threads", ["", "1", "1,2"])
def test_a_model_of_a_folder(folder, threads):
    """As many runs as numbers of threads, of the model as it is loaded; without --threads 1, 2, 4, … up to all cores."""
    words = ["--threads", threads] if threads else []
    result = fathom(folder / "mod", "--prompt", "8", "--generate", "4", "--depth", "4", "--rounds", "1", *words, "--quiet", "--json")
    assert result.returncode == 0, result.stderr
    runs = json.loads(result.stdout)["runs"]
    measured = [run["threads"] for run in runs]
    assert measured == [int(n) for n in threads.split(",")] if threads else measured[0] == 1 and measured == sorted(set(measured))
    assert all(line["tokens_per_second"] > 0 for run in runs for line in run["lines"])


def test_the_machine():
    result = fathom("machine", "--threads", "1", "--json")
    assert result.returncode == 0, result.stderr
    [machine] = json.loads(result.stdout)["machine"]
    assert machine["threads"] == 1 and machine["memory_gb_per_second"] > 0
    assert machine["second_level_gb_per_second"] > machine["memory_gb_per_second"]


@pytest.mark.parametrize("words,code,message", [
    ([], 2, "neither it nor a MODEL"),
    (["--shape", "64,2,2"], 2, 'found "64,2,2", expected C,L,H,G,F,V with C a multiple of H'),
    (["--shape", "65,2,2,2,128,100"], 2, "C a multiple of H"),
    (["--shape", "64,2,2,2,128,100", "--routed", "every-second"], 2, "every-second:CAPACITY"),
    (["--shape", "64,2,2,2,128,100", "--routed", "every-second:1.5"], 2, "at most 1"),
    (["--shape", "64,2,2,2,128,100", "--routed", "every-second:0.5:paths=skip,light,full"], 2, "whose light_rank is no such key, expected a whole number from 1"),
    (["--shape", "64,2,2,2,128,100", "--routed", "every-second:0.5:speed=9"], 2, "whose speed is an unknown key"),
    (["--shape", "64,2,2,2,128,100", "--type", "q9"], 2, 'found "q9", expected one of F32'),
    (["--shape", "48,2,2,2,128,100", "--type", "q8_0"], 1, "Q8_0 for rows of 48, expected rows that are whole blocks of 32"),
    (["--shape", "64,2,2,2,128,100", "--batch", "0"], 2, "--batch"),
    (["--shape", "64,2,2,2,128,100", "--against", "peer"], 2, "no GGUF file as MODEL"),
    (["--shape", "64,2,2,2,128,100", "--prompt", "0", "--generate", "0"], 2, "--generate: found 0 with --prompt 0, expected some work"),
    (["no-such-folder"], 1, "no-such-folder"),
])
def test_what_cannot_be_measured_is_refused(words, code, message):
    result = fathom(*words, "--rounds", "1", "--threads", "1")
    assert result.returncode == code and message in result.stderr, result.stderr


@pytest.mark.skipif(not MODEL.exists(), reason="scripts/get-smollm2 did not run")
def test_a_peer_has_its_turns(tmp_path):
    """A program that answers as llama-bench does, and notes how it was called."""
    peer = tmp_path / "peer"
    peer.write_text(f"""#!/bin/sh
echo "$@" >> {tmp_path}/calls
echo '[{{"n_prompt": 8, "avg_ts": 12.5}}]'
""")
    peer.chmod(peer.stat().st_mode | stat.S_IXUSR)
    words = [MODEL, "--prompt", "8", "--generate", "2", "--depth", "4", "--rounds", "2", "--threads", "1", "--quiet", "--against"]
    result = fathom(*words, peer, "--json")
    assert result.returncode == 0, result.stderr
    [run] = json.loads(result.stdout)["runs"]
    assert [(p["work"], p["tokens_per_second"], len(p["samples"])) for p in run["peer"]] == [("prompt 8", 12.5, 2), ("generate 2, depth 4", 12.5, 2)]
    calls = (tmp_path / "calls").read_text().splitlines()
    assert len(calls) == 6  # a round that warms up and two that count, a prompt and a text each
    assert all(f"-m {MODEL} -t 1 -r 1 -o json" in call for call in calls)
    assert sum("-p 8 -n 0" in call for call in calls) == 3 and sum("-p 0 -n 2 -d 4" in call for call in calls) == 3

    (tmp_path / "llama-batched-bench").write_text(f"""#!/bin/sh
echo "$@" >> {tmp_path}/batched-calls
echo "a line of the log"
echo '{{"pp": 4, "tg": 2, "pl": 2, "speed_tg": 20.5}}'
echo '{{"pp": 4, "tg": 2, "pl": 4, "speed_tg": 30.5}}'
""")
    (tmp_path / "llama-batched-bench").chmod(0o755)
    result = fathom(*words, peer, "--batch", "1,2,4", "--json")
    assert result.returncode == 0, result.stderr
    [run] = json.loads(result.stdout)["runs"]
    assert [(p["work"], p["tokens_per_second"]) for p in run["peer"]] == [("prompt 8", 12.5), ("generate 2, depth 4", 12.5), ("generate 2, batch 2, depth 4", 20.5),
                                                                          ("generate 2, batch 4, depth 4", 30.5)]
    calls = (tmp_path / "batched-calls").read_text().splitlines()
    assert calls == [f"-m {MODEL} -t 1 -tb 1 -c 24 -npp 4 -ntg 2 -npl 2,4 --output-format jsonl"] * 3
    table = fathom(*words, peer, "--batch", "1,2,4").stdout
    for name in ("prompt 8", "generate 2, depth 4", "generate 2, batch 2, depth 4", "generate 2, batch 4, depth 4"):
        assert f"  {name} " in table.split("ours tokens/s")[1], table

    peer.write_text("#!/bin/sh\necho loading >&2\necho out of paper >&2\necho >&2\nexit 3\n")
    failed = fathom(*words, peer)
    assert failed.returncode == 1 and "exit code 3, expected 0; it said: out of paper" in failed.stderr, failed.stderr
    too_deep = fathom(MODEL, "--prompt", "8", "--generate", "8", "--depth", "8190", "--threads", "1")
    assert too_deep.returncode == 2 and "--depth: found 8198 positions with those of --generate, expected at most the model's 8192" in too_deep.stderr, too_deep.stderr
    peer.write_text("#!/bin/sh\necho hello\n")
    assert fathom(*words, peer).returncode == 1
    missing = fathom(*words, tmp_path / "nothing")
    assert missing.returncode == 1 and "No such file" in missing.stderr, missing.stderr
