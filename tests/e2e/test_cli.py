"""The program as a user meets it: every command's way through, JSON, exit codes, pipes, Ctrl-C, help and completion."""
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import time

import pytest

COMMANDS = ["tokenizer train", "tokenizer encode", "tokenizer decode", "data prepare", "data verify", "train", "eval", "generate", "depthmap", "info", "report"]


# Help, version, completion


def test_help_names_every_command(fathom):
    text = fathom("--help").out
    for command in COMMANDS:
        assert command in text
    assert "0 done, 1 failure, 2 wrong command line, 130 interrupted" in text


def test_help_starts_with_little(fathom):
    """What makes a start slow, counted and not timed: libraries that are opened, and pages of memory that are touched."""
    loaded = fathom("--help", env={"LD_DEBUG": "libs"}).err
    libraries = {os.path.basename(path).split(".so")[0] for path in re.findall(r"calling init: (\S+)", loaded)}
    sanitizers = {"libasan", "libubsan"}
    assert libraries <= {"ld-linux-x86-64", "libc", "libm", "libgcc_s", "libstdc++", "libpcre2-8", "libutf8proc", "libzstd", "libbz2"} | sanitizers, libraries
    assert "libstdc++" in libraries
    if libraries & sanitizers:
        return  # their shadow memory is no page of ours
    child = os.posix_spawn(fathom.path, [fathom.path, "--help"], os.environ, file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)])
    _, status, used = os.wait4(child, 0)
    assert status == 0
    assert used.ru_minflt < 1000, "pages of 4 KiB; a table that is filled at start shows here"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(fathom, command):
    text = fathom(*command.split(), "--help").out
    assert text.startswith(f"Usage: fathom {command}")
    assert "Exit codes" in text
    assert fathom("help", *command.split()).out == text


def test_help_of_a_family(fathom):
    text = fathom("tokenizer", "--help").out
    assert "tokenizer train" in text and "tokenizer decode" in text and "generate" not in text
    assert fathom("help", "tokenizer").out == text


def test_no_words_at_all(fathom):
    done = fathom(code=2)
    assert done.out == "" and "Usage: fathom COMMAND" in done.err


def test_version(fathom):
    assert re.fullmatch(r"fathom \d+\.\d+\.\d+\n", fathom("version").out)
    assert fathom("--version").out == fathom("version").out
    assert json.loads(fathom("version", "--json").out)["program"] == "fathom"


def test_the_engine_links_no_libtorch(build):
    listed = subprocess.run(["ldd", build / "fathom"], capture_output=True, text=True, check=True).stdout
    names = [line.split()[0] for line in listed.splitlines()]  # not the addresses: "c10" is one in hexadecimal
    assert not [n for n in names if "torch" in n or "c10" in n or "python" in n]
    assert any("libstdc++" in n for n in names)


def test_the_documented_flags_are_those_of_the_program(fathom):
    docs = os.path.join(os.path.dirname(__file__), "../../docs/cli.md")
    with open(docs, encoding="utf-8") as f:
        assert f.read() == fathom("help", "--markdown").out, "docs/cli.md is old: build/release/fathom help --markdown > docs/cli.md"


def complete(fathom, *words):
    """What bash would offer for the last of `words`."""
    script = fathom("completion", "bash").out
    line = " ".join(f"'{w}'" for w in ("fathom", *words))
    run = f"{script}\nCOMP_WORDS=({line}); COMP_CWORD={len(words)}; _fathom; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    return subprocess.run(["bash", "-c", run], capture_output=True, text=True, check=True).stdout.split()


def test_bash_completion_completes(fathom):
    assert set(complete(fathom, "")) >= {"generate", "eval", "tokenizer", "data", "completion"}
    assert complete(fathom, "gen") == ["generate"]
    assert set(complete(fathom, "tokenizer", "")) == {"train", "encode", "decode"}
    assert "--temperature" in complete(fathom, "generate", "model", "--te")
    assert set(complete(fathom, "eval", "model", "--rule", "")) == {"causal", "topk", "random"}
    assert "--pattern" in complete(fathom, "tokenizer", "train", "--pat")
    assert "--resume" in complete(fathom, "train", "--re")
    assert complete(fathom, "completion", "") == ["bash", "zsh"]
    # A command beside one of two words that begins with it.
    assert complete(fathom, "bench", "mac") == ["machine"] and complete(fathom, "bench", "--sh") == ["--shape"]
    assert "--routed" in complete(fathom, "bench", "--shape", "llama-110m", "--rou")
    assert "--shape" not in complete(fathom, "bench", "machine", "--")


