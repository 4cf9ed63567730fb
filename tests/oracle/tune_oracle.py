"""Straight-through tuning of a converted model in plain PyTorch, slow and obvious: one sequence at a time, every path of every token
computed, gates as numbers. From the mathematics of docs/architecture.md and src/nn/transformer.h; the C++ network is held to it.

With `frozen`, what an earlier run returned as "gates", decisions and the values that were subtracted stay as they were: then the result is an
ordinary differentiable function of the parameters, whose finite differences the straight-through gradient must meet.
"""
import math

import torch
import torch.nn.functional as F

from mod_oracle import MASK, attention, mix64, mlp, rms_norm, selected_count, top_k


class Random:
    """src/core/random.h: the n-th number is a function of seed and n."""

    def __init__(self, seed):
        self.seed, self.counter = seed, 0

    def fork(self, name):
        h = mix64(self.seed)
        for c in name.encode():
            h = mix64(h ^ c)
        return Random(h)

    def uniform(self):
        x = mix64((mix64(self.seed ^ 0x5851F42D4C957F2D) + self.counter * 0xDA942042E4DD58B5) & MASK)
        self.counter += 1
        return (x >> 11) * 2.0**-53

    def logistic(self):
        u = self.uniform() + 2.0**-54
        return math.log(u / (1 - u))


def merged(params, lora):
    """Projections with what their adapters add."""
    if not lora:
        return params
    out = dict(params)
    for name in params:
        base = name.removesuffix(".weight")
        if base + ".lora_A.weight" in params:
            out[name] = params[name] + lora["alpha"] / lora["rank"] * params[base + ".lora_B.weight"] @ params[base + ".lora_A.weight"]
    return out


def cuts_of(unit):
    return [p for p in unit["paths"]][1:]  # cheapest first; the cheapest has none


def prefix(unit):
    return f"model.layers.{unit['block']}." + {"block": "", "attention": "self_attn.", "mlp": "mlp."}[unit["part"]]


