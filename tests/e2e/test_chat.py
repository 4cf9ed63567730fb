"""`fathom chat`, as somebody talks with it: through a pipe, and on a terminal."""
import json
import os
import pathlib
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time

import pytest

SMOLLM2 = pathlib.Path(__file__).resolve().parents[2] / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"
SHORT = ("--temperature", "0", "--max-tokens", "40")
GREEDY = ("--temperature", "0", "--max-tokens", "12")


@pytest.fixture(scope="module")
def talker(folder):
    if not (folder / "talker").exists():
        shutil.copytree(folder / "mod", folder / "talker")
        (folder / "talker" / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    return "talker"


def test_an_answer_goes_on_from_the_rendered_conversation(fathom, talker):
    expected = fathom("generate", talker, "--prompt", "[system] Be brief.\n[user] The sea?\n[assistant] ", "--no-bos", *GREEDY).out
    assert fathom("chat", talker, "--system", "Be brief.", *GREEDY, stdin="The sea?\n").out == expected
    assert fathom("chat", talker, "--system", "Be brief.", *GREEDY, stdin="The sea?").out == expected, "the last line needs no end"
    broken = fathom("generate", talker, "--prompt", "[user] The\nsea?\n[assistant] ", "--no-bos", *GREEDY).out
    assert fathom("chat", talker, *GREEDY, stdin="The\\\nsea?\n").out == broken


def test_a_conversation_has_a_past(fathom, talker):
    alone = fathom("chat", talker, *GREEDY, stdin="The tide\n").out
    after = fathom("chat", talker, *GREEDY, stdin="The sea is calm tonight\nThe tide\n").out
    first = fathom("chat", talker, *GREEDY, stdin="The sea is calm tonight\n").out
    assert after.startswith(first) and after != first + alone
    assert fathom("chat", talker, *GREEDY, stdin="The sea is calm tonight\n/clear\nThe tide\n").out == first + "a new conversation\n" + alone
    assert fathom("chat", talker, *GREEDY, stdin="The sea is calm tonight\n/undo\nThe tide\n/undo\n/undo\n").out == first + "taken back\n" + alone + "taken back\nnothing to take back\n"
    assert fathom("chat", talker, *GREEDY, stdin="The sea is calm tonight\n/retry\n").out == first + first


def test_retry_draws_another_answer(fathom, talker):
    said = fathom("chat", talker, "--temperature", "1", "--max-tokens", "12", stdin="The sea\n/retry\n").out
    assert fathom("chat", talker, "--temperature", "1", "--max-tokens", "12", stdin="The sea\n/retry\n").out == said
    assert len(set(said.strip().split("\n"))) > 1


def test_the_dial_changes_what_follows(fathom, talker):
    full = fathom("chat", talker, *GREEDY, stdin="/dial 1\nThe sea is calm tonight, the tide is full\n").out
    prompt = "[user] The sea is calm tonight, the tide is full\n[assistant] "
    assert full == "dial 1.000\n" + fathom("generate", talker, "--prompt", prompt, "--no-bos", "--dial", "1", *GREEDY).out
    low = fathom("chat", talker, *GREEDY, "--dial", "1", stdin="/dial 0.8\nThe sea is calm tonight, the tide is full\n/dial\n").out
    assert low == "dial 0.800\n" + fathom("generate", talker, "--prompt", prompt, "--no-bos", "--dial", "0.8", *GREEDY).out + "dial 0.800\n"


def test_wrong_lines_are_named_and_the_conversation_goes_on(fathom, talker):
    done = fathom("chat", talker, *GREEDY, stdin="/dail 0.5\n/dial 2\n/dial x\n\nThe sea\n/quit\nnever read\n")
    assert done.err.count("\n") >= 3 and '"/dail"' in done.err and '"2"' in done.err and '"x"' in done.err, done.err
    assert done.out == fathom("chat", talker, *GREEDY, stdin="The sea\n").out


def test_an_answer_that_fails_is_no_part_of_the_conversation(fathom, folder, talker):
    """Weights whose products are no numbers: every question is refused for itself, and the program goes on."""
    shutil.copytree(folder / talker, folder / "damaged")
    path = folder / "damaged" / "model.safetensors"
    data = bytearray(path.read_bytes())
    size = int.from_bytes(data[:8], "little")
    [[begin, end]] = [t["data_offsets"] for name, t in json.loads(data[8:8 + size]).items() if name.endswith("layers.0.mlp.down_proj.weight")]
    data[8 + size + begin:8 + size + end] = bytes.fromhex("ffff7f7f") * ((end - begin) // 4)
    path.write_bytes(data)
    done = fathom("chat", "damaged", *GREEDY, stdin="one\ntwo\n/undo\n/clear\nthree\n")
    assert done.out == "nothing to take back\na new conversation\n"
    assert done.err.count("NaN") == 3 and "internal" not in done.err, done.err


def test_figures_say_what_was_cached(fathom, talker):
    long = "the sea is calm tonight the tide is full " * 5
    done = fathom("chat", talker, *GREEDY, "--stats", stdin=f"{long}\nThe coast\n")
    prompts, cached = zip(*((int(a), int(b)) for a, b in re.findall(r"prompt (\d+) tokens, (\d+) of them cached", done.err)))
    new = [int(n) for n in re.findall(r"; (\d+) new", done.err)]
    assert len(cached) == 2 and cached[0] == 0 and cached[1] == prompts[0] + new[0] > 64, done.err  # all that was said


@pytest.mark.parametrize("kv_type", ["f32", "f16", "bf16", "q8_0"])
def test_a_saved_conversation_goes_on_as_if_it_had_not_been(fathom, folder, talker, kv_type):
    """To the letter, at another dial too, drawn at random too, and nothing of it is read again."""
    words = ("chat", talker, "--temperature", "1.5", "--max-tokens", "12", "--kv-type", kv_type)
    said = "The sea is calm tonight\n/dial 1\nThe tide is full\n"
    whole = fathom(*words, "--system", "Be brief.", stdin=said + "/save talk.cache\nThe moon\n/retry\n/undo\n/undo\n/undo\n").out
    before, after = re.split(r"saved talk\.cache: (?:\d+) tokens, (?:\d+) of them read\n", whole)
    assert before and after.count("\n") >= 2
    rest = "The moon\n/retry\n/undo\n/undo\n/undo\n"
    loaded = re.compile(r"loaded talk\.cache: (\d+) tokens, (\d+) of them read\n")
    done = fathom(*words, "--load", "talk.cache", "--stats", stdin=rest)
    tokens, read = map(int, loaded.match(done.out).groups())
    assert tokens == read > 0 and done.out[loaded.match(done.out).end():] == after
    assert f", {read} of them cached" in done.err.splitlines()[0], done.err
    # In the middle of another conversation.
    done = fathom(*words, stdin="Something else\n/load talk.cache\n" + rest).out
    assert loaded.split(done)[-1] == after
    # Saved again it is the same file; a second save replaces the first.
    first = (folder / "talk.cache").read_bytes()
    fathom(*words, "--load", "talk.cache", stdin="/save talk.cache\n/save other.cache\n")
    assert (folder / "talk.cache").read_bytes() == first == (folder / "other.cache").read_bytes()


def test_what_cannot_be_loaded_is_named(fathom, folder, talker):
    fathom("chat", talker, *GREEDY, stdin="The sea\n/save good.cache\n")
    if not (folder / "talker2").exists():
        shutil.copytree(folder / talker, folder / "talker2")
        weights = bytearray((folder / "talker2/model.safetensors").read_bytes())
        weights[-3] ^= 64  # one bit of one weight
        (folder / "talker2/model.safetensors").write_bytes(weights)
    assert "another model or tokenizer" in fathom("chat", "talker2", *GREEDY, "--load", "good.cache", stdin="x\n", code=1).err
    assert "give --kv-type f32" in fathom("chat", talker, *GREEDY, "--kv-type", "bf16", "--load", "good.cache", stdin="x\n", code=1).err
    bytes_ = bytearray((folder / "good.cache").read_bytes())
    bytes_[-100] ^= 1
    (folder / "bad.cache").write_bytes(bytes_)
    (folder / "notes.txt").write_text("dear diary")
    plain = fathom("chat", talker, *GREEDY, stdin="The sea\nThe tide\n").out
    done = fathom("chat", talker, *GREEDY, stdin="The sea\n/load bad.cache\n/load none.cache\n/load\n/save notes.txt\n/save no/folder\n/save\nThe tide\n")
    assert done.out == plain, "the conversation goes on"
    errors = done.err.splitlines()
    for line, words in zip(errors, ("bad.cache: checksum: found another", "none.cache", "/load: found no name", "notes.txt: found a file that is no saved cache", "no folder no", "/save: found no name"), strict=True):
        assert words in line
    assert (folder / "notes.txt").read_text() == "dear diary"
    assert "--load as well" in fathom("chat", talker, "--load", "good.cache", "--system", "x", code=2).err
    assert "good.cache" in fathom("chat", talker, *GREEDY, "--load", "good.cache", stdin="The tide\n").out


def test_depth_colours_the_answer(fathom, talker):
    plain = fathom("chat", talker, *GREEDY, stdin="The sea\n").out
    coloured = fathom("chat", talker, *GREEDY, "--show-depth", "--color", "always", stdin="The sea\n").out
    assert "\x1b[48;5;" in coloured and re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain


def test_colours_and_figures_are_turned_on_and_off(fathom, talker):
    long = "the sea is calm tonight the tide is full " * 5
    done = fathom("chat", talker, "--temperature", "0", "--max-tokens", "38", "--dial", "1", "--draft-dial", "1", "--draft-always", "--color", "always", stdin=f"The sea\n/depth\nThe sea\n/depth\nThe sea\n/clear\n/stats\n{long}\n/stats\nThe sea\n")
    first, rest = done.out.split("depth colours on\n")
    second, third = rest.split("depth colours off\n")
    assert "\x1b[48;5;" in second and "\x1b[48;5;" not in first + third
    assert "figures on\n" in third and "figures off\n" in third
    lines = [line for line in done.err.splitlines() if " of them cached" in line]
    assert len(lines) == 2, done.err  # of the last answer when they were turned on, then of the next
    line = lines[1]
    # What guesses did in that answer.
    right, made = map(int, re.search(r"; (\d+) of (\d+) guesses right \(", line).groups())
    assert 0 < right == made and re.search(r"\), about [^;]+ (saved|lost) by them \(estimated from \d+ steps without\)", line), line


def test_a_full_context_is_said(fathom, talker):
    done = fathom("chat", talker, "--temperature", "0", stdin="x" * 40000 + "\nThe sea\n")
    assert "max_position_embeddings" in done.err and "/clear" in done.err, done.err
    assert len(done.out) > 1, "the next line is answered"


def test_a_model_without_a_template_takes_one(fathom, folder, talker):
    done = fathom("chat", "mod", *GREEDY, stdin="The sea?\n", code=1)
    assert "no chat template" in done.err and "--chat-template" in done.err and done.out == ""
    (folder / "own.jinja").write_text(TEMPLATE)
    assert fathom("chat", "mod", *GREEDY, "--chat-template", "own.jinja", stdin="The sea?\n").out == fathom("chat", talker, *GREEDY, stdin="The sea?\n").out
    (folder / "bad.jinja").write_text("{% for m in messages %}")
    assert "bad.jinja" in fathom("chat", "mod", "--chat-template", "bad.jinja", stdin="x\n", code=1).err


def read_until(fd, text, seconds=60):
    got, end = b"", time.time() + seconds
    while text not in got:
        ready, _, _ = select.select([fd], [], [], max(0, end - time.time()))
        assert ready, f"{text!r} did not come within {seconds} s: {got!r}"
        try:
            more = os.read(fd, 65536)
        except OSError:
            more = b""
        assert more, f"it ended before {text!r}: {got!r}"
        got += more
    return got


@pytest.fixture(scope="module")
def endless(folder):
    """A model with room for a million tokens, of which none ends a text."""
    shutil.copytree(folder / "long", folder / "endless")
    for name in ("config.json", "generation_config.json"):
        settings = json.loads((folder / "endless" / name).read_text())
        settings["eos_token_id"] = None
        (folder / "endless" / name).write_text(json.dumps(settings))
    (folder / "endless" / "chat_template.jinja").write_text(TEMPLATE)
    return "endless"


@pytest.fixture
def terminal(fathom, endless):
    """A chat that a person sees: the program, and the terminal's other end."""
    ours, slave = pty.openpty()
    program = subprocess.Popen([fathom.path, "chat", endless, "--color", "never", "--max-tokens", "1000000"], cwd=fathom.folder, stdin=slave, stdout=slave, stderr=slave,
                               start_new_session=True, close_fds=True)
    os.close(slave)
    try:
        read_until(ours, b"> ")
        yield program, ours
    finally:
        program.kill()
        program.wait()
        os.close(ours)


def begin_answer(terminal):
    os.write(terminal, b"The sea\n")
    read_until(terminal, b"\n")  # what was typed comes back
    ready, _, _ = select.select([terminal], [], [], 60)
    assert ready


def test_ctrl_c_stops_the_answer_and_not_the_program(terminal):
    program, screen = terminal
    for _ in range(2):
        begin_answer(screen)
        program.send_signal(signal.SIGINT)
        read_until(screen, b"stopped\r\n> ")
    program.send_signal(signal.SIGINT)  # nothing is being answered
    read_until(screen, b"(Ctrl-D or /quit ends)\r\n> ")
    os.write(screen, b"\x04")
    assert program.wait(timeout=60) == 0


@pytest.mark.parametrize("answering", [False, True])
def test_sigterm_ends_the_program(terminal, answering):
    program, screen = terminal
    if answering:
        begin_answer(screen)
    program.send_signal(signal.SIGTERM)
    try:  # so that what it still says finds room
        read_until(screen, b"never said", 60)
    except AssertionError:
        pass
    assert program.wait(timeout=60) == 130


def test_a_model_that_recommends_nothing_is_sampled_with_care(fathom, folder, talker):
    assert "temperature" not in json.loads((folder / talker / "generation_config.json").read_text())
    drawn = [fathom("chat", talker, "--max-tokens", "24", *words, stdin="The sea\nis\n").out for words in ((), ("--temperature", "0.7", "--top-p", "0.95"), ("--temperature", "1", "--top-p", "1"))]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.skipif(not SMOLLM2.exists(), reason="scripts/get-smollm2 did not run")
@pytest.mark.skipif("ASAN_OPTIONS" in os.environ, reason="135 million weights take too long under a sanitizer")
def test_smollm2_answers(fathom):
    done = fathom("chat", SMOLLM2, "--system", "You are a helpful assistant.", *SHORT, stdin="What is the capital of France?\nAnd of Italy?\n", timeout=300)
    assert done.out == "The capital of France is Paris.\nThe capital of Italy is Rome.\n"
    # The template's own system message, as it stands in the file.
    prompt = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    expected = fathom("generate", SMOLLM2, "--no-bos", "--parse-special", "--prompt", prompt, *SHORT, timeout=300).out
    assert fathom("chat", SMOLLM2, *SHORT, stdin="Hello\n", timeout=300).out == expected


def test_conversations_at_every_dial_are_counted(folder, build, talker, tmp_path):
    """bench/quality/chat.py: the model's own dial, then others; a model that says nothing counts as empty."""
    tool = pathlib.Path(__file__).resolve().parents[2] / "bench/quality/chat.py"
    (tmp_path / "prompts.jsonl").write_text('{"kind": "chat", "prompt": "The sea"}\n{"kind": "code", "prompt": "def"}\n{"kind": "chat", "prompt": "The tide\\nat night"}\n')

    def lines(model):
        done = subprocess.run([sys.executable, tool, folder / model, "--source", folder / talker, "--dials", "1,0.7", "--prompts", tmp_path / "prompts.jsonl", "--max-tokens", "8", "--context", "64", "--build", build, "--json"],
                              capture_output=True, text=True, check=True)
        return [json.loads(line) for line in done.stdout.splitlines()]

    said = lines(talker)
    assert [line["dial"] for line in said] == ["dense", "1", "0.7"] and all(line["answers"] == 2 and line["empty"] == 0 and line["words"] > 0 and line["dense_loss"] > 0 for line in said)
    silent = tmp_path / "silent"
    shutil.copytree(folder / talker, silent)
    config = json.loads((silent / "config.json").read_text())
    (silent / "config.json").write_text(json.dumps(config | {"eos_token_id": list(range(256))}))
    mute = lines(silent)
    assert mute[0] == said[0] and [line["empty"] for line in mute[1:]] == [2, 2] and [line["words"] for line in mute[1:]] == [0, 0]
