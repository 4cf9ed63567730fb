"""`fathom eval --tasks` against log-likelihoods that transformers computes choice by choice, with tokens from the tokenizers package; and, where lm_eval, SmolLM2 and
the tasks' files are there, against lm-evaluation-harness itself (bench/quality/lm_eval_tasks.py)."""
import importlib.util
import json
import os
import pathlib
import random
import subprocess

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("FATHOM_BUILD", ROOT / "build"))
FATHOM = BUILD / "fathom"
SMOLLM2 = ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
DATA = pathlib.Path(os.environ.get("FATHOM_DATA", ROOT.parent / "shared" / "data")) / "eval"
WORDS = "the sea is calm tonight tide full moon lies fair upon straits coast light gleams and gone cliffs of England stand été où 1867 in café".split()

pytestmark = pytest.mark.skipif(not FATHOM.exists(), reason=f"no program {FATHOM}")

spec = importlib.util.spec_from_file_location("lm_eval_tasks", ROOT / "bench/quality/lm_eval_tasks.py")
beside = importlib.util.module_from_spec(spec)
spec.loader.exec_module(beside)


def run(*words):
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module", params=["plain", "begin"])
def model(request, tmp_path_factory):
    """A small Llama with drawn weights and the files of four tasks; of `begin` the tokenizer puts a token before every text."""
    draw, folder = random.Random(3), tmp_path_factory.mktemp("tasks")
    text = lambda low, high: " ".join(draw.choice(WORDS) for _ in range(draw.randint(low, high)))
    (folder / "text.txt").write_text("\n".join(text(5, 20) + "." for _ in range(200)))
    run(FATHOM, "tokenizer", "train", folder / "text.txt", "--vocab-size", 340, "--out", folder / "tokenizer.json", "--quiet")
    if request.param == "begin":
        tokenizer = json.loads((folder / "tokenizer.json").read_text())
        begin = tokenizer["added_tokens"][0]
        tokenizer["post_processor"] = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": begin["content"], "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                                       "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                                       "special_tokens": {begin["content"]: {"id": begin["content"], "ids": [begin["id"]], "tokens": [begin["content"]]}}}
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    torch.manual_seed(1)
    config = transformers.LlamaConfig(vocab_size=340, hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
                                      max_position_embeddings=24, initializer_range=0.3, tie_word_embeddings=False, bos_token_id=0, eos_token_id=0)
    network = transformers.LlamaForCausalLM(config).float().eval()
    network.save_pretrained(folder)

    lines = lambda items: "".join(json.dumps(i) + "\n" for i in items)
    (folder / "lambada_openai.jsonl").write_text(lines({"context": text(3, 9) + draw.choice(["", "", "\n", ","]), "continuation": draw.choice(WORDS)} for _ in range(40)))
    for name, choices, end in (("arc_easy", 4, ""), ("piqa", 2, "\n")):
        items = [{"query": "Question: " + text(2, 6) + end, "choices": [text(1, 5) for _ in range(choices)], "gold": draw.randrange(choices)} for _ in range(40)]
        (folder / (name + ".jsonl")).write_text(lines(items))
    # Some are longer than the model's context.
    (folder / "hellaswag_val_full.txt").write_text("".join("\n".join(["Sea: " + text(2, 14), str(draw.randrange(4)), *(text(1, 9) for _ in range(4))]) + "\n" for _ in range(40)))
    return folder, network, tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))


def prompt(task, document):
    """The harness's prompts, written out."""
    if task == "lambada":
        words = document["text"].split(" ")
        return " ".join(words[:-1]), [words[-1]], 0
    if task == "arc_easy":
        return f"Question: {document['question']}\nAnswer:", document["choices"]["text"], document["choices"]["label"].index(document["answerKey"])
    if task == "piqa":
        return f"Question: {document['goal']}\nAnswer:", [document["sol1"], document["sol2"]], document["label"]
    return document["query"], document["choices"], int(document["label"])


def log_likelihood(network, tokenizer, context, continuation):
    """Summed over the continuation's tokens, and whether each was the most likely one; no batch, no cache."""
    stripped = context.rstrip()
    before = tokenizer.encode(stripped).ids
    after = tokenizer.encode(context + continuation).ids[len(before):]
    read = (before + after)[-(network.config.max_position_embeddings + 1):][:-1]
    with torch.no_grad():
        rows = torch.log_softmax(network(torch.tensor([read])).logits[0].double(), -1)[-len(after):]
    return sum(row[i].item() for row, i in zip(rows, after)), all(row.argmax() == i for row, i in zip(rows, after)), len(before) + len(after)


