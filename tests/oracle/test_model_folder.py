"""Model folders against transformers: what we write loads there unchanged, what it saves opens with us."""
import json
import os
import pathlib
import subprocess
import warnings

import numpy as np
import pytest
import torch
import transformers

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("FATHOM_BUILD", ROOT / "build"))
TOOL = BUILD / "tests" / "tools" / "model_tool"

pytestmark = pytest.mark.skipif(not TOOL.exists(), reason=f"{TOOL} is not built")


def tool(*words):
    return subprocess.run([TOOL, *map(str, words)], capture_output=True, text=True, timeout=300)


def dump(folder, scratch):
    """(what model_tool says of the folder, {name: f32 array})"""
    raw = scratch / "tensors.bin"
    result = tool("dump", folder, raw)
    assert result.returncode == 0, result.stderr
    said = json.loads(result.stdout)
    values, at, tensors = np.fromfile(raw, dtype=np.float32), 0, {}
    for tensor in said["tensors"]:
        count = int(np.prod(tensor["shape"]))
        tensors[tensor["name"]] = values[at:at + count].reshape(tensor["shape"])
        at += count
    assert at == values.size
    return said, tensors


def assert_same_tensors(model, ours, tied):
    theirs = {name: value.detach().float().numpy() for name, value in model.state_dict().items()}
    assert set(theirs) == set(ours) | ({"lm_head.weight"} if tied else set())
    for name, value in ours.items():
        np.testing.assert_array_equal(theirs[name], value, err_msg=name)


# Seeds whose models are of every family, with every kind of scaled positions: test_the_seeds_cover_the_families.
SEEDS = {"F32": range(1, 13), "BF16": [13], "F16": [14]}
FAMILIES = {"llama", "qwen2", "qwen3"}


@pytest.mark.parametrize("dtype,seed", [(dtype, seed) for dtype, seeds in SEEDS.items() for seed in seeds])
def test_a_dense_folder_of_ours_loads_in_transformers(tmp_path, caplog, dtype, seed):
    folder = tmp_path / "m"
    assert tool("random", folder, seed, dtype, "dense").returncode == 0
    said, ours = dump(folder, tmp_path)
    transformers.utils.logging.enable_propagation()
    with warnings.catch_warnings(), caplog.at_level("WARNING"):
        warnings.simplefilter("error")
        model, info = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    # yarn's factor need not be the ratio of the two lengths
    assert not [r for r in caplog.records if r.levelno >= 30 and "does not match the ratio" not in r.message], caplog.text
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        assert not info.get(kind), (kind, info)
    assert model.dtype == {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}[dtype]
    assert_same_tensors(model, ours, said["config"]["tie_word_embeddings"])

    config, written = model.config, said["config"]
    for key in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
                "head_dim", "max_position_embeddings", "rms_norm_eps", "initializer_range", "tie_word_embeddings", "bos_token_id",
                "eos_token_id", "pad_token_id"):
        assert getattr(config, key) == written[key], key
    assert config.model_type == written["model_type"] and type(model).__name__ == written["architectures"][0]
    assert config.rope_parameters == written["rope_parameters"]
    np.testing.assert_allclose(said["frequencies"], model.model.rotary_emb.inv_freq.float().numpy(), rtol=3e-7)
    assert model.generation_config.eos_token_id == written["eos_token_id"]
    model(torch.tensor([[1, 2, 3]]))


def test_the_seeds_cover_the_families(tmp_path):
    families, scalings = set(), set()
    for seed in SEEDS["F32"]:
        assert tool("random", tmp_path / str(seed), seed, "F32", "dense").returncode == 0
        config = json.loads((tmp_path / str(seed) / "config.json").read_text())
        families.add((config["model_type"], config["attention_bias"], config["mlp_bias"]))
        scalings.add(config["rope_parameters"]["rope_type"])
    assert {f[0] for f in families} == FAMILIES and len(families) >= 5, families
    assert scalings == {"default", "linear", "llama3", "yarn", "longrope"}


def test_the_auto_classes_know_a_dense_folder(tmp_path):
    assert tool("random", tmp_path / "m", 7, "F32", "dense").returncode == 0
    name = json.loads((tmp_path / "m" / "config.json").read_text())["architectures"][0]
    assert isinstance(transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m"), getattr(transformers, name))


def test_a_routed_folder_is_not_run_as_a_llama(tmp_path):
    assert tool("random", tmp_path / "m", 8, "F32", "routed").returncode == 0
    assert json.loads((tmp_path / "m" / "config.json").read_text())["model_type"] == "fathom"
    with pytest.raises(Exception, match="fathom"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m")


def saved(folder, tied=False, dtype=torch.float32, shard="5GB", **more):
    torch.manual_seed(3)
    config = transformers.LlamaConfig(vocab_size=101, hidden_size=36, intermediate_size=50, num_hidden_layers=3,
                                      num_attention_heads=6, num_key_value_heads=2, rms_norm_eps=1e-5, tie_word_embeddings=tied,
                                      bos_token_id=1, eos_token_id=[2, 5], max_position_embeddings=333,
                                      rope_parameters={"rope_type": "default", "rope_theta": 12345.0}, **more)
    model = transformers.LlamaForCausalLM(config).to(dtype)
    model.save_pretrained(folder, max_shard_size=shard)
    return model


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shard", ["5GB", "20KB"])
def test_a_folder_of_transformers_opens_with_us(tmp_path, tied, dtype, shard):
    folder = tmp_path / "m"
    model = saved(folder, tied, dtype, shard)
    assert (folder / "model.safetensors.index.json").exists() == (shard == "20KB")
    said, ours = dump(folder, tmp_path)
    assert_same_tensors(model, ours, tied)
    config = said["config"]
    assert (config["hidden_size"], config["head_dim"], config["num_key_value_heads"]) == (36, 6, 2)
    assert (config["rope_theta"], config["rms_norm_eps"], config["max_position_embeddings"]) == (12345.0, 1e-5, 333)
    assert config["tie_word_embeddings"] is tied
    assert (config["bos_token_id"], config["eos_token_id"], said["eos"]) == (1, [2, 5], [2, 5])
    assert {t["dtype"] for t in said["tensors"]} == {{torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}[dtype]}


def test_the_older_form_of_config_json(tmp_path):
    folder = tmp_path / "m"
    saved(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    config["rope_scaling"] = None
    config["torch_dtype"] = config.pop("dtype")
    path.write_text(json.dumps(config))
    assert dump(folder, tmp_path)[0]["config"]["rope_theta"] == 12345.0


@pytest.mark.parametrize("more,field,found", [
    ({"hidden_act": "gelu"}, "hidden_act", '"gelu"'),
])
def test_what_we_do_not_compute_is_refused(tmp_path, more, field, found):
    saved(tmp_path / "m", **more)
    result = tool("dump", tmp_path / "m", tmp_path / "out")
    assert result.returncode == 1
    assert result.stderr.startswith(f"{tmp_path}/m/config.json: {field}: found {found}, expected ")


def test_a_scaling_that_follows_the_length_is_refused(tmp_path):
    config = transformers.LlamaConfig(vocab_size=20, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
                                      rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4})
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "m")
    result = tool("dump", tmp_path / "m", tmp_path / "out")
    assert result.returncode == 1
    assert 'rope_parameters.rope_type: found "dynamic", expected "default"' in result.stderr
