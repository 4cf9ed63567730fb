"""Wrong words and wrong files: each ends with its exit code and one whole message that says where, what was found and what instead."""
import json
import os
import shutil
import struct
import subprocess

import pytest

# words, exit code, the whole of standard error
USAGE = [
    ("frobnicate", 'fathom: found "frobnicate", expected a command; see fathom --help'),
    ("generat mod", 'fathom: found "generat", expected a command; did you mean generate?'),
    ("tokenizer", "fathom tokenizer: found no command, expected one of train, encode, decode; see fathom --help"),
    ("tokenizer frain", 'fathom tokenizer: found "frain", expected one of train, encode, decode; see fathom --help'),
    ("completion fish", 'fathom completion: found "fish", expected bash or zsh'),
    ("completion", "fathom completion: found no shell, expected bash or zsh"),
    ("generate", "fathom generate: MODEL: found nothing, expected the model folder, the folder of a run, or a .gguf file; see fathom generate --help"),
    ("generate mod more", 'fathom generate: found a further word "more", expected at most 1 word besides the flags; see fathom generate --help'),
    ("generate mod --promt x", "fathom generate: found the flag --promt, expected a flag of this command; did you mean --prompt?"),
    ("generate mod -p x", 'fathom generate: found "-p", expected a flag that begins with two dashes; see fathom generate --help'),
    ("generate mod --prompt", "fathom generate: --prompt: found no value, expected a text; see fathom generate --help"),
    ("generate mod --temperature warm", 'fathom generate: --temperature: found "warm", expected a number from 0 to 100'),
    ("generate mod --temperature nan", 'fathom generate: --temperature: found "nan", expected a number from 0 to 100'),
    ("generate mod --top-p 0", 'fathom generate: --top-p: found "0", expected a number above 0 and at most 1'),
    ("generate mod --top-k -1", 'fathom generate: --top-k: found "-1", expected an integer from 0 to 16777216'),
    ("generate mod --max-tokens 0", 'fathom generate: --max-tokens: found "0", expected an integer from 1 to 16777216 (10k, 1e6 and 3M are understood)'),
    ("generate mod --threads 9999", 'fathom generate: --threads: found "9999", expected an integer from 0 to 1024'),
    ("generate mod --color blue", 'fathom generate: --color: found "blue", expected one of auto, always, never'),
    ("generate mod --dial 1.5", 'fathom generate: --dial: found "1.5", expected a number above 0 and at most 1'),
    ("generate mod --seed 1 --seed 2", 'fathom generate: --seed: found a second value "2", expected the flag once'),
    ("generate mod --stop=", "fathom generate: --stop: found an empty text, which stands before everything, expected a text of at least one character"),
    ("generate mod --prompt a --prompt-file b", "fathom generate: --prompt-file: found --prompt as well, expected one of the two"),
    ("eval mod", "fathom eval: --data: found nothing, expected held-out text, or --tasks or --task-file; see fathom eval --help"),
    ("eval mod --tasks arc_easy,lamada", 'fathom eval: --tasks: found "lamada", expected some of lambada, arc_easy, piqa, hellaswag, with commas between them; did you mean lambada?'),
    ("eval mod --tasks x", 'fathom eval: --tasks: found "x", expected some of lambada, arc_easy, piqa, hellaswag, with commas between them; give a task of your own by --task-file'),
    ("eval mod --tasks lambada --data corpus.txt", "fathom eval: --data: found --tasks as well, expected one of the two; text and tasks are evaluated in runs of their own"),
    ("eval mod --task-file a.jsonl --twin dense", "fathom eval: --twin: found --task-file as well, expected one of the two; text and tasks are evaluated in runs of their own"),
    ("eval mod --data corpus.txt --against dense", "fathom eval: --against: found neither --tasks nor --task-file, expected the task that it is about; beside --data a dense model is --twin"),
    ("eval mod --tasks lambada --items", "fathom eval: --items: found no --json, expected --json as well; items are shown nowhere else"),
    ("eval mod --data corpus.txt --rule top", 'fathom eval: --rule: found "top", expected one of causal, topk, random; did you mean topk?'),
    ("eval mod --data corpus.txt --context 1", 'fathom eval: --context: found "1", expected an integer from 2 to 16777216'),
    ("eval mod --data corpus.txt --context 500", "fathom eval: --context: found 500, expected at most 128, the model's max_position_embeddings"),
    ("info mod --context 129", "fathom info: --context: found 129, expected at most 128, the model's max_position_embeddings"),
    ("tokenizer train corpus.txt --out tok.json",
     'fathom tokenizer train: --out: found the existing "tok.json", expected a new name; give --overwrite to replace it'),
    ("tokenizer train corpus.txt --out x.json --vocab-size 100", 'fathom tokenizer train: --vocab-size: found "100", expected an integer from 257 to 1048576'),
    ("tokenizer train --out x.json",
     "fathom tokenizer train: FILES: found nothing, expected text files, .jsonl, their .zst or .bz2, or folders of them; see fathom tokenizer train --help"),
    ("data prepare corpus.txt --out d", "fathom data prepare: --tokenizer: found nothing, expected a path (a tokenizer.json, or a folder that holds one); "
                                        "see fathom data prepare --help"),
    ("report mod", "fathom report: --data: found nothing, and no dataset that mod was trained on, expected held-out text"),
]