def test_bash_completes_paths_with_spaces(fathom, folder):
    """In a bash at a terminal: how a name is quoted is readline's business, which no list of COMPREPLY shows."""
    (folder / "my models/a b").mkdir(parents=True)
    (folder / "my models/a b/x").write_text("")
    script = fathom("completion", "bash").out
    (folder / "completion.bash").write_text(script)
    master, slave = pty.openpty()
    shell = subprocess.Popen(["bash", "--norc", "--noprofile", "-i"], stdin=slave, stdout=slave, stderr=slave, cwd=folder, start_new_session=True,
                             env=dict(os.environ, TERM="dumb", PS1="$ ", INPUTRC=os.devnull))
    os.close(slave)
    try:
        # Enter runs what Tab made of the line: the words that the program would have got.
        os.write(master, b"source completion.bash; fathom() { printf '<%s>' got \"$@\"; printf '\\n'; }; printf '<%s>\\n' ready\n")
        seen = read_until(master, "<ready>\r\n")
        for typed, words in (("fathom info my", "<got><info><my models/a b/x>"), ("fathom generate my\\ mo", "<got><generate><my models/a b/x>"),
                             ("fathom eval 'my mo", "<got><eval><my models/a b/x>")):
            os.write(master, typed.encode() + b"\ta\tx\n")
            seen = read_until(master, ">\r\n")
            assert words in seen, seen
    finally:
        shell.kill()
        shell.wait()
        os.close(master)


def read_until(terminal, end, seconds=20):
    seen, stop = "", time.monotonic() + seconds
    while end not in seen and time.monotonic() < stop:
        if select.select([terminal], [], [], 0.2)[0]:
            seen += os.read(terminal, 65536).decode(errors="replace")
    return seen


def test_zsh_completion(fathom):
    script = fathom("completion", "zsh").out
    assert script.startswith("#compdef fathom")
    assert "'--rule[" in script and "(causal topk random)" in script
    if shutil.which("zsh"):
        subprocess.run(["zsh", "-n"], input=script, text=True, check=True)


# Tokenizer and data


def test_tokenizer_round_trip(fathom, folder):
    text = "The sea — été, 1867!\n  ok 日本 😀"
    ids = fathom("tokenizer", "encode", "tok.json", text).out
    assert fathom("tokenizer", "decode", "tok.json", *ids.split(), "--no-newline").out == text
    assert fathom("tokenizer", "decode", "tok.json", "-", "--no-newline", stdin=ids).out == text
    assert fathom("tokenizer", "encode", "mod", "--file", "-", stdin=text).out == ids
    found = json.loads(fathom("tokenizer", "encode", "tok.json", text, "--json").out)
    assert found["ids"] == [int(i) for i in ids.split()] and found["count"] == len(found["tokens"])
    assert fathom("tokenizer", "encode", "tok.json", text, "--count").out == f"{found['count']}\n"
    assert len(fathom("tokenizer", "encode", "tok.json", text, "--pieces").out.splitlines()) == found["count"]
    plain = fathom("tokenizer", "encode", "tok.json", "<|endoftext|>", "--count").out
    assert int(plain) > 1
    special = fathom("tokenizer", "encode", "tok.json", "<|endoftext|>", "--parse-special").out
    assert len(special.split()) == 1
    assert fathom("tokenizer", "decode", "tok.json", special.strip()).out == "\n"
    assert fathom("tokenizer", "decode", "tok.json", special.strip(), "--keep-special").out == "<|endoftext|>\n"


def test_an_empty_text_is_a_text(fathom):
    """As "$line" gives it to the program in a loop: standard input, which may be the loop's own, is left alone."""
    for words, says in (([], "\n"), (["--count"], "0\n")):
        assert fathom("tokenizer", "encode", "tok.json", "", *words, stdin="the sea").out == says
    assert json.loads(fathom("tokenizer", "encode", "tok.json", "", "--json", stdin="the sea").out) == {"ids": [], "tokens": [], "count": 0, "bytes": 0}
    assert fathom("tokenizer", "encode", "tok.json", "--count", stdin="the sea").out != "0\n"
    assert "found a TEXT as well" in fathom("tokenizer", "encode", "tok.json", "", "--file", "corpus.txt", code=2).err


