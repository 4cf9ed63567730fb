"""What depends on a model's routing, as a user meets it: text, depth colours, dials, the random control, the report."""
import json
import os
import re
import shutil
import subprocess

import pytest

ANSI = re.compile(r"\x1b\[[0-9;]*m")


def test_generate(fathom):
    words = ("generate", "mod", "--prompt", "The sea", "--max-tokens", "20", "--no-eos")
    text = fathom(*words).out
    assert text.endswith("\n") and len(text) > 10
    assert fathom(*words).out == text, "the same command gives the same text"
    assert fathom(*words, "--threads", "1").out == text
    assert fathom(*words, "--seed", "1").out != text
    assert fathom(*words, "--echo").out == "The sea" + text
    assert fathom("generate", "mod", "--prompt", "-", "--max-tokens", "20", "--no-eos", stdin="The sea").out == text
    assert fathom("generate", "mod", "--prompt-file", "-", "--max-tokens", "20", "--no-eos", stdin="The sea").out == text
    found = json.loads(fathom(*words, "--json").out)
    assert found["text"] + "\n" == text and found["finish"] == "length"
    assert len(found["ids"]) == len(found["tokens"]) == 20
    for token in found["tokens"]:
        assert token["depth"] == 2 + sum(token["run"])
    assert found["kv_bytes"]["slots"] < found["kv_bytes"]["slots_if_dense"]


@pytest.mark.parametrize("sampling", [("--temperature", "0"), ("--temperature", "1", "--seed", "3")])
def test_guesses_change_nothing_but_the_time(fathom, sampling):
    words = ("generate", "mod", "--prompt", "The sea", "--max-tokens", "60", "--no-eos", "--dial", "1", "--json", *sampling)
    plain = json.loads(fathom(*words, "--no-draft-repeats").out)
    guesses = plain["guesses"]
    assert guesses["made"] == guesses["right"] == guesses["steps"] == guesses["tokens"] == 0 and guesses["acceptance"] is None and guesses["seconds_saved_estimate"] is None
    assert guesses["plain_steps"] == 60
    for how in (("--no-draft-repeats", "--draft-dial", "1", "--draft-always"), ("--draft-dial", "0.6"), (), ("--draft-repeats", "--draft-dial", "0.6", "--draft-always", "--draft-most", "3")):
        guessed = json.loads(fathom(*words, *how).out)
        assert guessed["ids"] == plain["ids"] and guessed["tokens"] == plain["tokens"], how
        made, right = guessed["guesses"]["made"], guessed["guesses"]["right"]
        alike = "1" in how
        assert right == made > 30 if alike else 0 <= right <= made
        g = guessed["guesses"]
        assert g["acceptance"] == (right / made if made else None) and g["tokens"] + g["plain_steps"] == 60
        assert g["seconds"] + g["plain_seconds"] == pytest.approx(guessed["decode_seconds"])
        assert g["probe_steps"] == (8 if g["steps"] and g["plain_steps"] < 8 else 0)  # read again for the comparison
        assert (g["probe_seconds"] > 0) == (g["probe_steps"] > 0) and (g["plain_seconds"] > 0) == (g["plain_steps"] > 0)
        if g["steps"]:  # what the tokens would have taken, less what they took
            step = (g["plain_seconds"] + g["probe_seconds"]) / (g["plain_steps"] + g["probe_steps"])
            assert g["seconds_saved_estimate"] == pytest.approx(g["tokens"] * step - g["seconds"])
        else:
            assert g["seconds_saved_estimate"] is None
        if alike:
            said = fathom(*words[:-len(sampling) - 1], *sampling, *how, "--stats").err
            assert re.search(r"; (\d+) of \1 guesses right \(100\.0 %\), about \S+ \S+ (saved|lost) by them \(estimated from \d+ steps without\); ended by", said), said
    for word in (("--draft-most", "3"), ("--draft-always",)):
        assert "--draft-repeats or --draft-dial" in fathom("generate", "mod", "--no-draft-repeats", *word, code=2).err