def block_fraction(config, tokens, share):
    """Expected FLOPs of the blocks over those of dense ones; share[n][path]: of tokens that reach that cut of unit n."""
    C, Fw = config["hidden_size"], config["intermediate_size"]
    HD, GD = config["num_attention_heads"] * config["head_dim"], config["num_key_value_heads"] * config["head_dim"]
    pairs = tokens * (tokens + 1) / 2
    dense = config["num_hidden_layers"] * (tokens * (2 * C * HD + 2 * C * GD + 3 * C * Fw) + 2 * HD * pairs)
    total = 0
    for layer in range(config["num_hidden_layers"]):
        units = {u["part"]: n for n, u in enumerate(config["fathom"]["units"]) if u["block"] == layer}
        at, mp = units.get("attention", units.get("block")), units.get("mlp", units.get("block"))
        full = lambda n: 1.0 if n is None else share[n].get("full", 0.0)
        k = full(at) * tokens
        is_static = at is not None and "full" not in config["fathom"]["units"][at]["paths"]
        keep = config["fathom"]["kv"] == "keep" and not is_static
        total = total + k * 2 * C * HD + (tokens if keep else k) * 2 * C * GD + 2 * HD * (k * (tokens + 1) / 2 if keep or at is None else k * (k + 1) / 2)
        total = total + full(mp) * tokens * 3 * C * Fw
        for n in units.values():
            unit = config["fathom"]["units"][n]
            if "full" in unit["paths"]:
                P = max(C // 2, 1) if config["fathom"]["rule"] == "predictor" else 0
                total = total + tokens * (C + P * C + P)
            if "light" in unit["paths"]:
                light = share[n].get("light", 1.0) - full(n)
                total = total + light * tokens * 2 * C * unit["light_rank"]
    return total / dense


def forward(config, params, tokens, targets, document_start=None, lengths=None, tau=1.0, noise=0.0, noise_seed=0, thresholds=None, capacity=None, lora=None,
            teacher=None, budget=None, frozen=None):
    """A dictionary: logits, loss, nll, aux {distillation, budget, unit_budget}, block_fraction, gates; per unit raw, selected, light [U][B, T]."""
    params = merged(params, lora)
    B, T = tokens.shape
    routing, eps = config["fathom"], config["rms_norm_eps"]
    units = routing["units"]
    first = [sum(len(cuts_of(u)) for u in units[:n]) for n in range(len(units))]
    out = {k: [[None] * B for _ in units] for k in ("raw", "selected", "light")}
    gates = [{cut: [None] * B for cut in cuts_of(u)} for u in units]
    kept = [{cut: [None] * B for cut in cuts_of(u)} for u in units]  # decisions and sigmoids as numbers
    drawn = [Random(noise_seed).fork("router " + str(u["block"] + (2**32 if u["part"] == "mlp" else 0))) for u in units]
    logits = []
    for b in range(B):
        length = int(lengths[b]) if lengths is not None else T
        start = document_start[b].tolist() if document_start is not None else [0] * T
        positions = torch.tensor([t - start[t] for t in range(T)])
        visible = torch.tensor([[start[i] == start[j] and j <= i for j in range(T)] for i in range(T)])
        real = torch.arange(T) < length
        forced = positions < routing["forced_positions"]
        everyone = list(range(T))
        x = params["model.embed_tokens.weight"][tokens[b]]

        def decide(n, x):
            unit = units[n]
            if "full" not in unit["paths"]:
                return None
            u = x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps) if routing["router_input"] == "normed" else x
            r = u @ params[prefix(unit) + "router.weight"][0]
            if routing["router_bias"]:
                r = r + params[prefix(unit) + "router.bias"][0]
            factor = 1.0
            if routing["gate"] == "one_plus_tanh":  # of the linear router's score, whatever decides
                factor = torch.where(forced, torch.ones_like(r), 1 + routing["gate_scale"] * torch.tanh(r))
            if routing["rule"] == "predictor":
                w = {name: params[f"{prefix(unit)}predictor.{name}"] for name in ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")}
                r = F.silu(u @ w["fc1.weight"].T + w["fc1.bias"]) @ w["fc2.weight"][0] + w["fc2.bias"][0]
            out["raw"][n][b] = r
            s = r + torch.tensor([noise * drawn[n].logistic() for _ in range(T)], dtype=r.dtype) if noise else r
            g = {}
            for i, cut in enumerate(cuts_of(unit)):
                if frozen is None:
                    if capacity:  # the best of the row, from its least score on
                        d = torch.zeros(T, dtype=torch.bool)
                        d[list(top_k(s.detach()[:length].tolist(), selected_count(capacity[first[n] + i], length), forced[:length].tolist()))] = True
                        chosen = s.detach()[d & ~forced]
                        threshold = float(chosen.min()) if len(chosen) else 0.0
                    else:
                        threshold = thresholds[first[n] + i] if thresholds else 0.0
                        d = ((s >= threshold) | forced) & real
                    kept[n][cut][b] = (d, torch.sigmoid((s.detach() - threshold) / tau), threshold)
                d, before, threshold = (frozen or kept)[n][cut][b]
                soft = torch.sigmoid((s - threshold) / tau)
                g[cut] = gates[n][cut][b] = d.to(r.dtype) + torch.where(forced, torch.zeros_like(soft), soft - before)
            g["factor"] = factor
            return g

        def mix(n, g, x, delta_of):
            """x' of unit n; delta_of(visible): the full delta of every token."""
            unit = units[n]
            u = x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps)
            light = (u @ params[prefix(unit) + "light.down.weight"].T) @ params[prefix(unit) + "light.up.weight"].T if "light" in unit["paths"] else 0 * x
            if g is None:
                out["selected"][n][b], out["light"][n][b] = torch.zeros(T, dtype=torch.bool), real
                return x + torch.where(real[:, None], light, torch.zeros_like(light))
            d = (frozen or kept)[n]["full"][b][0]
            seen = visible & d[None, :] | torch.eye(T, dtype=torch.bool) if routing["kv"] == "drop" else visible
            delta = delta_of(seen)
            if routing["kv"] == "drop" and unit["part"] != "mlp":
                delta = torch.where(d[:, None], delta, torch.zeros_like(delta))
            cheaper = g["light"] if "light" in g else torch.ones_like(g["full"])
            out["selected"][n][b] = d
            reached = (frozen or kept)[n]["light"][b][0] if "light" in g else real
            out["light"][n][b] = reached & ~d
            return torch.where(real[:, None], x + (g["full"] * g["factor"])[:, None] * delta + (cheaper - g["full"])[:, None] * light, x)

        for layer in range(config["num_hidden_layers"]):
            p = f"model.layers.{layer}."
            here = {u["part"]: n for n, u in enumerate(units) if u["block"] == layer}
            g = {n: decide(n, x) for n in here.values()}
            attend = lambda x, seen: attention(config, params, p, rms_norm(x, params[p + "input_layernorm.weight"], eps), positions, everyone, seen)
            feed = lambda h: mlp(params, p, rms_norm(h, params[p + "post_attention_layernorm.weight"], eps))
            if "block" in here:
                def both(seen, x=x):
                    a = attend(x, seen)
                    return a + feed(x + a)
                x = mix(here["block"], g[here["block"]], x, both)
                continue
            x = mix(here["attention"], g[here["attention"]], x, lambda seen, x=x: attend(x, seen)) if "attention" in here else x + attend(x, visible)
            x = mix(here["mlp"], g[here["mlp"]], x, lambda seen, x=x: feed(x)) if "mlp" in here else x + feed(x)
        head = params["model.embed_tokens.weight"] if config["tie_word_embeddings"] else params["lm_head.weight"]
        logits.append(rms_norm(x, params["model.norm.weight"], eps) @ head.T)
    out["logits"] = torch.stack(logits)
    out["gates"] = kept
    for n in range(len(units)):
        if out["raw"][n][0] is None:
            out["raw"][n] = [torch.zeros(T, dtype=out["logits"].dtype)] * B
        for k in ("raw", "selected", "light"):
            out[k][n] = torch.stack(out[k][n])
    counted = targets != -100
    out["nll"] = F.cross_entropy(out["logits"].flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="none").view(B, T)
    out["loss"] = out["nll"].sum() / max(int(counted.sum()), 1)
    out["aux"] = {}
    if teacher is not None:
        log_q = torch.log_softmax(out["logits"], -1).flatten(0, 1)[counted.flatten()]
        if "logits" in teacher:
            log_p = torch.log_softmax(teacher["logits"].to(log_q.dtype), -1)[counted.flatten()]
            kl = (log_p.exp() * (log_p - log_q)).sum(-1)
        else:
            ids, log_p = teacher["ids"].long()[counted.flatten()], teacher["log_probability"].to(log_q.dtype)[counted.flatten()]
            at_ids = log_q.gather(1, ids)
            kl = (log_p.exp() * (log_p - at_ids)).sum(-1)
            rest = 1 - log_p.exp().sum(-1)
            outside = torch.ones_like(log_q).scatter(1, ids, 0.0)
            rest_q = (log_q.exp() * outside).sum(-1)
            kl = kl + torch.where(rest > 0, rest * (rest.clamp_min(1e-300).log() - rest_q.log()), torch.zeros_like(rest))
        out["aux"]["distillation"] = kl.sum() / max(int(counted.sum()), 1)
    if budget is not None:
        real = torch.tensor([[t < (int(lengths[b]) if lengths is not None else T) for t in range(T)] for b in range(B)])
        share = [{cut: torch.stack(gates[n][cut])[real].mean() for cut in cuts_of(u)} for n, u in enumerate(units)]
        c = block_fraction(config, budget["context"] or T, share)
        out["block_fraction"] = c
        out["aux"]["budget"] = torch.sqrt((c - budget["target"]) ** 2 + 1e-4)
        if budget["shares"]:
            flat = [share[n][cut] for n, u in enumerate(units) for cut in cuts_of(u)]
            out["aux"]["unit_budget"] = sum(torch.sqrt((s - t) ** 2 + 1e-4) for s, t in zip(flat, budget["shares"])) / len(flat)
    return out