def test_tokenizer_train_is_deterministic(fathom, folder):
    first = json.loads(fathom("tokenizer", "train", "corpus.txt", "--vocab-size", "300", "--out", "a.json", "--threads", "1", "--json", "--quiet").out)
    second = json.loads(fathom("tokenizer", "train", "corpus.txt", "--vocab-size", "300", "--out", "b.json", "--threads", "2", "--json", "--quiet").out)
    assert first["vocab_size"] == 300 and first["identity"] == second["identity"] and first["documents"] == 60
    assert (folder / "a.json").read_bytes() == (folder / "b.json").read_bytes()


def test_data_prepare(fathom, folder):
    made = json.loads(fathom("data", "prepare", "corpus.txt", "--tokenizer", "tok.json", "--out", "data-json", "--split", "hash", "--json", "--quiet").out)
    assert made["train"]["documents"] + made["validation"]["documents"] == 60
    assert made["train"]["tokens"] > 1000 and made["resumed"] is False
    assert (folder / "data-json/manifest.json").exists()
    done = fathom("data", "prepare", "corpus.txt", "--tokenizer", "tok.json", "--out", "data-text", "--quiet", "--split", "none")
    assert "60" in done.out and "bytes per token" in done.out


def test_no_share_for_validation_is_no_split(fathom, folder):
    words = ["data", "prepare", "corpus.txt", "--tokenizer", "tok.json", "--quiet"]
    fathom(*words, "--validation-share", "0", "--out", "data-whole")
    fathom(*words, "--split", "none", "--out", "data-none")
    assert (folder / "data-whole/manifest.json").read_bytes() == (folder / "data-none/manifest.json").read_bytes()
    for split in ("hash", "tail"):
        done = fathom(*words, "--validation-share", "0", "--split", split, "--out", "data-nothing", code=2)
        assert done.err == f"fathom data prepare: --validation-share: found 0 with --split {split}, expected a number above 0; --split none takes all for training\n"


def test_data_verify(fathom, folder):
    fathom("data", "prepare", "corpus.txt", "--tokenizer", "tok.json", "--out", "data-checked", "--split", "tail", "--quiet")
    assert "2 shards" in fathom("data", "verify", "data-checked").out
    assert json.loads(fathom("data", "verify", "data-checked", "--json").out)["shards"] == 2
    shard = folder / "data-checked/validation-00000.tokens"
    whole = bytearray(shard.read_bytes())
    whole[200] ^= 1  # the lower half of a token, which stays one of the vocabulary
    shard.write_bytes(whole)
    damaged = fathom("data", "verify", "data-checked", code=1)
    assert "validation-00000.tokens: hash: found" in damaged.err and "prepare the data again" in damaged.err


# Info and eval


def test_info(fathom):
    text = fathom("info", "mod").out
    assert "blocks 1 at 25.0 %, 3 at 50.0 %" in text and "KV cache" in text and "0.700 *" in text
    found = json.loads(fathom("info", "mod", "--json").out)
    assert found["parameters"]["total"] == sum(v for k, v in found["parameters"].items() if k != "total")
    flops = found["flops_per_token"]
    assert flops["expected"] < flops["dense"] < flops["worst"]
    assert found["kv_bytes_per_token_and_block"] == 2 * 2 * 12 * 4
    assert found["kv_bytes_per_token"]["expected"] == pytest.approx(192 * (2 + 0.25 + 0.5))
    assert [d["dial"] for d in found["dials"]] == [0.6, 0.7, 1.0]
    dense = json.loads(fathom("info", "dense", "--json").out)
    assert dense["flops_per_token"]["expected"] == dense["flops_per_token"]["dense"] == dense["flops_per_token"]["worst"]
    assert json.loads(fathom("info", "mod", "--json").out)["decode_bytes_per_token"]["dense"] == dense["decode_bytes_per_token"]["dense"]
    below = fathom("info", "mod", "--dial", "0.01", "--json")
    assert "running at 0.6" in below.err and json.loads(below.out)["dial"] == 0.6
    refused = fathom("info", "dense", "--dial", "0.5", code=1).err
    assert "dense: dial: found 0.5, expected 1; this model has no routed block; fathom convert makes one of it that has" in refused
    assert "block by block" not in text
    table = fathom("info", "mod", "--blocks").out.split("block by block")[1].splitlines()
    cells = [line.split() for line in table[2:7]]
    assert [c[0] for c in cells] == ["0", "1", "2", "3", "head"] and [c[1] for c in cells[:4]] == ["100.0", "25.0", "100.0", "50.0"]
    blocks = found["blocks"]
    assert [b["share"] for b in blocks] == [1, 0.25, 1, 0.5]
    assert [b["flops_per_token"]["router"] > 0 for b in blocks] == [False, True, False, True]
    assert all(b["flops_per_token"]["predictor"] == b["decode_bytes_per_token"]["predictor"] == 0 for b in blocks)
    in_blocks = sum(sum(b["flops_per_token"].values()) for b in blocks)
    assert flops["expected"] - 2 * found["config"]["vocab_size"] * found["config"]["hidden_size"] == pytest.approx(in_blocks)
    moved = found["decode_bytes_per_token"]
    for part in ("kv_read", "kv_write"):
        assert moved[part] == pytest.approx(sum(b["decode_bytes_per_token"][part] for b in blocks))
    assert blocks[1]["decode_bytes_per_token"]["kv_read"] < blocks[3]["decode_bytes_per_token"]["kv_read"] < blocks[2]["decode_bytes_per_token"]["kv_read"]
    lower = json.loads(fathom("info", "mod", "--dial", "0.6", "--json").out)
    assert lower["flops_per_token"]["expected"] < flops["expected"]


