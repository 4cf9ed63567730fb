"""`fathom tune` as a person runs it: from a converted model to a better one, stopped, resumed, laid over its source, and every wrong word."""
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import time

import pytest

from conftest import BUILD, read_safetensors, write_safetensors

pytestmark = pytest.mark.skipif(not (BUILD / "fathom-train").exists(), reason="no fathom-train in the build folder")

SHORT = ("--tokens", 2048, "--context", 64, "--batch-size", 4, "--eval-tokens", 1024, "--lora-rank", 2, "--lora-alpha", 4, "--teacher-top", 8, "--threads", 1, "--precision", "f32", "--f32-route", "onednn")


@pytest.fixture(scope="module")
def routed(fathom, folder):
    fathom("convert", "dense", "tune-routed", "--data", "corpus.txt", "--context", 64, "--tokens", 4000, "--loss-tokens", 500, "--light", "fit:6", "--target", 0.8, "--blocks", "inner", "--quiet")
    return "tune-routed"


@pytest.fixture(scope="module")
def tuned(fathom, folder, routed):
    return json.loads(fathom("tune", routed, "--teacher", "dense", "--data", "corpus.txt", "--target", "0.7-0.9", "--stages", "routers,adapters", *SHORT, "--out", "tune-run", "--json", "--quiet", timeout=300).out)


def loss(fathom, model, *words):
    return json.loads(fathom("eval", model, "--data", "corpus.txt", "--context", 64, "--limit", 2000, "--json", "--quiet", *words).out)["model"]


