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


def test_figures_say_what_was_cached(fathom, talker):
    long = "the sea is calm tonight the tide is full " * 5
    done = fathom("chat", talker, *GREEDY, "--stats", stdin=f"{long}\nThe coast\n")
    cached = [int(n) for n in re.findall(r"(\d+) of them cached", done.err)]
    assert len(cached) == 2 and cached[0] == 0 and cached[1] >= 64 and cached[1] % 64 == 0, done.err


def test_depth_colours_the_answer(fathom, talker):
    plain = fathom("chat", talker, *GREEDY, stdin="The sea\n").out
    coloured = fathom("chat", talker, *GREEDY, "--show-depth", "--color", "always", stdin="The sea\n").out
    assert "\x1b[48;5;" in coloured and re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain


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


def test_ctrl_c_stops_the_answer_and_not_the_program(fathom, endless):
    terminal, slave = pty.openpty()
    program = subprocess.Popen([fathom.path, "chat", endless, "--color", "never", "--max-tokens", "1000000"], cwd=fathom.folder, stdin=slave, stdout=slave, stderr=slave,
                               start_new_session=True, close_fds=True)
    os.close(slave)
    try:
        read_until(terminal, b"> ")
        for _ in range(2):
            os.write(terminal, b"The sea\n")
            read_until(terminal, b"\n")  # what was typed comes back
            ready, _, _ = select.select([terminal], [], [], 60)
            assert ready
            program.send_signal(signal.SIGINT)
            read_until(terminal, b"stopped\r\n> ")
        program.send_signal(signal.SIGINT)  # nothing is being answered
        read_until(terminal, b"(Ctrl-D or /quit ends)\r\n> ")
        os.write(terminal, b"\x04")
        assert program.wait(timeout=60) == 0
    finally:
        program.kill()
        program.wait()
        os.close(terminal)


@pytest.mark.skipif(not SMOLLM2.exists(), reason="scripts/get-smollm2 did not run")
@pytest.mark.skipif("ASAN_OPTIONS" in os.environ, reason="135 million weights take too long under a sanitizer")
def test_smollm2_answers(fathom):
    done = fathom("chat", SMOLLM2, "--system", "You are a helpful assistant.", *SHORT, stdin="What is the capital of France?\nAnd of Italy?\n", timeout=300)
    assert done.out == "The capital of France is Paris.\nThe capital of Italy is Rome.\n"
    # The template's own system message, as it stands in the file.
    prompt = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    expected = fathom("generate", SMOLLM2, "--no-bos", "--parse-special", "--prompt", prompt, *SHORT, timeout=300).out
    assert fathom("chat", SMOLLM2, *SHORT, stdin="Hello\n", timeout=300).out == expected