def test_a_model_of_parts_light_paths_and_exits(fathom, folder):
    text = fathom("info", "paths", "--blocks").out
    assert "blocks 1 attention at 25.0 % (skip,light,full, rank 3), 1 MLP at 50.0 %, 2 MLP (static: light, rank 4), 3 at 50.0 % (exit,full)" in text
    table = [line.split("  ") for line in text.split("block by block")[1].splitlines()[2:6]]
    cells = [[c.strip() for c in row if c.strip()] for row in table]
    assert [c[1:3] for c in cells] == [["100.0 %", "0.0 %"], ["25.0 % / 50.0 %", "50.0 % / 0.0 %"], ["100.0 % / 0.0 %", "0.0 % / 100.0 %"], ["50.0 %", "0.0 %"]]
    found = json.loads(fathom("info", "paths", "--json").out)
    assert found["parameters"]["total"] == sum(v for k, v in found["parameters"].items() if k != "total")
    assert found["parameters"]["light"] == 2 * 48 * (3 + 4)
    assert found["kv_bytes_per_token"]["expected"] == pytest.approx(192 * (1 + 0.25 + 1 + 0.5))
    in_blocks = sum(sum(b["flops_per_token"].values()) for b in found["blocks"])
    assert found["flops_per_token"]["expected"] - 2 * found["config"]["vocab_size"] * 48 == pytest.approx(in_blocks)
    # A text says what each token did, and eval, depthmap and quantize read the same.
    one = json.loads(fathom("generate", "paths", "--prompt", "the sea is", "--max-tokens", "40", "--seed", "3", "--json").out)
    assert one["depth"]["least"] == 1 and one["depth"]["most"] == 3
    for token in one["tokens"]:
        attention, mlp, static, last = token["run"]
        assert attention in (0, 1, 2) and mlp in (0, 1) and static == 2 and last in (0, 1)
        assert token["depth"] == 1 + (attention == mlp == 1) + (last == 1)
    assert {token["run"][0] for token in one["tokens"]} == {0, 1, 2}
    evaluated = fathom("eval", "paths", "--data", "data", "--quiet").out
    rows = [line.split() for line in evaluated.split("routed block")[1].splitlines()]
    assert [row[:2] for row in rows[1:5]] == [["1", "attention"], ["1", "MLP"], ["2", "MLP"], ["3", "50.0"]]
    page = (fathom("depthmap", "paths", "--data", "data", "--out", "paths.html", "--quiet"), (folder / "paths.html").read_text())[1]
    assert "took its light path" in page and "attention of block 1" in page
    fathom("quantize", "paths", "paths-q8", "--type", "q8_0", "--data", "data", "--quiet")
    fathom("quantize", "paths-q8", "paths-f16", "--type", "f16", "--data", "data", "--quiet")
    small = json.loads(fathom("info", "paths-q8", "--json").out)
    assert small["config"]["fathom"] == found["config"]["fathom"]
    assert [len(d["capacity"]) for d in small["dials"]] == [4, 4, 4]
    assert small["dials"][-1]["capacity"] == [1, 1, 1, 1]
    bad = json.loads((folder / "paths/config.json").read_text())
    bad["fathom"]["units"][0]["light_rank"] = 100
    shutil.copytree(folder / "paths", folder / "dear", dirs_exist_ok=True)
    (folder / "dear/config.json").write_text(json.dumps(bad))
    assert "fathom.units[0].light_rank: found 100, expected below 72" in fathom("info", "dear", code=1).err