def test_tokens_are_forbidden_and_end_a_text_by_id(fathom):
    words = ("generate", "mod", "--prompt", "The sea", "--max-tokens", "20", "--no-eos", "--json")
    ids = json.loads(fathom(*words).out)["ids"]
    stop = ids[5]
    cut = json.loads(fathom(*words, "--stop-id", "399", "--stop-id", str(stop)).out)
    assert cut["finish"] == "stop_id" and cut["ids"] == ids[: ids.index(stop)]
    without = json.loads(fathom(*words, f"--logit-bias={ids[0]}=-inf", "--logit-bias", f"{ids[1]}=-1e6").out)["ids"]
    assert ids[0] not in without and ids[1] not in without
    assert set(json.loads(fathom(*words, "--logit-bias", "77=1e4").out)["ids"]) == {77}
    for flag, value, expected in [("logit-bias", "400=1", 'found id "400", expected 0 to 399'), ("logit-bias", "7", 'found "7", expected ID=X'), ("logit-bias", "7=nan", 'found "7=nan"'),
                                  ("logit-bias", "7=1e39", 'found "7=1e39"'), ("logit-bias", "=1", 'found id ""'), ("stop-id", "400", 'found id "400", expected 0 to 399'),
                                  ("stop-id", "-1", "expected"), ("log-probs", "129", "0 to 128"), ("samples", "0", "1 to 4096")]:
        assert re.search(rf"--{flag}: .*{re.escape(expected)}", fathom(*words, f"--{flag}={value}", code=2).err), (flag, value)
    assert "--logit-bias: found id 7 twice" in fathom(*words, "--logit-bias", "7=1", "--logit-bias", "7=2", code=2).err


def test_log_probabilities(fathom):
    words = ("generate", "mod", "--prompt", "The sea", "--max-tokens", "12", "--no-eos", "--temperature", "1.4")
    found = json.loads(fathom(*words, "--json", "--log-probs", "3").out)
    plain = json.loads(fathom(*words, "--json").out)
    assert found["ids"] == plain["ids"] and "log_prob" not in plain["tokens"][0]
    for token in found["tokens"]:
        top = [t["log_prob"] for t in token["top"]]
        assert len(top) == 3 and top == sorted(top, reverse=True) and token["log_prob"] <= top[0] < 0
        assert token["log_prob"] in top or token["id"] not in [t["id"] for t in token["top"]]
    assert all(token["top"] == [] for token in json.loads(fathom(*words, "--json", "--log-probs", "0").out)["tokens"])
    text, table = fathom(*words, "--log-probs", "2").out.rsplit("\n\n", 1)
    assert text == plain["text"]
    lines = table.splitlines()
    assert len(lines) == 12
    for line, token in zip(lines, found["tokens"]):
        assert line.split()[0] == str(token["id"]) and f"{token['log_prob']:.3f}".replace("-", "") in line and f"{token['top'][1]['log_prob']:.3f}".replace("-", "") in line


def test_samples_are_texts_from_one_prompt(fathom):
    words = ("generate", "mod", "--prompt", "The sea is calm", "--max-tokens", "15", "--no-eos")
    alone, three = (json.loads(fathom(*words, "--json", *more).out) for more in ([], ["--samples", "3"]))
    assert "samples" not in alone and "text" not in three and len(three["samples"]) == 3
    assert {key: three["samples"][0][key] for key in ("text", "ids", "tokens", "finish", "depth", "kv_bytes")} == {key: alone[key] for key in ("text", "ids", "tokens", "finish", "depth", "kv_bytes")}
    texts = [sample["text"] for sample in three["samples"]]
    assert len(set(texts)) == 3 and three["prompt_tokens"] == alone["prompt_tokens"]
    said = fathom(*words, "--samples", "3", "--echo", "--stats")
    assert said.out == "\n".join(f"sample {i + 1} of 3:\nThe sea is calm{text}\n" for i, text in enumerate(texts))
    assert f"prompt {alone['prompt_tokens']} tokens in" in said.err and "45 new in" in said.err and "ended by length, length, length" in said.err


def test_generate_greedy_takes_the_most_likely(fathom):
    greedy = fathom("generate", "mod", "--prompt", "The sea", "--temperature", "0", "--max-tokens", "16").out
    assert fathom("generate", "mod", "--prompt", "The sea", "--top-k", "1", "--max-tokens", "16", "--seed", "7").out == greedy


def test_generate_stops_before_a_stop_string(fathom):
    whole = json.loads(fathom("generate", "mod", "--prompt", "The", "--max-tokens", "30", "--no-eos", "--json").out)["text"]
    stop = whole[5:8]
    cut = json.loads(fathom("generate", "mod", "--prompt", "The", "--max-tokens", "30", "--no-eos", "--json", "--stop", stop, "--stop", "never seen").out)
    assert cut["finish"] == "stop_string" and cut["text"] == whole[: whole.index(stop)]