def test_what_a_run_leaves(fathom, folder, tuned):
    run = folder / "tune-run"
    assert sorted(os.listdir(run)) == [".lock", "1-routers", "2-adapters", "artifact", "config.json", "data", "model", "summary.json"]
    assert json.loads((run / "summary.json").read_text()) == tuned
    assert [s["what"] for s in tuned["stages"]] == ["routers", "adapters"] and tuned["tokens"] == 2048
    for stage in tuned["stages"]:
        assert [s["dial"] for s in stage["standings"]] == pytest.approx([0.7, 0.8, 0.9])
        assert all(0 < s["agreement"] <= 1 and s["kl"] >= 0 and len(s["shares"]) == 2 for s in stage["standings"])
    about = json.loads((run / "artifact" / "fathom_artifact.json").read_text())
    assert about["recipe"]["convert"] == json.loads((folder / "tune-routed" / "fathom_convert.json").read_text()) and about["recipe"]["convert"]["settings"]["target"] == 0.8
    # A model for every command, with a dial that asks for what it gives on the text that set it.
    dial = json.loads((run / "model" / "fathom_dial.json").read_text())
    assert dial["default_dial"] == pytest.approx(0.8, abs=0.02), "the middle of the range, wherever the old thresholds have come to"
    assert dial == tuned["dial"] and {0.7, 0.9, 1.0} <= {p["dial"] for p in dial["points"]}
    assert "light,full" in fathom("info", "tune-run/model").out
    assert fathom("generate", "tune-run/model", "--prompt", "The sea", "--max-tokens", 4, "--temperature", 0).out
    assert loss(fathom, "tune-run/model", "--dial", 0.7)["block_fraction"] < loss(fathom, "tune-run/model", "--dial", 0.9)["block_fraction"] < 1
    lines = [json.loads(line) for line in (run / "1-routers" / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["type"] == "eval" and lines[0]["step"] == 0 and lines[-1]["type"] == "eval"
    train = [line for line in lines if line["type"] == "train"]
    assert train and all(0.6 < line["target"] < 1 and 0 < line["block_fraction"] <= 1 and line["aux"]["distillation"] >= 0 for line in train)


def test_the_summary_for_people(fathom, folder, routed):
    shown = fathom("tune", routed, "--teacher", "dense", "--data", "corpus.txt", "--stages", "routers", *SHORT, "--out", "tune-people", "--quiet").out
    for words in ("the model as it was written, on held-out text:", "stage routers: 2.05k tokens", "at MODEL's thresholds for 65 %: ", "over the teacher", "likeliest tokens agree", "model     tune-people/model", "artifact  tune-people/artifact"):
        assert words in shown, (words, shown)
    again = fathom("tune", "--resume", "tune-people")
    assert again.out == shown and "is finished" in again.err
    # Routers alone: dial 1 is the dense model.
    assert loss(fathom, "tune-people/model", "--dial", 1)["loss"] == loss(fathom, "dense")["loss"]


def test_the_artifact_laid_over_the_source(fathom, folder, tuned):
    fathom("convert", "dense", "tune-laid", "--from", "tune-run/artifact", "--quiet")
    for name in ("config.json", "fathom_dial.json", "model.safetensors", "tokenizer.json"):
        assert (folder / "tune-laid" / name).read_bytes() == (folder / "tune-run" / "model" / name).read_bytes(), name
    assert "2 routed" in fathom("convert", "dense", "tune-none", "--from", "tune-run/artifact", "--plan", "--quiet").out and not (folder / "tune-none").exists()
    fathom("quantize", "dense", "dense-other", "--type", "f16", "--data", "corpus.txt", "--context", 64, "--quiet")
    assert "tuned for those weights and no others" in fathom("convert", "dense-other", "tune-none", "--from", "tune-run/artifact", "--quiet", code=1).err
    assert "--target: found beside --from" in fathom("convert", "dense", "tune-none", "--from", "tune-run/artifact", "--target", 0.5, code=2).err
    assert "without fathom_artifact.json" in fathom("convert", "dense", "tune-none", "--from", "dense", code=1).err


def test_adapters_in_transformers(fathom, folder, tuned, tmp_path, monkeypatch):
    """Merged or beside the weights, as PEFT reads them: the logits are those of the run's model."""
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    torch, transformers, peft = (pytest.importorskip(name) for name in ("torch", "transformers", "peft"))
    artifact = shutil.copytree(folder / "tune-run" / "artifact", tmp_path / "artifact")
    # One adapter of a rank of its own, which says the same.
    tensors, about = read_safetensors(artifact / "tuned.safetensors")
    stem = next(name for name in tensors if name.endswith("down_proj.lora_A.weight")).removesuffix("A.weight")
    (kind, (rank, width), a), (_, (rows, _), b) = tensors[stem + "A.weight"], tensors[stem + "B.weight"]
    assert kind == "F16" and rank == 2
    tensors[stem + "A.weight"] = (kind, [3, width], a + bytes(2 * width))
    tensors[stem + "B.weight"] = (kind, [rows, 3], b"".join(b[4 * r:4 * r + 4] + bytes(2) for r in range(rows)))
    write_safetensors(artifact / "tuned.safetensors", tensors, about)
    ids = [i * 7 % 400 for i in range(40)]
    (tmp_path / "ids.txt").write_text(" ".join(map(str, ids)))
    subprocess.run([BUILD / "tests/tools/engine_tool", "logits", folder / "tune-run/model", tmp_path / "ids.txt", tmp_path / "logits.bin"], check=True)
    ours = torch.frombuffer(bytearray((tmp_path / "logits.bin").read_bytes()), dtype=torch.float32).reshape(len(ids), -1)

    def differences(model):
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0]
        return float((logits - ours).abs().max() / ours.abs().max())

    load = lambda name: transformers.AutoModelForCausalLM.from_pretrained(folder / name, trust_remote_code=True, dtype=torch.float32).eval()
    fathom("export", "dense", "tune-merged", "--to", "hf", "--from", artifact, "--quiet")
    assert differences(load("tune-merged")) < 2e-4
    said = fathom("export", "dense", "tune-apart", "--to", "hf", "--from", artifact, "--adapters", "separate", "--quiet").out
    assert 'peft.PeftModel.from_pretrained(model, "tune-apart/adapter")' in said
    alone = load("tune-apart")
    assert differences(alone) > 1e-3, "without its adapters"
    both = peft.PeftModel.from_pretrained(alone, folder / "tune-apart/adapter")
    assert differences(both) < 2e-4
    assert differences(both.merge_and_unload()) < 2e-4


def test_an_export_that_cannot_be(fathom, folder, tuned, tmp_path):
    wrong = lambda code, *words: fathom("export", "dense", *words, "--quiet", code=code).err
    assert "--adapters: found separate without --from" in wrong(2, "tune-no-export", "--to", "hf", "--adapters", "separate")
    assert "--from: found tune-run/artifact, expected no artifact for a GGUF file" in wrong(2, "tune-no-export.gguf", "--to", "gguf", "--from", "tune-run/artifact")
    artifact = shutil.copytree(folder / "tune-run" / "artifact", tmp_path / "artifact")
    tensors, _ = read_safetensors(artifact / "tuned.safetensors")
    write_safetensors(artifact / "tuned.safetensors", {name: t for name, t in tensors.items() if ".lora_" not in name}, {})
    assert "an artifact without adapters" in wrong(1, "tune-no-export", "--to", "hf", "--from", artifact, "--adapters", "separate")
    assert "tuned for those weights and no others" in fathom("export", "long", "tune-no-export", "--to", "hf", "--from", "tune-run/artifact", "--quiet", code=1).err
    assert not (folder / "tune-no-export").exists() and not (folder / "tune-no-export.gguf").exists()


def test_stopped_and_gone_on_with(fathom, folder, routed):
    words = [str(w) for w in ("tune", routed, "--teacher", "dense", "--data", "corpus.txt", "--tokens", "40k", "--stages", "routers,adapters", *SHORT[2:], "--out", "tune-cut")]
    process = subprocess.Popen([BUILD / "fathom", *words], cwd=folder, stderr=subprocess.PIPE, text=True)
    stage = folder / "tune-cut" / "1-routers"
    deadline = time.time() + 60
    while not (stage / "metrics.jsonl").exists() or '"type":"train"' not in (stage / "metrics.jsonl").read_text():
        assert process.poll() is None and time.time() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "go on with: fathom tune --resume tune-cut" in said, said
    assert list((stage / "checkpoints").iterdir())
    fathom("tune", "--resume", "tune-cut", "--quiet", timeout=300)
    assert (folder / "tune-cut" / "model" / "config.json").exists()


def test_killed_and_gone_on_with(fathom, folder, routed):
    """SIGKILL at any moment, between the stages too: what comes out after all resumes is what an undisturbed run gives."""
    start = [str(w) for w in ("tune", routed, "--teacher", "dense", "--data", "corpus.txt", "--tokens", "12k", "--stages", "routers,adapters", *SHORT[2:], "--checkpoint-steps", 5, "--teacher-cache", "tune-killed-cache")]
    fathom(*start, "--out", "tune-whole", "--quiet", timeout=300)
    run, draw, kills = folder / "tune-killed", random.Random(3), 0
    run.mkdir()
    for name in (".lock", ".config.json.tmp-7-0"):  # what one leaves that was killed before its configuration was written
        (run / name).touch()
    while not (run / "summary.json").exists():
        words = ["tune", "--resume", "tune-killed"] if (run / "config.json").exists() else [*start, "--out", "tune-killed"]
        process = subprocess.Popen([BUILD / "fathom", *words], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            said = process.communicate(timeout=draw.uniform(0.1, 1.5) if kills < 12 else 300)[1]
            assert process.returncode == 0, said
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
    assert kills > 2
    for name in ("model/model.safetensors", "model/fathom_dial.json", "artifact/tuned.safetensors"):
        assert (run / name).read_bytes() == (folder / "tune-whole" / name).read_bytes(), name


def test_a_quantised_source(fathom, folder, build):
    """Four bits: what tuning left alone stays byte for byte, the projections too, beside which adapters stand; merged, they become Q8_0 or the type that was asked for. The artifact makes
    the same model of the same file."""
    gguf = pytest.importorskip("gguf")
    subprocess.run([build / "tests/tools/make_sample_model", folder / "blocky", folder / "tok.json", "blocky", "3"], check=True)
    fathom("quantize", "blocky", "blocky.gguf", "--type", "q4_1", "--quiet")
    fathom("convert", "blocky.gguf", "blocky-routed", "--data", "corpus.txt", "--context", 64, "--tokens", 2000, "--light", "fit:32", "--blocks", "inner", "--quiet")
    few = ("--teacher", "blocky.gguf", "--data", "corpus.txt", "--tokens", 1024, *SHORT[2:], "--stages", "adapters", "--lora-targets", "q,down", "--quiet")

    def tensors(model):
        reader = gguf.GGUFReader(folder / model / "model.gguf")
        return {t.name: (t.tensor_type.name, t.data.tobytes()) for t in reader.tensors}

    before = tensors("blocky-routed")
    for kind, words in (("beside", ()), ("Q8_0", ("--adapters", "merged")), ("Q4_1", ("--adapters", "merged", "--type", "q4_1"))):
        out = f"blocky-{kind}"
        shown = fathom("tune", "blocky-routed", *few, *words, "--out", out).out
        assert "the model as it was written, on held-out text:" in shown and "over the dense model" in shown and "; what a dial is worth in speed: fathom dial" in shown
        made = tensors(out + "/model")
        more = {n: t for n, t in made.items() if n not in before}
        assert set(made) == set(before) | set(more) and len(more) == (16 if kind == "beside" else 0), more.keys()
        assert all(".lora_" in n and ("q_proj" in n or "down_proj" in n) for n in more)
        for name, tensor in made.items():
            if name in more:
                continue
            changed = any(word in name for word in (("router", ".light.") if kind == "beside" else ("q_proj", "down_proj", "router", ".light.")))
            assert (tensor == before[name]) != changed, name
            if "_proj" in name and changed:
                assert tensor[0] == kind, name
        laid = fathom("convert", "blocky.gguf", out + "-laid", "--from", out + "/artifact", "--quiet").out
        assert "Dial, calibrated on" in laid and "Not fitted" not in laid
        for name in ("model.gguf", "fathom_dial.json", "config.json"):
            assert (folder / (out + "-laid") / name).read_bytes() == (folder / out / "model" / name).read_bytes(), name


def test_text_that_the_teacher_writes(fathom, folder, routed):
    fathom("tune", routed, "--teacher", "dense", "--data", "self", "--self-tokens", 3000, "--validation-share", 0.2, "--stages", "routers", *SHORT, "--out", "tune-self", "--quiet")
    texts = [json.loads(line)["text"] for line in (folder / "tune-self" / "self.jsonl").read_text().splitlines()]
    assert len(texts) > 5 and any(texts)


TEMPLATE = "{% for m in messages %}<|endoftext|>{{ m.role }}: {{ m.content }}<|endoftext|>{% endfor %}{% if add_generation_prompt %}<|endoftext|>assistant: {% endif %}"


def test_conversations(fathom, folder, routed):
    """As their author writes them, and as a teacher with a chat template does."""
    for name in ("dense", routed):
        shutil.copytree(folder / name, folder / f"{name}-chat")
        (folder / f"{name}-chat" / "chat_template.jinja").write_text(TEMPLATE)
    words = ("--validation-share", 0.2, "--stages", "routers", *(128 if word == 64 else word for word in SHORT), "--quiet")
    fathom("tune", f"{routed}-chat", "--teacher", "dense-chat", "--data", "self", "--self-tokens", 6000, "--chat-share", 0.9, *words, "--out", "tune-chat")
    lines = [json.loads(line) for line in (folder / "tune-chat" / "self.jsonl").read_text().split("\n") if line]
    chats = [line["messages"] for line in lines if "messages" in line]
    assert chats and len(chats) < len(lines) and all([m["role"] for m in chat] == ["user", "assistant"] for chat in chats)
    ids = [int(x) for x in fathom("tokenizer", "encode", "dense", "--parse-special", stdin="<|endoftext|>user: ").out.split()]
    tokens = (folder / "tune-chat" / "data" / "train-00000.tokens").read_bytes()
    tokens = list(struct.unpack(f"<{len(tokens) // 2}H", tokens))
    assert any(tokens[i:i + len(ids)] == ids for i in range(len(tokens))), "special tokens in what is tuned on"
    fathom("tune", routed, "--teacher", "dense-chat", "--data", "self", "--self-tokens", 2000, "--chat-share", 0.9, *words, "--out", "tune-no-chat")
    assert '"messages"' not in (folder / "tune-no-chat" / "self.jsonl").read_text(), "a student without a template reads none"
    given = folder / "chats.jsonl"
    given.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats * 20))
    assert loss(fathom, "dense-chat", "--data", "chats.jsonl")["loss"] > 0
    for plain in (routed, f"{routed}-chat"):
        ran = fathom("tune", plain, "--teacher", "dense", "--data", "chats.jsonl", *words, "--out", f"tune-given-{plain}", code=1 if plain == routed else 0)
        assert plain != routed or "chats.jsonl: line 1, messages: found a conversation" in ran.err


