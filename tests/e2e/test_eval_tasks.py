"""`fathom eval --tasks` as a user meets it: tables, JSON, another model beside, results kept in a file, Ctrl-C."""
import json
import random
import signal
import subprocess

import pytest

WORDS = "the sea is calm tonight tide full moon lies fair upon straits coast light gleams and gone cliffs of England stand".split()


@pytest.fixture(scope="module")
def data(folder):
    """Files of all four tasks in the folder `tasks`, and one of a form of one's own."""
    draw = random.Random(7)
    text = lambda low, high: " ".join(draw.choice(WORDS) for _ in range(draw.randint(low, high)))
    (folder / "tasks").mkdir()
    lines = lambda items: "".join(json.dumps(i) + "\n" for i in items)
    write = lambda name, content: (folder / "tasks" / name).write_text(content, encoding="utf-8")
    write("lambada_openai.jsonl", lines({"context": text(5, 15), "continuation": draw.choice(WORDS)} for _ in range(30)))
    for name, choices, end in (("arc_easy", 4, ""), ("piqa", 2, "\n")):
        write(name + ".jsonl", lines({"query": "Question: " + text(3, 9) + end, "choices": [text(1, 4) for _ in range(choices)], "gold": draw.randrange(choices)} for _ in range(30)))
    write("hellaswag_val_full.txt", "".join("\n".join(["Sea: " + text(4, 12), str(draw.randrange(4)), *(text(1, 6) for _ in range(4))]) + "\n" for _ in range(30)))
    write("own.jsonl", lines({"context": text(3, 9), "choices": [text(1, 3) for _ in range(3)], "answer": 0} for _ in range(30)))
    return folder / "tasks"


ALL = ["--tasks", "lambada,arc_easy", "--tasks", "piqa,hellaswag", "--task-file", "tasks/own.jsonl", "--task-data", "tasks"]


def test_table(fathom, data):
    done = fathom("eval", "mod", *ALL, "--against", "dense", "--dial", "0.6", "--quiet")
    assert done.err == ""
    for words in ("mod (causal rule, dial 0.6", "dense (dense)", "lambada", "arc_easy, by length", "hellaswag", "own", "perplexity", "FLOPs saved", "mod − dense, paired, 95 % over items"):
        assert words in done.out, words
    assert "lambada, by length" not in done.out


def test_json(fathom, data):
    found = json.loads(fathom("eval", "mod", *ALL, "--against", "dense", "--json", "--items").out)
    model, dense = found["models"]
    assert (model["name"], model["dense"], dense["name"], dense["dense"]) == ("mod", False, "dense", True)
    assert [t["task"] for t in model["tasks"]] == ["lambada", "arc_easy", "piqa", "hellaswag", "own"]
    for here, there, difference in zip(model["tasks"], dense["tasks"], found["model_minus_other"]):
        assert here["items"] == len(here["results"]) == 30 and here["hash"] == there["hash"] and here["dial"] == 0.7
        assert here["block_fraction"] < here["total_fraction"] < 1 == there["block_fraction"] == there["total_fraction"]
        for key, right in (("accuracy", "right"), ("accuracy_by_length", "right_by_length")):
            if key not in here:
                assert here["task"] == "lambada" and here["perplexity"]["value"] > 1
                continue
            a, b = [r[right] for r in here["results"]], [r[right] for r in there["results"]]
            share = sum(a) / 30
            assert here[key]["value"] == pytest.approx(share)
            assert here[key]["standard_error"] == pytest.approx((share * (1 - share) / 29) ** 0.5)
            assert difference[key]["value"] == pytest.approx((sum(a) - sum(b)) / 30)
            assert difference[key]["right_only_in_model"] == sum(x and not y for x, y in zip(a, b))
            assert difference[key]["right_only_in_other"] == sum(y and not x for x, y in zip(a, b))
    bare = json.loads(fathom("eval", "mod", *ALL, "--json").out)
    assert "model_minus_other" not in bare and "results" not in bare["models"][0]["tasks"][0]
    assert [t["accuracy"] for t in bare["models"][0]["tasks"]] == [t["accuracy"] for t in model["tasks"]]