@pytest.mark.parametrize("words,message", USAGE, ids=[w for w, _ in USAGE])
def test_wrong_command_lines(fathom, words, message):
    done = fathom(*words.split(), code=2)
    assert done.err == message + "\n"
    assert done.out == ""


# words, pieces of the message
FAILURES = [
    ("generate no-such-model --prompt x", ["no-such-model"]),
    ("info corpus.txt", ["corpus.txt"]),
    ("info data", ["data: found a folder without a model", "a model folder, a .gguf file, or the folder of a run that has finished"]),
    ("info no-such-model", ["no-such-model: found no such file or folder"]),
    ("info named.bin", ["named.bin: found a GGUF file of another name", "give it a name that ends in .gguf"]),
    ("eval mod --data no-such-file", ["no-such-file"]),
    ("eval mod --tasks piqa --task-data no-such-folder", ["no-such-folder: found no piqa.jsonl for the task piqa"]),
    ("eval mod --tasks piqa", ["data/eval: found no piqa.jsonl for the task piqa"]),
    ("eval mod --task-file no-such-file", ["no-such-file: cannot open"]),
    ("eval mod --task-file corpus.txt", ["corpus.txt: line 2: found", "expected the answer's index, 0 to 3"]),
    ("eval mod --task-file corpus.txt --resume no-such-folder/kept", ["no-such-folder/kept: found no folder no-such-folder"]),
    ("eval mod --data empty-folder", ["empty-folder"]),
    ("eval mod --data empty.txt", ["empty.txt", "expected text to evaluate on"]),
    ("eval mod --data latin1.txt", ["latin1.txt", "UTF-8"]),
    ("eval mod --data corpus.txt --twin other", ["other: tokenizer.json: found another tokenizer than that of mod, expected the same one"]),
    ("eval dense --data corpus.txt --dial 0.5", ["dial"]),
    ("generate mod --prompt-file no-such-file", ["no-such-file"]),
    ("generate mod --prompt-file long-prompt.txt", ["a prompt of", "fewer than the model's max_position_embeddings 128"]),
    ("generate bare --prompt x", ["bare", "tokenizer.json"]),
    ("tokenizer encode no-such-file x", ["no-such-file"]),
    ("tokenizer encode corpus.txt x", ["corpus.txt"]),
    ("tokenizer decode tok.json 5 abc", ['IDS: found "abc", expected a token id from 0 to 399']),
    ("tokenizer decode tok.json 400", ['IDS: found "400", expected a token id from 0 to 399']),
    ("tokenizer train no-such-file --out x.json", ["no-such-file"]),
    ("data prepare corpus.txt --tokenizer tok.json --out data", ["data"]),
    ("data prepare corpus.txt --tokenizer corpus.txt --out d2", ["corpus.txt"]),
    ("depthmap mod --data corpus.txt --out no-such-folder/x.html", ["no-such-folder/x.html: found no folder no-such-folder, expected a folder to write into"]),
    ("depthmap mod --data no-such-file --out data", ["data: found a folder, expected the name of a file"]),
    ("report mod --data no-such-file --out corpus.txt/x.html", ["found corpus.txt, which is a file"]),
    ("tokenizer train empty.txt --out x.json", ["empty.txt: found no text"]),
    ("generate corpus.txt --prompt x", ["corpus.txt: found a file, expected a model folder, a .gguf file, or the folder of a run"]),
    ("data verify corpus.txt", ["corpus.txt: found a file, expected a dataset"]),
    ("report no-such-run --data corpus.txt", ["no-such-run", "found no such file or folder"]),
    ("report data --data corpus.txt", ["data", "found a folder without a model"]),
    ("info broken-config", ["broken-config/config.json"]),
    ("info unknown-type", ["unknown-type/config.json", "model_type", "gpt2"]),
    ("info unknown-key", ["unknown-key/config.json", "gaet"]),
    ("info no-dial", ["no-dial", "fathom_dial.json"]),
    ("info short-weights", ["short-weights/model.safetensors"]),
    ("generate nan-weights --prompt x", ["nan-weights", "lm_head.weight", "found NaN, expected a finite number"]),
    ("info dial-of-another", ["dial-of-another/fathom_dial.json"]),
]