def test_generate_loses_no_text_that_might_have_become_a_stop_string(fathom):
    words = ["generate", "mod", "--prompt", "the sea", "--max-tokens", "30", "--temperature", "0"]
    text = json.loads(fathom(*words, "--json").out)["text"]
    assert fathom(*words, "--stop", text[-3:] + "and no more").out == text + "\n"


def sentencepiece_tokenizer():
    """As Llama-2's: "▁" for a space, byte tokens, and a decoder that takes the first space of a text away."""
    words = ["▁the", "▁sea", "▁is", "▁calm", "sea", ",", "."]
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2, **{f"<0x{b:02X}>": 3 + b for b in range(256)}}
    merges, parts = [], sorted({c for w in words for c in w})
    for word in words:
        for n in range(2, len(word) + 1):
            if (merge := [word[: n - 1], word[n - 1]]) not in merges:
                merges.append(merge)
    for piece in parts + ["".join(m) for m in merges]:
        vocab.setdefault(piece, len(vocab))
    special = [{"id": i, "content": c, "special": True, "normalized": False} for i, c in enumerate(("<unk>", "<s>", "</s>"))]
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    return {"version": "1.0", "added_tokens": special, "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, replace]},
            "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
                                                         {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
            "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True, "vocab": vocab, "merges": merges}}


@pytest.fixture(scope="module")
def spm(folder, build):
    (folder / "spm.json").write_text(json.dumps(sentencepiece_tokenizer()))
    subprocess.run([build / "tests/tools/make_sample_model", folder / "spm", folder / "spm.json", "mod", "3"], check=True)
    return "spm"


@pytest.mark.parametrize("prompt", ["the sea", "the sea, é", "the 日本", "sea "])
def test_a_text_goes_on_from_its_prompt(fathom, spm, prompt):
    """Tokenizers of the SentencePiece kind take the first space of a text away: that of the prompt, not that of the first new token."""
    begun = 0
    for seed in range(16):
        words = ["generate", spm, "--prompt", prompt, "--max-tokens", "12", "--no-eos", "--no-bos", "--seed", seed]
        found = json.loads(fathom(*words, "--json").out)
        ids = fathom("tokenizer", "encode", spm, prompt).out.split() + found["ids"]
        whole = fathom("tokenizer", "decode", spm, *ids, "--no-newline").out
        if not whole.startswith(prompt):
            continue  # new bytes have broken the run of byte tokens that the prompt ends with
        assert prompt + found["text"] == whole
        assert fathom(*words, "--echo").out == whole + "\n"
        begun += found["text"].startswith(" ")
        if found["text"].startswith(" s"):
            assert json.loads(fathom(*words, "--json", "--stop", " s").out)["text"] == ""
    assert begun > 1


def test_generate_says_when_the_context_is_full(fathom):
    done = fathom("generate", "mod", "--prompt", "The sea", "--max-tokens", "500", "--no-eos")
    assert "context of 128 tokens is full" in done.err


def test_show_depth_colours_only_when_asked_or_on_a_terminal(fathom):
    words = ("generate", "mod", "--prompt", "The sea", "--max-tokens", "30", "--show-depth")
    piped = fathom(*words).out
    assert not ANSI.search(piped) and "depth 2" in piped
    coloured = fathom(*words, "--color", "always").out
    assert ANSI.search(coloured) and "blocks run in full" in coloured.splitlines()[0]
    assert not ANSI.search(fathom(*words, "--color", "never").out)
    assert ANSI.search(fathom(*words, "--color", "always", env={"NO_COLOR": "1"}).out)
    plain = fathom("generate", "mod", "--prompt", "The sea", "--max-tokens", "30").out
    assert plain.strip() in piped


def depths_by_character(text):
    """What a coloured text says: every character with the colour that it stands in."""
    colour, found = "", []
    for part in re.split(r"(\x1b\[[0-9;]*m)", text):
        if ANSI.fullmatch(part):
            colour = "" if part == "\x1b[0m" else part
        else:
            found += [(character, colour) for character in part]
    return found


def test_text_that_was_held_back_keeps_its_colours(fathom):
    words = ["generate", "mod", "--prompt", "The sea", "--max-tokens", "40", "--no-eos", "--show-depth", "--color", "always"]
    free = fathom(*words).out
    text = json.loads(fathom(*words, "--json").out)["text"]
    assert len({colour for _, colour in depths_by_character(free)}) > 2
    # Ends of the text, inside and at its end, that might have become a stop string.
    stops = [text[at : at + 6] + "\u00a7" for at in range(0, len(text), 7)] + [text[-5:] + "and no more"]
    held = fathom(*words, *[word for stop in stops for word in ("--stop", stop)]).out
    assert depths_by_character(held) == depths_by_character(free)


def on_a_terminal(fathom, words, env=None):
    """Runs the program with standard output on a pseudo terminal; returns what a person would see."""
    import pty
    master, slave = pty.openpty()
    full = dict(os.environ, TERM="xterm-256color", **(env or {}))
    if not env:
        full.pop("NO_COLOR", None)
    process = subprocess.Popen([fathom.path, *words], stdout=slave, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, cwd=fathom.folder, env=full)
    os.close(slave)
    seen = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # the other side is closed
            break
        if not part:
            break
        seen += part
    os.close(master)
    assert process.wait(30) == 0
    return seen.decode(errors="replace")


def test_a_terminal_gets_colours_and_no_stray_controls(fathom):
    words = ["generate", "mod", "--prompt", "The sea", "--max-tokens", "60", "--no-eos", "--show-depth"]
    seen = on_a_terminal(fathom, words)
    assert ANSI.search(seen)
    # What the model writes may hold any byte; none of them may steer the terminal.
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", ANSI.sub("", seen))
    assert not ANSI.search(on_a_terminal(fathom, words, env={"NO_COLOR": "1"}))


def test_stats(fathom):
    done = fathom("generate", "mod", "--prompt", "The sea", "--max-tokens", "10", "--stats")
    assert "block fraction" in done.err and "KV cache" in done.err and "block fraction" not in done.out


def test_a_dial_below_what_was_calibrated(fathom, folder):
    lowest = json.loads((folder / "mod/fathom_dial.json").read_text())["points"][0]["dial"]
    done = fathom("generate", "mod", "--prompt", "The", "--max-tokens", "2", "--dial", "0.01", "--json")
    assert f"warning: dial 0.01 lies below the lowest dial that mod was calibrated for; running at {lowest}" in done.err
    assert json.loads(done.out)["dial"] == lowest
    for words in (["eval", "--limit", "500", "--json"], ["depthmap", "--limit", "500", "--out", "low.html", "--json"]):
        done = fathom(words[0], "mod", "--data", "corpus.txt", "--dial", "0.01", *words[1:])
        found = json.loads(done.out)
        assert found.get("model", found)["dial"] == lowest if words[0] == "eval" else found["dial"] == lowest
        assert "running at" in done.err
    assert "warning" not in fathom("generate", "mod", "--prompt", "The", "--max-tokens", "2", "--dial", str(lowest)).err


def test_a_random_control_runs_as_one(fathom, folder, tmp_path):
    model = tmp_path / "control"
    shutil.copytree(folder / "mod", model)
    config = json.loads((model / "config.json").read_text())
    config["fathom"]["selection"] = "random"
    (model / "config.json").write_text(json.dumps(config))
    assert "tokens picked at random (control)" in fathom("info", model).out
    own, control = (json.loads(fathom("eval", model, "--data", "corpus.txt", "--limit", "2k", "--rule", rule, "--json", "--quiet").out)
                    for rule in ("causal", "random"))
    assert own["model"]["rule"] == "random" and own["model"]["nll"] == control["model"]["nll"] and own["teacher"] is None
    text = fathom("eval", model, "--data", "corpus.txt", "--limit", "2k", "--quiet").out
    assert "random control" in text and "recall" not in text and "eacher" not in text
    for words in (["generate", model, "--dial", "0.8"], ["depthmap", model, "--data", "corpus.txt", "--dial", "0.8"], ["report", model, "--data", "corpus.txt", "--dial", "0.8"]):
        assert "pick tokens at random" in fathom(*words, code=1).err
    assert "which token ran which block, under the random control" in (
        fathom("depthmap", model, "--data", "corpus.txt", "--limit", "1k", "--out", "control.html", "--quiet"), (folder / "control.html").read_text())[1].lower()
    assert "expected causal or random" in fathom("eval", model, "--data", "corpus.txt", "--rule", "topk", code=2).err


def test_report_takes_a_dial(fathom, folder):
    done = fathom("report", "mod", "dense", "--data", "corpus.txt", "--limit", "500", "--dial", "1", "--repair-utf8", "--sample-tokens", "2", "--out", "dial.html",
                  "--json", "--quiet")
    found = json.loads(done.out)
    assert found["models"][0]["quality"]["dial"] == 1 and found["depth"]["dial"] == 1
    assert found["models"][0]["quality"]["block_fraction"] > 0.99
    assert not found["held_out"] and "Training FLOPs unknown, so perhaps not equal: mod, dense." in found["cautions"]