def test_log_likelihoods_are_those_of_transformers(model):
    folder, network, tokenizer = model
    ours = beside.ours(FATHOM, folder, folder, list(beside.FILES), 0, 2)
    cut = 0
    for task, file in beside.FILES.items():
        right, by_length, sums, longer = [], [], [], 0
        for document, found in zip(beside.documents(task, folder / file), ours[task]["results"], strict=True):
            context, choices, answer = prompt(task, document)
            scores = [log_likelihood(network, tokenizer, context, " " + c) for c in choices]
            assert found["log_likelihood"] == pytest.approx([s[0] for s in scores], abs=2e-3), (task, document)
            longer += any(s[2] > network.config.max_position_embeddings + 1 for s in scores)
            sums.append(scores[0][0])
            if task == "lambada":
                right.append(scores[0][1])
                continue
            values = torch.tensor([s[0] for s in scores], dtype=torch.float64)
            per = values / torch.tensor([len(c) for c in choices], dtype=torch.float64)
            for values, verdicts, key in ((values, right, "right"), (per, by_length, "right_by_length")):
                verdicts.append(int(values.argmax()) == answer)
                first, second = values.sort(descending=True).values[:2].tolist()
                if first - second > 2e-3:  # else it may fall either way
                    assert found[key] == verdicts[-1], (task, document)
        assert ours[task]["accuracy"]["value"] == pytest.approx(sum(right) / 40, abs=0.5 / 40)
        assert ours[task]["cut_items"] == longer
        if task == "lambada":
            assert ours[task]["perplexity"]["value"] == pytest.approx(torch.tensor(sums).mean().neg().exp().item(), rel=1e-3)
        else:
            assert ours[task]["accuracy_by_length"]["value"] == pytest.approx(sum(by_length) / 40, abs=0.5 / 40)
        cut += longer
    assert cut > 5


def test_beside_what_the_harness_said(tmp_path):
    """The first items of what is stored in bench/quality/lm_eval_tasks.json; FATHOM_TASK_ITEMS=200 for all of it."""
    limit = int(os.environ.get("FATHOM_TASK_ITEMS", "24"))
    if not SMOLLM2.exists() or not DATA.exists():
        pytest.skip("scripts/get-smollm2 did not run, or there are no task files")
    stored = json.loads((ROOT / "bench/quality/lm_eval_tasks.json").read_text())["tasks"]
    folder = tmp_path / "f32"
    run(FATHOM, "quantize", SMOLLM2, folder, "--type", "f32", "--quiet")
    assert beside.unpacked(DATA, tmp_path) == list(beside.FILES) == list(stored)
    ours = beside.ours(FATHOM, folder, tmp_path, list(stored), limit, 2)
    for task, theirs in stored.items():
        assert len(theirs["right"]) == 200 and len(ours[task]["results"]) == limit
        flips, worst = beside.differences(ours[task], {k: theirs[k][:limit] for k in ("log_likelihoods", "right", "right_by_length")})
        assert not flips and worst < 0.01, (task, flips, worst)
        assert round(ours[task]["accuracy"]["value"] * limit) == sum(theirs["right"][:limit])


def test_beside_the_harness_itself(tmp_path):
    pytest.importorskip("lm_eval")
    if not SMOLLM2.exists() or not DATA.exists():
        pytest.skip("scripts/get-smollm2 did not run, or there are no task files")
    folder, limit = tmp_path / "f32", 12
    run(FATHOM, "quantize", SMOLLM2, folder, "--type", "f32", "--quiet")
    tasks = beside.unpacked(DATA, tmp_path)
    assert tasks == list(beside.FILES)
    ours = beside.ours(FATHOM, folder, tmp_path, tasks, limit, 2)
    theirs = beside.harness(*beside.with_transformers(folder), tmp_path, tasks, limit, 4, tmp_path)
    for task in tasks:
        a, b = ours[task], theirs[task]
        flips, worst = beside.differences(a, b)
        assert not flips and worst < 0.01, (task, flips)
        assert a["accuracy"]["value"] == pytest.approx(b["metrics"]["acc,none"])
        assert a["accuracy"]["standard_error"] == pytest.approx(b["metrics"]["acc_stderr,none"])
        if task == "lambada":
            assert a["perplexity"]["value"] == pytest.approx(b["metrics"]["perplexity,none"], rel=1e-3)
        else:
            assert a["accuracy_by_length"]["value"] == pytest.approx(b["metrics"]["acc_norm,none"])