def results(fathom, *words):
    return [t["results"] for t in json.loads(fathom("eval", "mod", *ALL, "--json", "--items", *words).out)["models"][0]["tasks"]]


def test_a_limit_takes_the_first_items_and_threads_change_nothing(fathom, data):
    whole = results(fathom, "--threads", "1")
    assert results(fathom, "--threads", "3") == whole
    assert results(fathom, "--limit", "7") == [r[:7] for r in whole]
    assert results(fathom, "--limit", "1k", "--kv-memory", "1M") == whole


def test_results_are_kept_and_gone_on_from(fathom, folder, data):
    whole = results(fathom, "--resume", "kept.jsonl")
    lines = (folder / "kept.jsonl").read_text().splitlines(keepends=True)
    assert len(lines) == 1 + 5 * 30
    (folder / "kept.jsonl").write_text("".join(lines[:50]) + lines[50][:20])
    assert results(fathom, "--resume", "kept.jsonl") == whole
    assert sorted((folder / "kept.jsonl").read_text().splitlines(keepends=True)) == sorted(lines)
    again = json.loads(fathom("eval", "mod", *ALL, "--json", "--resume", "kept.jsonl").out)["models"][0]["tasks"]
    assert [t["items_read"] for t in again] == [0] * 5
    assert "–" in fathom("eval", "mod", *ALL, "--resume", "kept.jsonl").out  # no items, no rate
    for words, place in ((["mod", *ALL, "--dial", "0.6"], "subjects[0].dial"), (["dense", *ALL], "subjects[0]."), (["mod", *ALL[2:]], "tasks"), (["mod", *ALL, "--against", "dense"], "subjects")):
        assert f"kept.jsonl: {place}" in fathom("eval", *words, "--resume", "kept.jsonl", code=1).err, words


def test_ctrl_c_keeps_what_is_done(fathom, folder, data):
    (folder / "tasks/many.jsonl").write_text((folder / "tasks/own.jsonl").read_text() * 400)
    words = ["eval", "mod", "--task-file", "tasks/many.jsonl", "--threads", "1", "--resume", "many-kept.jsonl"]
    process = subprocess.Popen([fathom.path, *words], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stderr.read(20)  # the first items are done
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and out == b"" and b"results are in many-kept.jsonl: the same command goes on" in err
    kept = len((folder / "many-kept.jsonl").read_text().splitlines()) - 1
    assert 0 < kept < 12000
    assert b"with --resume FILE results would have been kept" in interrupted(fathom, folder, words[:-2])
    done = json.loads(fathom(*words, "--json", "--limit", kept + 20).out)["models"][0]["tasks"][0]
    assert done["items"] == kept + 20 and done["items_read"] <= 20 + kept


def interrupted(fathom, folder, words):
    process = subprocess.Popen([fathom.path, *words], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stderr.read(20)
    process.send_signal(signal.SIGINT)
    return process.communicate(timeout=60)[1]


def test_a_model_is_told_of_items_that_it_cannot_read_whole(fathom, folder, data):
    long = {"context": "the sea is calm tonight " * 60, "choices": ["full", "gone"], "answer": 1}
    (folder / "tasks/long.jsonl").write_text(json.dumps(long) + "\n")
    done = fathom("eval", "mod", "--task-file", "tasks/long.jsonl", "--json")
    assert "long: 1 item is longer than the context of mod, 128 tokens: their beginnings are left out" in done.err
    assert json.loads(done.out)["models"][0]["tasks"][0]["cut_items"] == 1
    (folder / "tasks/long.jsonl").write_text(json.dumps(long | {"choices": ["full", "gone " * 200]}) + "\n")
    assert "tasks/long.jsonl: item 1: choice 1: found " in fathom("eval", "mod", "--task-file", "tasks/long.jsonl", code=1).err
    assert "a second task own" in fathom("eval", "mod", "--task-file", "tasks/own.jsonl", "--task-file", "tasks/own.jsonl", code=1).err
