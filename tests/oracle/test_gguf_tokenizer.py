"""Tokenizers from GGUF metadata, as a GGUF file of SmolLM2 has it and as llama.cpp's converter would write it for others: ids equal to
the `tokenizers` package's (the model's own tokenizer, built without our code) and to the sentencepiece package's."""
import json
import os
import pathlib
import random
import subprocess

import pytest

tokenizers = pytest.importorskip("tokenizers")
from test_tokenizer import CORPORA, DATA, build_gpt2, build_qwen3, corpus_head, needs_data  # noqa: E402
from tokenizer_pair import BUILD, ROOT, TRAPS, Tool, compare, random_texts  # noqa: E402
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers  # noqa: E402

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)


def convert(folder, metadata):
    """Our tokenizer.json of the metadata, and its (bos, eos)."""
    (folder / "metadata.json").write_text(json.dumps(metadata))
    run = subprocess.run([str(BUILD / "tests" / "vocabulary_tool"), str(folder / "metadata.json"), str(folder / "tokenizer.json")], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return folder / "tokenizer.json", tuple(map(int, run.stdout.split()))


# ---- Metadata: of a file, and as the converter writes it

def smollm2_file():
    for path in (ROOT / "models").glob("SmolLM2-135M-Instruct.*.gguf"):
        return path
    pytest.skip("scripts/get-smollm2 did not run")


def file_metadata(path):
    gguf = pytest.importorskip("gguf")
    fields = gguf.GGUFReader(path).fields
    prefix = "tokenizer.ggml."
    return {name[len(prefix):]: fields[name].contents() for name in fields if name.startswith(prefix)}


def byte_level_metadata(theirs, pre, **more):
    """What convert_hf_to_gguf.py writes for a byte-level tokenizer.json."""
    state = json.loads(theirs.to_str())
    vocab = dict(state["model"]["vocab"])
    added = {t["content"]: t for t in state["added_tokens"]}
    vocab.update({content: t["id"] for content, t in added.items()})
    by_id = {i: token for token, i in vocab.items()}
    tokens, types = [], []
    for i in range(max(by_id) + 1):
        token = by_id.get(i)
        tokens.append(f"[PAD{i}]" if token is None else token)
        types.append(UNUSED if token is None else NORMAL if token not in added else CONTROL if added[token]["special"] else USER_DEFINED)
    merges = [m if isinstance(m, str) else " ".join(m) for m in state["model"]["merges"]]
    return {"model": "gpt2", "pre": pre, "tokens": tokens, "token_type": types, "merges": merges, **more}


def llama2_metadata(**more):
    sentencepiece = pytest.importorskip("sentencepiece")
    sp = sentencepiece.SentencePieceProcessor(model_file=str(DATA / "tokenizers" / "llama2" / "tokenizer.model"))
    n = range(sp.get_piece_size())
    kind = lambda i: UNKNOWN if sp.is_unknown(i) else CONTROL if sp.is_control(i) else BYTE if sp.is_byte(i) else UNUSED if sp.is_unused(i) else NORMAL  # noqa: E731
    return {"model": "llama", "pre": "default", "tokens": [sp.id_to_piece(i) for i in n], "scores": [sp.get_score(i) for i in n], "token_type": [kind(i) for i in n],
            "bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0, **more}, sp


# ---- The models' own tokenizers

def build_smollm2(metadata):
    """As the model's tokenizer.json has it: single digits, then GPT-2's words."""
    vocab = {token: i for i, token in enumerate(metadata["tokens"])}
    t = Tokenizer(models.BPE(vocab, [tuple(m.split(" ")) for m in metadata["merges"]]))
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    t.decoder = decoders.ByteLevel()
    t.add_special_tokens([token for token, kind in zip(metadata["tokens"], metadata["token_type"]) if kind == CONTROL])
    return t


def merges_of_scores(metadata):
    """transformers' rule; control tokens, which text must never become, take no part."""
    slow = pytest.importorskip("transformers.convert_slow_tokenizer")
    skip = {t for t, kind in zip(metadata["tokens"], metadata["token_type"]) if kind in (UNKNOWN, CONTROL, BYTE)}
    return slow.generate_merges({t: i for i, t in enumerate(metadata["tokens"])}, dict(zip(metadata["tokens"], metadata["scores"])), skip)


def build_llama2(metadata):
    """As the tokenizer.json of Meta's models."""
    vocab = {t: i for i, t in enumerate(metadata["tokens"])}
    t = Tokenizer(models.BPE(vocab, merges_of_scores(metadata), unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    t.add_special_tokens([AddedToken(name, normalized=False) for name in ("<unk>", "<s>", "</s>")])
    return t


def smollm2(folder):
    metadata = file_metadata(smollm2_file())
    return build_smollm2(metadata), metadata, (1, 2)


def qwen3(folder):
    theirs = build_qwen3(folder)
    eos = theirs.token_to_id("<|im_end|>")
    return theirs, byte_level_metadata(theirs, "qwen2", eos_token_id=eos, add_bos_token=False), (-1, eos)


def gpt2(folder):
    theirs = build_gpt2(folder)
    return theirs, byte_level_metadata(theirs, "gpt-2", bos_token_id=50256, eos_token_id=50256), (50256, 50256)


def llama2(folder):
    metadata, _ = llama2_metadata()
    return build_llama2(metadata), metadata, (1, 2)


@pytest.fixture(scope="module", params=[smollm2, qwen3, gpt2, llama2], ids=lambda f: f.__name__)
def model(request, tmp_path_factory):
    if request.param is not smollm2 and not (DATA / "tokenizers").is_dir():
        pytest.skip("no ../shared/data")
    folder = tmp_path_factory.mktemp(request.param.__name__)
    theirs, metadata, ends = request.param(folder)
    path, found = convert(folder, metadata)
    ours = Tool(path)
    yield theirs, ours, path, ends, found
    ours.close()


TEXTS = list(random_texts(3000, 21))


@pytest.mark.parametrize("corpus", CORPORA or ["none"])
def test_corpora(model, corpus):
    if not CORPORA:
        pytest.skip("no ../shared/data")
    compare(model[0], model[1], [corpus_head(corpus)])


def test_random_strings_and_traps(model):
    compare(model[0], model[1], TEXTS + TRAPS)


def test_the_file_is_one_for_the_tokenizers_package(model):
    """So that a converted model's folder is read alike by everyone."""
    theirs, ours, path, _, _ = model
    read = Tokenizer.from_file(str(path))
    compare(read, ours, TEXTS[:1000] + TRAPS)
    for text in TRAPS[:60]:
        assert ours.encode(text, special=True, allow=True) == read.encode(text).ids
    assert read.get_vocab_size() >= theirs.get_vocab_size()


def test_ends(model):
    assert model[4] == model[3]


def test_decode(model):
    theirs, ours = model[:2]
    rng = random.Random(5)
    top = theirs.get_vocab_size()
    lists = [theirs.encode(t, add_special_tokens=False).ids for t in TEXTS[:500] + TRAPS[:60]] + [[rng.randrange(top) for _ in range(30)] for _ in range(500)]
    for ids in lists:
        for skip in (True, False):
            assert ours.decode(ids, skip=skip) == theirs.decode(ids, skip_special_tokens=skip).encode(), ids


def test_smollm2_equals_transformers(tmp_path):
    """transformers' own reading of the file. It does not know the name "smollm" and takes GPT-2's words, so it gets the digits' rule from here."""
    transformers = pytest.importorskip("transformers")
    path = smollm2_file()
    try:
        theirs = transformers.AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name).backend_tokenizer
    except ImportError as e:
        pytest.skip(str(e))
    theirs.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    ours = Tool(convert(tmp_path, file_metadata(path))[0])
    compare(theirs, ours, TEXTS + TRAPS + [corpus_head(c) for c in CORPORA])
    ours.close()


@needs_data
def test_llama2_equals_sentencepiece(tmp_path):
    """SentencePiece never reads <s> in a text as the control token: so here, special tokens not allowed."""
    metadata, sp = llama2_metadata()
    ours = Tool(convert(tmp_path, metadata)[0])
    for text in [*TEXTS, *TRAPS, *(corpus_head(c) for c in CORPORA)]:
        assert ours.encode(text) == sp.encode(text), text[:200]
    ours.close()


@needs_data
@pytest.mark.parametrize("bos,eos", [(True, False), (False, False), (True, True), (False, True)])
def test_beginning_and_end(tmp_path, bos, eos):
    metadata, sp = llama2_metadata(add_bos_token=bos, add_eos_token=eos)
    path, ends = convert(tmp_path, metadata)
    ours, read = Tool(path), Tokenizer.from_file(str(path))
    assert ends == (1, 2)
    for text in ["", "Hello world", " two"]:
        expected = [1] * bos + sp.encode(text) + [2] * eos
        assert ours.encode(text, special=True) == expected == read.encode(text).ids
    ours.close()


def llama2_variant(**normalizer):
    """SentencePiece with another normalizer_spec: its flags are the last fields of the file, and a later message adds to an earlier one."""
    sentencepiece = pytest.importorskip("sentencepiece")
    number = {"add_dummy_prefix": 3, "remove_extra_whitespaces": 4}
    spec = b"".join(bytes([number[name] << 3, value]) for name, value in normalizer.items())
    model = (DATA / "tokenizers" / "llama2" / "tokenizer.model").read_bytes() + bytes([3 << 3 | 2, len(spec)]) + spec  # ModelProto.normalizer_spec = 3
    return sentencepiece.SentencePieceProcessor(model_proto=model)


@needs_data
@pytest.mark.parametrize("prefix", [True, False])
def test_space_prefix(tmp_path, prefix):
    metadata, _ = llama2_metadata(add_space_prefix=prefix)
    sp = llama2_variant(add_dummy_prefix=prefix)
    ours = Tool(convert(tmp_path, metadata)[0])
    for text in TEXTS[:500] + TRAPS:
        assert ours.encode(text) == sp.encode(text), text[:200]
    for text in ["Hello", " Hello", "  a", "\n", "é"]:
        assert ours.decode(ours.encode(text)) == text.encode()
    ours.close()


@needs_data
def test_extra_white_space(tmp_path):
    metadata, _ = llama2_metadata(remove_extra_whitespaces=True)
    sp = llama2_variant(remove_extra_whitespaces=True)
    ours = Tool(convert(tmp_path, metadata)[0])
    for text in ["a", " a", "a ", "  a   b  ", "", " ", "   ", "\n a \n", "a\n\n  b", "é  é"]:
        assert ours.encode(text) == sp.encode(text), repr(text)
    ours.close()


# ---- Every pre-tokenizer, on a vocabulary whose merges know no words: a wrong cut shows

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
QWEN35 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEKKEN = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
          r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK3 = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""


def cut(*regexes):
    return [*(pre_tokenizers.Split(Regex(r), "isolated") for r in regexes), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]


BYTE_WORDS = pre_tokenizers.ByteLevel(add_prefix_space=False)
DIGITS = [pre_tokenizers.Digits(individual_digits=True), BYTE_WORDS]
DEFAULT = cut(r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]")
PRE = {
    "": DEFAULT, "default": DEFAULT, "gpt-2": [BYTE_WORDS], "phi-2": [BYTE_WORDS], "mpt": [BYTE_WORDS], "olmo": [BYTE_WORDS],
    "smollm": DIGITS, "starcoder": DIGITS, "refact": DIGITS, "codeshell": DIGITS,
    **{name: cut(LLAMA3) for name in ["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "smaug-bpe", "dbrx"]},
    "qwen2": cut(QWEN2), "qwen35": cut(QWEN35), "deepseek-r1-qwen": cut(QWEN2), "megrez": cut(QWEN2), "tekken": cut(TEKKEN), "gpt-4o": cut(O200K), "llama4": cut(O200K),
    # Its first rule is Punctuation, whose table in the package is older than that of the regular expressions.
    "falcon": [pre_tokenizers.Split(Regex(r"[!-/:-@\[-`{-~\p{P}]+"), "isolated"), BYTE_WORDS, pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated")],
    "deepseek-coder": [*(pre_tokenizers.Split(Regex(r), "isolated") for r in ["[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-\ud7ff]+"]),
                       pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)],
    "deepseek-v3": cut(r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK3),
}
IGNORE_MERGES = {"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "tekken"}
NFC = {"qwen2", "qwen35"}


@pytest.fixture(scope="module")
def wordless():
    """Merges across anything, learnt from texts like those of the test."""
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    lines = [" ".join(random_texts(3, seed)) for seed in range(1500)]
    lines += ["don't stop; it's 1234567 words, CamelCase XMLHttp\r\n\r\n  1st\t\t2nd 'RE' $3.50 <<a|b>> über Straße 你好 世界 テスト 안녕\n"] * 300
    t.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=3000, min_frequency=2, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return t


@pytest.mark.parametrize("pre", PRE)
def test_pre_tokenizers(wordless, tmp_path, pre):
    state = json.loads(wordless.to_str())
    theirs = Tokenizer(models.BPE(state["model"]["vocab"], [tuple(m) for m in state["model"]["merges"]], ignore_merges=pre in IGNORE_MERGES))
    theirs.pre_tokenizer = pre_tokenizers.Sequence(PRE[pre])
    if pre in NFC:
        theirs.normalizer = normalizers.NFC()
    theirs.add_tokens([AddedToken("<think>", special=False, normalized=False)])
    theirs.add_special_tokens(["<|endoftext|>", "<|im_end|>"])
    metadata = byte_level_metadata(theirs, pre)
    if pre == "":
        del metadata["pre"]
    path, ends = convert(tmp_path, metadata)
    assert ends == (-1, -1)  # the metadata names none, whatever the tokens are called
    ours = Tool(path)
    compare(theirs, ours, TEXTS + TRAPS)
    ours.close()


def test_the_patterns_are_those_of_transformers():
    mapping = pytest.importorskip("transformers.integrations.gguf.gguf_tokenizer_mapping")
    mine = {"llama3": LLAMA3, "qwen2": QWEN2, "qwen35": QWEN35, "tekken": TEKKEN, "gpt-4o": O200K}
    assert {name: mapping.GGUF_PRE_TOKENIZER_SPLITS[name] for name in mine} == mine


@needs_data
def test_merges_of_scores_are_those_of_transformers(tmp_path):
    metadata, _ = llama2_metadata()
    path, _ = convert(tmp_path, metadata)
    assert [tuple(m) for m in json.loads(path.read_text())["model"]["merges"]] == merges_of_scores(metadata)
