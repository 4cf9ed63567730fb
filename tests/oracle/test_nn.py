"""The C++ network against the plain PyTorch oracle (mod_oracle.py) and against transformers: logits, losses, all
gradients and ten training losses, for every gate, causal rule, kv policy and selection."""
import itertools
import json
import os
import pathlib
import random
import subprocess

import pytest
import torch
from safetensors.torch import load_file, save_file

import mod_oracle

torch.set_num_threads(1)  # thousands of tiny products: threads only get in their way

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOL = pathlib.Path(os.environ.get("FATHOM_BUILD", ROOT / "build" / "release")) / "tests" / "nn_tool"

# The one table of tolerances: largest difference over largest magnitude of the oracle's tensor (f64), per type.
# f32 sums of a few hundred terms through six blocks lose two digits; ten steps of AdamW amplify a little more, since a
# gradient near zero still moves its parameter by a whole learning rate.
TOLERANCE = {
    "f64": {"logits": 1e-11, "loss": 1e-12, "nll": 1e-11, "grad": 1e-10, "aux": 1e-12, "score": 1e-11, "train": 1e-9},
    "f32": {"logits": 2e-5, "loss": 2e-6, "nll": 2e-5, "grad": 1e-4, "aux": 1e-5, "score": 2e-5, "train": 2e-4},
    # bf16 keeps 8 bits; the residual stream and every sum are f32. Here the differences are of norms.
    "bf16": {"logits": 3e-2, "loss": 1e-2, "nll": 3e-2, "grad": 1e-1, "aux": 2e-2, "score": 3e-2},
}

pytestmark = pytest.mark.skipif(not TOOL.exists(), reason="nn_tool is not built (FATHOM_TRAIN=OFF)")


def config_of(rng, gate="one_plus_tanh", rule="score", kv="drop", selection="topk", dense=False, **more):
    heads = rng.choice([2, 3, 4, 6])
    config = {
        "model_type": "llama" if dense else "fathom", "hidden_act": "silu",
        "vocab_size": rng.randrange(17, 60), "hidden_size": rng.choice([10, 24, 37]), "intermediate_size": rng.choice([13, 40, 65]),
        "num_hidden_layers": rng.randrange(2, 5), "num_attention_heads": heads,
        "num_key_value_heads": rng.choice([g for g in range(1, heads + 1) if heads % g == 0]), "head_dim": rng.choice([4, 6, 16, 18]),
        "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": rng.choice([10000.0, 500.0]),
        "tie_word_embeddings": rng.random() < 0.5,
    }
    own = random.Random(str(config))  # of its own: what is drawn besides stays what it was
    config |= {"attention_bias": own.random() < 0.4, "mlp_bias": own.random() < 0.4}
    if not dense:
        config |= {"attention_output_bias": own.random() < 0.4, "qk_norm": own.random() < 0.4}
    config.update(more)
    if not dense:
        layers = config["num_hidden_layers"]
        blocks = sorted(rng.sample(range(layers), rng.randrange(1, layers + 1)))
        config["fathom"] = {
            "version": 1, "routed_blocks": blocks, "capacity": [rng.choice([0.125, 0.3, 0.5, 1.0]) for _ in blocks], "gate": gate,
            "gate_scale": rng.choice([0.2, 0.5]), "rule": rule, "selection": selection, "kv": kv,
            "router_input": rng.choice(["hidden", "normed"]), "router_bias": rng.random() < 0.5,
            "forced_positions": rng.choice([0, 0, 2]), "random_seed": rng.randrange(1000),
        }
    return config