def test_info_prints_no_terminal_escapes_of_a_model(fathom, folder):
    shutil.copytree(folder / "mod", folder / "hostile", dirs_exist_ok=True)
    path = folder / "hostile/fathom_dial.json"
    dial = json.loads(path.read_text())
    path.write_text(json.dumps(dial | {"text": "\x1b]0;owned\x07\u009b2J" + "x" * 1000}))
    out = fathom("info", "hostile").out
    assert "Dial (calibrated on \\x1b]0;owned\\x07\\xc2\\x9b2Jxx" in out
    assert not set(out) & {"\x1b", "\x07", "\u009b"}
    assert "x" * 100 not in out


def test_eval(fathom):
    done = fathom("eval", "mod", "--data", "data", "--twin", "dense", "--twin", "thin", "--quiet")
    for word in ("loss, nats per token", "bits per byte", "Teacher's view", "agreement", "mod − dense", "mod − thin", "block fraction"):
        assert word in done.out
    assert done.err == ""
    found = json.loads(fathom("eval", "mod", "--data", "data", "--twin", "dense", "--json").out)
    model = found["model"]
    assert model["rule"] == "causal" and model["dial"] == 0.7
    assert model["loss"] == pytest.approx(model["nll"] / model["tokens"])
    assert model["perplexity"] == pytest.approx(2.718281828459045 ** model["loss"])
    assert model["bits_per_byte"] == pytest.approx(model["nll"] / 0.6931471805599453 / model["bytes"])
    assert 0 < model["block_fraction"] < model["total_fraction"] < 1
    assert [b["block"] for b in model["blocks"]] == [1, 3]
    for block in model["blocks"]:
        assert 0 <= block["precision"] <= 1 and 0 <= block["recall"] <= 1 and 0 < block["agreement"] <= 1
    assert "future" in found["teacher"]["note"] and found["teacher"]["rule"] == "topk"
    twin = found["twins"][0]
    assert twin["block_fraction"] == 1 and twin["blocks"] == []
    assert twin["model_minus_twin"]["loss"]["value"] == pytest.approx(model["loss"] - twin["loss"])


def test_eval_rules(fathom):
    topk = fathom("eval", "mod", "--data", "corpus.txt", "--rule", "topk", "--limit", "2k", "--quiet").out
    assert "teacher's view (top-k, looks into the future)" in topk
    assert "random control" in fathom("eval", "mod", "--data", "corpus.txt", "--rule", "random", "--limit", "2k", "--quiet").out
    full = json.loads(fathom("eval", "mod", "--data", "corpus.txt", "--dial", "1", "--no-teacher", "--limit", "2k", "--json").out)
    assert full["model"]["blocks"][0]["realised"] == 1 and full["model"]["block_fraction"] >= 1 and full["teacher"] is None
    limited = json.loads(fathom("eval", "dense", "--data", "corpus.txt", "--limit", "1k", "--json", "--quiet").out)
    assert 500 < limited["model"]["tokens"] <= 1000 and limited["text"]["windows"] < limited["text"]["all_windows"]


def test_eval_does_not_depend_on_threads_or_batches(fathom):
    def nll(*words):
        return json.loads(fathom("eval", "mod", "--data", "corpus.txt", "--limit", "3k", "--json", "--no-teacher", *words).out)["model"]["nll"]
    assert nll("--threads", "1") == nll("--threads", "3")


# Ctrl-C, pipes, failures of output