def test_documents_stand_between_the_ends_of_the_model(fathom, folder, routed):
    shutil.copytree(folder / routed, folder / "tune-endless")
    config = folder / "tune-endless" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "bos_token_id": None, "eos_token_id": None}))
    few = ("--stages", "routers", "--tokens", 512, *SHORT[2:])
    fathom("tune", "tune-endless", "--data", "corpus.txt", *few, "--out", "tune-endless-run", "--quiet")
    ends = json.loads((folder / "tune-endless-run" / "data" / "manifest.json").read_text())["tokenizer"]
    assert (ends["bos_id"], ends["eos_id"]) == (None, None)
    fathom("data", "prepare", "corpus.txt", "--tokenizer", "tune-endless/tokenizer.json", "--out", "tune-ended", "--quiet")
    said = fathom("tune", "tune-endless", "--data", "tune-ended", *few, "--out", "tune-ended-run").err
    assert "tune-ended: its documents begin or end otherwise than the texts of" in said and "prepare it with --no-bos --no-eos" in said


def test_a_teacher_of_other_weights_is_said_to_be_one(fathom, folder, routed):
    fathom("quantize", "dense", "tune-other", "--type", "q4_0", "--data", "corpus.txt", "--context", 64, "--quiet")
    said = fathom("tune", routed, "--teacher", "tune-other", "--data", "corpus.txt", "--stages", "routers", *SHORT, "--out", "tune-foreign", "--quiet")
    assert "which was not made of it" in said.err and not (folder / "tune-foreign" / "artifact").exists()