@pytest.fixture(scope="module")
def bad(fathom, folder, build):
    """Broken files beside the good ones."""
    (folder / "empty-folder").mkdir()
    (folder / "empty.txt").write_text("\n")
    (folder / "named.bin").write_bytes(b"GGUF\3\0\0\0")
    (folder / "latin1.txt").write_bytes(b"caf\xe9 au lait\n" * 40)
    (folder / "long-prompt.txt").write_text("the sea is calm " * 200)
    fathom("tokenizer", "train", "corpus.txt", "--vocab-size", "350", "--out", "other.json", "--quiet")

    def copy(name, of="mod"):
        shutil.copytree(folder / of, folder / name)
        return folder / name

    shutil.copy(folder / "other.json", copy("other", "dense") / "tokenizer.json")
    os.remove(copy("bare") / "tokenizer.json")
    (copy("broken-config") / "config.json").write_text('{"vocab_size": 4')
    os.remove(copy("no-dial") / "fathom_dial.json")

    def edit(name, file, change):
        path = copy(name) / file
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    edit("unknown-type", "config.json", lambda c: c.update(model_type="gpt2"))
    edit("unknown-key", "config.json", lambda c: c["fathom"].update(gaet="raw"))
    edit("dial-of-another", "fathom_dial.json", lambda d: [p["thresholds"].append(0.5) for p in d["points"]])
    weights = copy("short-weights") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    weights = copy("nan-weights") / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-4:] = struct.pack("<f", float("nan"))
    weights.write_bytes(raw)
    return folder


@pytest.mark.parametrize("words,pieces", FAILURES, ids=[w for w, _ in FAILURES])
def test_failures(fathom, bad, words, pieces):
    done = fathom(*words.split(), code=1)
    for piece in pieces:
        assert piece in done.err, done.err
    assert "internal error" not in done.err and "terminate" not in done.err
    assert done.err.splitlines()[-1].startswith("fathom")
    assert len([line for line in done.err.splitlines() if line.startswith("fathom")]) == 1
    assert done.out == ""


@pytest.mark.parametrize("name,words", [("config.json", "info {m}"), ("tokenizer.json", "generate {m} --prompt x"), ("model.safetensors", "info {m}"),
                                        ("fathom_dial.json", "generate {m} --prompt x")])
def test_a_pipe_in_a_model_folder_is_refused_not_waited_for(fathom, folder, tmp_path, name, words):
    model = tmp_path / "m"
    shutil.copytree(folder / "mod", model)
    (model / name).unlink()
    os.mkfifo(model / name)
    done = fathom(*words.format(m=model).split(), code=1, timeout=20)
    assert f"{model / name}: found a pipe or device, expected a file; write what it gives to a file first" in done.err


def test_a_prompt_may_come_from_a_pipe(fathom, folder):
    line = f"{fathom.path} generate mod --max-tokens 1 --echo --prompt-file <(printf 'The sea')"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=folder, timeout=30, errors="replace")
    assert done.returncode == 0 and done.stdout.startswith("The sea"), done.stderr


def test_a_page_never_takes_the_place_of_a_pipe(fathom, folder):
    os.mkfifo(folder / "pipe.html")
    done = fathom("depthmap", "mod", "--data", "corpus.txt", "--limit", "1k", "--out", "pipe.html", "--quiet", code=1)
    assert done.err == "fathom: pipe.html: found a device or pipe, expected the name of a file\n"


def test_a_full_disk_leaves_no_page(fathom, folder):
    """A limit on the size of files stands for the disk."""
    done = subprocess.run(["bash", "-c", f"ulimit -f 4; {fathom.path} depthmap mod --data corpus.txt --limit 1k --out full.html --quiet"],
                          capture_output=True, text=True, cwd=folder)
    assert done.returncode == 1 and "full.html" in done.stderr and "File too large" in done.stderr
    assert not (folder / "full.html").exists() and not list(folder.glob(".full.html*"))


@pytest.mark.parametrize("words", [["eval", "cut", "--data", "corpus.txt"], ["info", "cut"], ["report", "cut"]], ids=lambda w: w[0])
def test_a_run_that_is_not_finished(fathom, folder, words):
    (folder / "cut/checkpoints").mkdir(parents=True, exist_ok=True)
    (folder / "cut/config.json").write_text("{}")
    assert "finish it with: fathom train --resume cut" in fathom(*words, code=1).err