def interrupt_when(fathom, words, ready):
    """Starts the program, sends SIGINT once `ready(process)` returned, returns (code, out, err)."""
    process = subprocess.Popen([fathom.path, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=fathom.folder)
    try:
        ready(process)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    return process.returncode, out.decode(errors="replace"), err.decode(errors="replace")


def test_ctrl_c_ends_generate_cleanly(fathom):
    code, out, err = interrupt_when(fathom, ["generate", "long", "--prompt", "The sea", "--max-tokens", "1M", "--no-eos"], lambda p: p.stdout.read(64))
    assert code == 130
    assert out.endswith("\n") and re.search(r"interrupted after \d+ tokens", err)


def test_ctrl_c_keeps_the_json_whole(fathom):
    code, out, err = interrupt_when(fathom, ["generate", "long", "--prompt", "The sea", "--max-tokens", "1M", "--no-eos", "--json"], lambda p: time.sleep(0.7))
    assert code == 130
    found = json.loads(out)
    assert found["finish"] == "cancelled" and found["new_tokens"] > 0


@pytest.mark.parametrize("words", [["generate", "long", "--prompt-file"], ["eval", "mod", "--data"]], ids=["prompt", "data"])
def test_ctrl_c_ends_waiting_for_a_pipe(fathom, folder, words):
    if not (folder / "silent").exists():
        os.mkfifo(folder / "silent")
    for writer in (False, True):  # waiting in open, waiting in read
        process = subprocess.Popen([fathom.path, *words, "silent"], stderr=subprocess.PIPE, cwd=folder)
        held = os.open(folder / "silent", os.O_WRONLY) if writer else None
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        try:
            _, err = process.communicate(timeout=10)
        finally:
            process.kill()
            if held is not None:
                os.close(held)
        assert process.returncode == 130 and b"interrupted" in err


def test_ctrl_c_ends_eval(fathom, folder):
    # A text that takes far longer than the test waits.
    (folder / "big.txt").write_text((folder / "corpus.txt").read_text() * 200)
    code, out, err = interrupt_when(fathom, ["eval", "mod", "--data", "big.txt", "--threads", "1"], lambda p: p.stderr.read(20))
    assert code == 130 and out == "" and "interrupted" in err


@pytest.mark.parametrize("label,words", [("measuring decoding", ["long"] * 40), ("sampling", ["long", "--sample-tokens", "100000"])], ids=["rounds", "samples"])
def test_ctrl_c_ends_report(fathom, folder, label, words):
    words = ["report", *words, "--data", "corpus.txt", "--limit", "200", "--context", "160", "--threads", "1", "--out", f"{label.split()[0]}.html"]
    code, out, err = interrupt_when(fathom, words, lambda p: next((line for line in p.stderr if line.startswith(label.encode())), None))
    assert code == 130 and out == "" and "interrupted" in err
    assert not (folder / words[-1]).exists()


def test_ctrl_c_ends_reading_a_prompt(fathom, folder):
    (folder / "long-prompt.txt").write_text((folder / "corpus.txt").read_text() * 20)
    words = ["generate", "long", "--prompt-file", "long-prompt.txt", "--threads", "1"]
    code, out, err = interrupt_when(fathom, words, lambda p: time.sleep(1))
    assert code == 130 and out == "\n" and "interrupted after 0 tokens" in err
    code, out, err = interrupt_when(fathom, [*words, "--json"], lambda p: time.sleep(1))
    found = json.loads(out)
    assert code == 130 and found["finish"] == "cancelled" and found["text"] == "" and found["ids"] == found["tokens"] == []


def test_a_reader_that_has_enough(fathom):
    for line in ("help --markdown | head -n 1", "generate long --prompt The --max-tokens 1M --no-eos | head -c 40"):
        done = subprocess.run(["bash", "-c", f"{fathom.path} {line}; echo ${{PIPESTATUS[0]}} >&2"], capture_output=True, text=True, cwd=fathom.folder,
                              timeout=60, errors="replace")
        assert done.stderr.strip() == "0", done.stderr
        assert done.stdout


def test_closed_and_full_outputs(fathom):
    closed = subprocess.run(["bash", "-c", f"{fathom.path} --help >&-"], capture_output=True, text=True, cwd=fathom.folder)
    assert closed.returncode == 0
    full = subprocess.run(["bash", "-c", f"{fathom.path} --help >/dev/full"], capture_output=True, text=True, cwd=fathom.folder)
    assert full.returncode == 1 and "standard output: found No space left on device" in full.stderr


# The training program beside it


def test_train_runs_the_program_beside_it(fathom, tmp_path):
    alone = tmp_path / "fathom"
    shutil.copy(fathom.path, alone)
    done = subprocess.run([alone, "train", "config.json"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "found no fathom-train beside" in done.stderr and "-DFATHOM_TRAIN=ON" in done.stderr
    assert subprocess.run([alone, "train", "--help"], capture_output=True, text=True).returncode == 0
    beside = tmp_path / "fathom-train"
    beside.write_text("#!/bin/sh\nprintf '%s|' \"$@\"\nexit 42\n")
    beside.chmod(0o755)
    done = subprocess.run([alone, "train", "config.json", "--optimizer.lr", "1e-3", "--no-such", "--", "-x y"], capture_output=True, text=True)
    assert done.returncode == 42
    assert done.stdout == "train|config.json|--optimizer.lr|1e-3|--no-such|--|-x y|"