def test_a_router_that_decides_nothing_is_named(fathom, folder, routed):
    shutil.copytree(folder / routed, folder / "tune-decided")
    tensors, about = read_safetensors(folder / "tune-decided" / "model.safetensors")
    for block, bias in ((1, 1000.0), (2, -1000.0)):
        kind, shape, _ = tensors[f"model.layers.{block}.router.bias"]
        tensors[f"model.layers.{block}.router.bias"] = (kind, shape, struct.pack("<f", bias))
    write_safetensors(folder / "tune-decided" / "model.safetensors", tensors, about)
    said = fathom("tune", "tune-decided", "--data", "corpus.txt", "--stages", "routers", "--tokens", 8192, *SHORT[2:], "--out", "tune-decided-run").err
    assert "block 1: every token runs it in full at every target below 1" in said and "block 2: no token runs it in full at any target below 1" in said
    assert "in full at 0.82, by block: 1 100 %, 2 " in said
    assert said.count("block 1: every token") == 1, "told once, though steps see it too"
    warnings = [json.loads(line)["text"] for line in (folder / "tune-decided-run/1-routers/metrics.jsonl").read_text().splitlines() if '"warning"' in line]
    assert any("block 1: every token runs it in full in step " in w for w in warnings) and any("block 2: no token runs it in full in step " in w for w in warnings), warnings
    assert "in full" not in fathom("tune", routed, "--data", "corpus.txt", "--stages", "routers", "--tokens", 512, *SHORT[2:], "--out", "tune-open-run", "--quiet").err


