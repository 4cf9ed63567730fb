"""What begins and ends a document is the model's: its config.json says what stood around the documents that it was trained on."""
import json
import shutil

import pytest


@pytest.fixture(scope="module")
def ends(fathom, folder):
    """The tokenizer of every other test with a token that begins a text, and models that were trained with and without the two."""
    tokenizer = json.loads((folder / "tok.json").read_text())
    begin = max(tokenizer["model"]["vocab"].values())
    tokenizer["added_tokens"].append({"id": begin, "content": next(w for w, i in tokenizer["model"]["vocab"].items() if i == begin), "special": True, "normalized": False})
    end = next(t["id"] for t in tokenizer["added_tokens"] if t["content"] == "<|endoftext|>")
    token = {"SpecialToken": {"id": "begin", "type_id": 0}}
    tokenizer["post_processor"] = {"type": "TemplateProcessing", "single": [token, {"Sequence": {"id": "A", "type_id": 0}}], "pair": [],
                                   "special_tokens": {"begin": {"id": "begin", "ids": [begin], "tokens": ["begin"]}}}
    for name, ids in (("with-both", {"bos_token_id": begin, "eos_token_id": end}), ("with-none", {"bos_token_id": None, "eos_token_id": None}),
                      ("with-end", {"bos_token_id": None, "eos_token_id": end})):
        shutil.copytree(folder / "mod", folder / name)
        (folder / name / "tokenizer.json").write_text(json.dumps(tokenizer))
        config = json.loads((folder / name / "config.json").read_text())
        (folder / name / "config.json").write_text(json.dumps({**config, **ids}))
        generation = folder / name / "generation_config.json"
        if generation.exists():
            generation.unlink()
    # It names a begin token, which its tokenizer puts before no text.
    shutil.copytree(folder / "with-both", folder / "with-unused")
    (folder / "with-unused" / "tokenizer_config.json").write_text(json.dumps({"add_bos_token": False}))
    return {"begin": begin, "end": end}


def test_generate_begins_as_the_model_learned_it(fathom, ends):
    def prompt_tokens(model, *more):
        return json.loads(fathom("generate", model, "--prompt", "The sea", "--max-tokens", "3", "--json", *more).out)["prompt_tokens"]
    bare = prompt_tokens("with-both", "--no-bos")
    assert prompt_tokens("with-both") == bare + 1
    assert prompt_tokens("with-none") == prompt_tokens("with-none", "--bos") == prompt_tokens("with-end") == prompt_tokens("with-unused") == bare
    # A text from nothing begins with what stood before the documents: the begin token, or the end of the one before.
    for model in ("with-both", "with-end"):
        assert json.loads(fathom("generate", model, "--max-tokens", "1", "--json").out)["prompt_tokens"] == 1
    assert "--prompt: found no token, expected a text of at least one token; this model has no token that begins a text" in fathom("generate", "with-none", code=2).err


def test_eval_puts_around_documents_what_training_did(fathom, folder, ends):
    (folder / "one.txt").write_text("The sea is calm tonight.")
    plain = int(fathom("tokenizer", "encode", "with-none", "--file", "one.txt", "--count").out)
    for model, more in (("with-none", 0), ("with-end", 1), ("with-unused", 1), ("with-both", 2)):
        found = json.loads(fathom("eval", model, "--data", "one.txt", "--json", "--quiet", "--no-teacher").out)
        assert found["model"]["tokens"] == plain + more - 1, model  # the first token is not predicted
        depths = json.loads(fathom("depthmap", model, "--data", "one.txt", "--out", "ends.html", "--json", "--quiet").out)
        assert depths["tokens"] == plain + more, model


def test_a_folder_says_in_one_word_whether_it_begins(fathom, folder, ends):
    settings = folder / "with-both" / "tokenizer_config.json"
    settings.write_text('{"add_bos_token": "yes"}')
    said = fathom("generate", "with-both", "--prompt", "The sea", code=1).err
    settings.unlink()
    assert "tokenizer_config.json: add_bos_token: found string, expected true or false" in said


def test_a_twin_of_other_ends_is_named(fathom, folder, ends):
    (folder / "one.txt").write_text("The sea is calm tonight.")
    warning = "with-both was trained with other begin or end tokens around documents than with-end, whose are used"
    for words in (["eval", "with-end", "--twin", "with-both", "--no-teacher"], ["report", "with-end", "with-both", "--sample-tokens", "1", "--out", "ends.html"]):
        done = fathom(*words, "--data", "one.txt")
        assert warning in done.err
    assert warning not in fathom("eval", "with-end", "--twin", "with-end", "--no-teacher", "--data", "one.txt").err


def test_samples_of_a_report_begin_as_the_model_learned_it(fathom, folder, ends):
    (folder / "one.txt").write_text("The sea is calm tonight. " * 20)
    for model, begins in (("with-both", True), ("with-none", False)):
        fathom("report", model, "--data", "one.txt", "--prompt", "The sea", "--sample-tokens", "1", "--out", f"{model}.html", "--quiet")
        page = (folder / f"{model}.html").read_text()
        sample = page[page.index("Text, coloured by depth"):page.index("A passage, token by token")]
        assert (f'>{spelled(fathom, model, ends["begin"])}<' in sample) == begins


def spelled(fathom, model, token):
    return fathom("tokenizer", "decode", model, token, "--keep-special", "--no-newline").out