def schema(config):
    C, F, V = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    HD, GD = config["num_attention_heads"] * config["head_dim"], config["num_key_value_heads"] * config["head_dim"]
    routing, family = config.get("fathom", {"routed_blocks": []}), config["model_type"]
    biased = ["self_attn." + n for n in "qkv" if config["attention_bias"] or family == "qwen2"]
    biased += ["self_attn.o"] if family != "qwen2" and config.get("attention_output_bias", config["attention_bias"]) else []
    biased += ["mlp." + n for n in ("gate", "up", "down") if config["mlp_bias"]]
    out = {"model.embed_tokens.weight": (V, C), "model.norm.weight": (C,)}
    for layer in range(config["num_hidden_layers"]):
        p = f"model.layers.{layer}."
        out |= {p + "input_layernorm.weight": (C,), p + "post_attention_layernorm.weight": (C,),
                p + "self_attn.q_proj.weight": (HD, C), p + "self_attn.k_proj.weight": (GD, C), p + "self_attn.v_proj.weight": (GD, C),
                p + "self_attn.o_proj.weight": (C, HD), p + "mlp.gate_proj.weight": (F, C), p + "mlp.up_proj.weight": (F, C),
                p + "mlp.down_proj.weight": (C, F)}
        out |= {p + name + "_proj.bias": out[p + name + "_proj.weight"][:1] for name in biased}
        if config.get("qk_norm", family == "qwen3"):
            out |= {p + f"self_attn.{n}_norm.weight": (config["head_dim"],) for n in "qk"}
        if layer in routing["routed_blocks"]:
            out[p + "router.weight"] = (1, C)
            if routing["router_bias"]:
                out[p + "router.bias"] = (1,)
            if routing["rule"] == "predictor":
                P = max(C // 2, 1)
                out |= {p + "predictor.fc1.weight": (P, C), p + "predictor.fc1.bias": (P,), p + "predictor.fc2.weight": (1, P), p + "predictor.fc2.bias": (1,)}
    if not config["tie_word_embeddings"]:
        out["lm_head.weight"] = (V, C)
    return out


def parameters(config, generator):
    out = {}
    for name, shape in schema(config).items():
        values = torch.randn(shape, generator=generator, dtype=torch.float64)
        if name.endswith("norm.weight"):
            values = 1 + 0.2 * values
        elif len(shape) == 2:
            values = values / shape[1] ** 0.5
        out[name] = values.float().double()  # what f32 holds, so that both types start from the same numbers
    out["model.embed_tokens.weight"] = out["model.embed_tokens.weight"] * 2
    return out


def batch(config, generator, rng, steps=None):
    B, T = rng.randrange(1, 4), rng.choice([5, 17, 40])
    shape = (B, T) if steps is None else (steps, B, T)
    tokens = torch.randint(0, config["vocab_size"], shape, generator=generator)
    targets = torch.randint(0, config["vocab_size"], shape, generator=generator)
    targets[torch.rand(shape, generator=generator) < 0.1] = -100
    out = {"tokens": tokens, "targets": targets}
    if rng.random() < 0.5:
        start = torch.zeros(B, T, dtype=torch.int32)
        for b in range(B):
            for cut in sorted(rng.sample(range(1, T), min(2, T - 1))):
                start[b, cut:] = cut
        out["document_start"] = start
    if rng.random() < 0.5:
        lengths = torch.tensor([rng.randrange(max(1, T // 2), T + 1) for _ in range(B)])
        out["lengths"] = lengths
        for b in range(B):
            targets[..., b, lengths[b]:] = -100
    return out


def run_tool(folder, cases):
    """cases: list of (json, tensors); returns the output tensors of each."""
    listing = []
    for i, (case, tensors) in enumerate(cases):
        save_file({k: v.contiguous() for k, v in tensors.items()}, folder / f"in{i}.safetensors")
        listing.append(case | {"in": str(folder / f"in{i}.safetensors"), "out": str(folder / f"out{i}.safetensors")})
    (folder / "cases.json").write_text(json.dumps(listing))
    subprocess.run([TOOL, folder / "cases.json"], check=True, timeout=600)
    return [load_file(folder / f"out{i}.safetensors") for i in range(len(cases))]


def error(found, expected, by_norm=False):
    if expected.numel() == 0:
        return 0.0
    if by_norm:
        return float((found - expected).norm() / expected.norm().clamp_min(1e-3))
    return float((found.double() - expected).abs().max() / expected.abs().max().clamp_min(1e-3))


def total_of(found, aux):
    return found["loss"] + sum(w * found["aux"][n] for n, w in aux.items())


def oracle_run(config, params, data, options, aux):
    leaves = {k: v.clone().requires_grad_(True) for k, v in params.items()}
    found = mod_oracle.forward(config, leaves, data["tokens"], data["targets"], data.get("document_start"), data.get("lengths"),
                               aux=tuple(aux), **options)
    total = total_of(found, aux)
    total.backward()
    found["total"] = total
    found["grad"] = {k: v.grad if v.grad is not None else torch.zeros_like(v) for k, v in leaves.items()}
    return found


def compare(label, found, expected, table, by_norm=False):
    checks = [("logits", "logits"), ("loss", "loss"), ("total", "loss"), ("nll", "nll")]
    for name, kind in checks:
        e = error(found[name], expected[name].detach(), by_norm)
        assert e <= table[kind], f"{label}: {name} differs by {e:.2e}"
    for name, value in expected["aux"].items():
        e = error(found["aux." + name], value.detach())
        assert e <= table["aux"], f"{label}: {name} differs by {e:.2e}"
    for r in range(len(expected["raw"])):
        for name in ("raw", "decision"):
            e = error(found[f"{name}.{r}"], expected[name][r].detach(), by_norm)
            assert e <= table["score"], f"{label}: {name} of block {r} differs by {e:.2e}"
        assert torch.equal(found[f"selected.{r}"].bool(), expected["selected"][r]), f"{label}: selection of block {r}"
    largest = max((float(g.norm()) for g in expected["grad"].values()), default=0.0)
    for name, g in expected["grad"].items():
        if by_norm:
            e = float((found["grad." + name] - g).norm() / g.norm().clamp_min(1e-2 * largest))
        else:
            e = error(found["grad." + name], g) if g.abs().max() > 1e-3 else float((found["grad." + name] - g).abs().max())
        assert e <= table["grad"], f"{label}: gradient of {name} differs by {e:.2e}"


GATES = ["one_plus_tanh", "sigmoid", "raw", "hard"]
RULES = ["score", "predictor", "router_bce"]
SELECTIONS = ["topk", "threshold", "random"]


def make_case(index, gate, rule, kv, selection, **more):
    rng, generator = random.Random(index), torch.Generator().manual_seed(index)
    config = config_of(rng, gate, rule, kv, selection, **more)
    params, data = parameters(config, generator), batch(config, generator, rng)
    n = len(config["fathom"]["routed_blocks"])
    options = {"pick": selection, "tau": rng.choice([1.0, 0.7])}
    if selection == "threshold":
        options["thresholds"] = [rng.choice([-0.5, 0.2, 0.8]) for _ in range(n)]
        options["thresholds"] = torch.tensor(options["thresholds"]).tolist()  # f32 values
    if rng.random() < 0.3:
        options["capacity"] = [rng.choice([0.2, 0.6, 1.0]) for _ in range(n)]
    aux = {name: rng.choice([0.01, 0.5]) for name in ("predictor_bce", "router_bce", "router_z")
           if (name == "predictor_bce") == (rule == "predictor") and rng.random() < 0.7}
    return config, params, data, options, aux


def as_json(config, options, aux, dtype, compute="f32"):
    return {"config": config, "dtype": dtype, "compute": compute, "aux": aux} | options


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("rule", RULES)
def test_logits_losses_and_all_gradients(tmp_path, gate, rule):
    cases, expected = [], []
    for i, (kv, selection) in enumerate(itertools.product(["drop", "keep"], SELECTIONS)):
        config, params, data, options, aux = make_case(1000 * GATES.index(gate) + 100 * RULES.index(rule) + i, gate, rule, kv, selection)
        want = oracle_run(config, params, data, options, aux)
        # f64 finds the same tokens by itself; f32 is given them, since a score may lie on the border.
        cases.append((as_json(config, options, aux, "f64"), params | data))
        imposed = {f"imposed.{r}": s for r, s in enumerate(want["selected"])}
        for compute in ("f32", "bf16"):
            cases.append((as_json(config, options | {"pick": "imposed"}, aux, "f32", compute), {k: v.float() for k, v in params.items()} | data | imposed))
        expected += [(f"{kv} {selection} f64", want, "f64"), (f"{kv} {selection} f32", want, "f32"), (f"{kv} {selection} bf16", want, "bf16")]
    for found, (label, want, dtype) in zip(run_tool(tmp_path, cases), expected):
        compare(f"{gate} {rule} {label}", found, want, TOLERANCE[dtype], by_norm=dtype == "bf16")


@pytest.mark.parametrize("rule", RULES)
def test_causal_rule_in_evaluation(tmp_path, rule):
    cases, expected = [], []
    for i, (gate, kv) in enumerate(itertools.product(GATES, ["drop", "keep"])):
        config, params, data, options, aux = make_case(9000 + 100 * RULES.index(rule) + i, gate, rule, kv, "topk")
        n = len(config["fathom"]["routed_blocks"])
        options = {"pick": "causal", "tau": 1.0, "thresholds": torch.tensor([0.1, -0.4, float("-inf"), 0.6, float("inf")][i % 3:][:n] + [0.3] * n)[:n].tolist()}
        want = oracle_run(config, params, data, options, {})
        finite = [max(-1e30, min(1e30, t)) for t in options["thresholds"]]
        cases.append((as_json(config, options | {"thresholds": finite}, {}, "f64"), params | data))
        expected.append((f"{gate} {kv}", want))
    for found, (label, want) in zip(run_tool(tmp_path, cases), expected):
        compare(f"causal {rule} {label}", found, want, TOLERANCE["f64"])


ADAM = {"lr": 3e-3, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "decay": 0.1, "clip": 1.0}


def adamw_losses(config, params, data, options, aux, steps):
    leaves = {k: v.clone().requires_grad_(True) for k, v in params.items()}
    groups = [{"params": [v for v in leaves.values() if v.dim() < 2], "weight_decay": 0.0},
              {"params": [v for v in leaves.values() if v.dim() == 2], "weight_decay": ADAM["decay"]}]
    optimizer = torch.optim.AdamW(groups, lr=ADAM["lr"], betas=(ADAM["beta1"], ADAM["beta2"]), eps=ADAM["eps"])
    losses = []
    for s in range(steps):
        found = mod_oracle.forward(config, leaves, data["tokens"][s], data["targets"][s], data.get("document_start"), data.get("lengths"),
                                   aux=tuple(aux), **options)
        total = total_of(found, aux)
        optimizer.zero_grad(set_to_none=False)
        total.backward()
        norm = sum(float((v.grad**2).sum()) for v in leaves.values() if v.grad is not None) ** 0.5
        if norm > ADAM["clip"]:
            for v in leaves.values():
                if v.grad is not None:
                    v.grad *= ADAM["clip"] / norm
        optimizer.step()
        losses.append(float(total.detach()))
    return torch.tensor(losses, dtype=torch.float64)


@pytest.mark.parametrize("gate", GATES)
def test_ten_training_losses(tmp_path, gate):
    cases, expected = [], []
    for i, (rule, kv) in enumerate(itertools.product(RULES, ["drop", "keep"])):
        rng, generator = random.Random(77 + i), torch.Generator().manual_seed(77 + i)
        config = config_of(rng, gate, rule, kv, "topk")
        params, data = parameters(config, generator), batch(config, generator, rng, steps=10)
        for name in ("tokens", "targets"):  # the same batch every time, so that the loss must fall
            data[name] = data[name][:1].expand(10, -1, -1).clone()
        n = len(config["fathom"]["routed_blocks"])
        aux = {"predictor_bce": 0.1} if rule == "predictor" else {"router_bce": 0.05, "router_z": 0.01}
        B, T = data["tokens"].shape[1:]
        imposed = [torch.rand(B, T, generator=generator) < 0.5 for _ in range(n)]
        for t in imposed:
            t[:, 0] = True
        # Imposed decisions: a token on the border must not turn a rounding error into another path.
        options = {"pick": "imposed", "tau": 1.0}
        want = adamw_losses(config, params, data, options | {"imposed": imposed}, aux, 10)
        extra = {f"imposed.{r}": s for r, s in enumerate(imposed)}
        for dtype in ("f64", "f32"):
            tensors = {k: v if dtype == "f64" else v.float() for k, v in params.items()} | data | extra
            cases.append((as_json(config, options, aux, dtype) | {"train": ADAM}, tensors))
            expected.append((f"{gate} {rule} {kv} {dtype}", want, dtype))
    for found, (label, want, dtype) in zip(run_tool(tmp_path, cases), expected):
        assert want[-1] < want[0], label
        e = error(found["losses"], want)
        assert e <= TOLERANCE[dtype]["train"], f"{label}: losses differ by {e:.2e}"


def test_dense_model_equals_transformers(tmp_path):
    """Llama, Qwen2 with its biases, Qwen3 with its norms of queries and keys."""
    transformers = pytest.importorskip("transformers")
    cases, expected = [], []
    for i in range(12):
        rng, generator = random.Random(500 + i), torch.Generator().manual_seed(500 + i)
        heads = rng.choice([2, 3, 4])
        family, head_dim = ["Llama", "Qwen2", "Qwen3"][i % 3], rng.choice([8, 10])
        config = config_of(rng, dense=True, model_type=family.lower(), num_attention_heads=heads, hidden_size=heads * head_dim, head_dim=head_dim, num_key_value_heads=rng.choice([1, heads]))
        if family != "Llama":
            config["mlp_bias"] = False
        params = parameters(config, generator)
        tokens = torch.randint(0, config["vocab_size"], (2, 33), generator=generator)
        targets = torch.randint(0, config["vocab_size"], (2, 33), generator=generator)
        hf = getattr(transformers, family + "ForCausalLM")(getattr(transformers, family + "Config")(
            **{k: v for k, v in config.items() if k not in ("model_type", "rope_theta")}, rope_parameters={"rope_type": "default", "rope_theta": config["rope_theta"]}, attn_implementation="eager")).double()
        assert {n for n, _ in hf.named_parameters()} == set(params)
        with torch.no_grad():
            for name, p in hf.named_parameters():
                p.copy_(params[name])
        logits = hf(tokens).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        loss.backward()
        cases.append((as_json(config, {}, {}, "f64"), params | {"tokens": tokens, "targets": targets}))
        expected.append((logits.detach(), loss.detach(), {n: p.grad for n, p in hf.named_parameters()}))
    for found, (logits, loss, grads) in zip(run_tool(tmp_path, cases), expected):
        # transformers computes the angles of RoPE in f32, hence 1e-6 and not 1e-11.
        assert error(found["logits"], logits) < 5e-6
        assert error(found["loss"], loss) < 1e-6
        for name, g in grads.items():
            assert error(found["grad." + name], g) < 2e-5, name