def test_a_cache_says_its_size_first(fathom, folder, routed):
    words = (routed, "--teacher", "dense", "--data", "corpus.txt", "--stages", "routers", *SHORT, "--teacher-cache", "tune-kept")
    said = fathom("tune", *words, "--out", "tune-first").err
    assert "the likeliest 8 of 2.05k tokens take" in said and "0 of 32 rows are there" in said
    said = fathom("tune", *words, "--out", "tune-second").err
    assert "32 of 32 rows are there" in said
    for name in ("model/model.safetensors", "model/fathom_dial.json"):
        assert (folder / "tune-first" / name).read_bytes() == (folder / "tune-second" / name).read_bytes()


@pytest.mark.parametrize("words,code,says", [
    ((), 2, "no model, expected the folder of a converted model"),
    (("tune-routed",), 2, "--data: found no text"),
    (("tune-routed", "--data", "corpus.txt", "--target", "0.9-0.7"), 2, '--target: found "0.9-0.7"'),
    (("tune-routed", "--data", "corpus.txt", "--target", "half"), 2, '--target: found "half"'),
    (("tune-routed", "--data", "corpus.txt", "--stages", "routers,all"), 2, '--stages: found "all"'),
    (("tune-routed", "--data", "corpus.txt", "--stages", "adapters,routers"), 2, '--stages: found "adapters,routers"'),
    (("tune-routed", "--data", "self"), 2, "--data: found self without --teacher"),
    (("tune-routed", "--data", "corpus.txt", "--other", "self"), 2, "--other: found self without --teacher"),
    (("tune-routed", "--data", "corpus.txt", "--other-weight", 0.5), 2, "--other-weight: found no --other"),
    (("tune-routed", "--data", "corpus.txt", "--other", "nothing.txt", *SHORT), 1, "no file or folder"),
    (("tune-routed", "--data", "corpus.txt", "--lora-targets", "q,x", *SHORT), 1, 'lora_targets: found "x"'),
    (("tune-routed", "--data", "corpus.txt", "--teacher", "tune-routed", *SHORT), 1, "expected a dense teacher"),
    (("tune-routed", "--data", "nothing.txt", *SHORT), 1, "no file or folder"),
    (("dense", "--data", "corpus.txt", "--stages", "routers", *SHORT), 1, "make them with fathom convert"),
    (("tune-routed", "--data", "corpus.txt", "--type", "q9", *SHORT), 1, 'type: found "q9"'),
    (("--resume", "dense"), 1, "config.json"),
    (("--resume", "no-run"), 1, "no such folder"),
    (("tune-routed", "--resume", "no-run"), 2, "a model or --out beside it"),
])
def test_wrong_words(fathom, folder, routed, words, code, says):
    before = sorted(os.listdir(folder))
    said = fathom("tune", *words, *(() if "--resume" in words else ("--out", "tune-wrong")), code=code).err
    assert says in said, said
    assert sorted(os.listdir(folder)) == before, "something was left behind"
