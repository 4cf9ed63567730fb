"""A plain Mixture-of-Depths transformer in PyTorch, written from the mathematics of docs/architecture.md, slow and
obvious: one sequence at a time, masks of who may see whom, no gathering tricks. The C++ network is held to it.

`config` is the dictionary of config.json; `params` maps tensor names to leaves. Autograd does the gradients.
"""
import math

import torch
import torch.nn.functional as F

MASK = (1 << 64) - 1


def mix64(x):
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def random_score(seed, block, position):
    """The random control: a hash of seed, block and position, uniform in [0, 1)."""
    return (mix64(mix64(mix64(seed) ^ block) ^ position) >> 11) * 2.0**-53


def rms_norm(x, weight, eps):
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps) * weight


def rope(x, positions, theta):
    """x [T, heads, D]: pairs (i, i + D/2) turn by position · theta^(−2i/D)."""
    half = x.shape[-1] // 2
    frequency = theta ** (-torch.arange(half, dtype=torch.float64) * 2 / x.shape[-1])
    angle = (positions.double()[:, None] * frequency).to(x.dtype)[:, None, :]
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)


def linear(params, name, u):
    y = u @ params[name + ".weight"].T
    return y + params[name + ".bias"] if name + ".bias" in params else y


def attention(config, params, prefix, u, positions, queries, visible):
    """u [T, C] normed input. Queries: the tokens listed; visible [T, T]: may i see j. Returns [len(queries), C]."""
    H, G, D = config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]
    T = u.shape[0]
    q, k, v = (linear(params, prefix + f"self_attn.{name}_proj", u).view(T, heads, D) for name, heads in (("q", H), ("k", G), ("v", G)))
    if prefix + "self_attn.q_norm.weight" in params:
        q, k = (rms_norm(x, params[prefix + f"self_attn.{name}_norm.weight"], config["rms_norm_eps"]) for name, x in (("q", q), ("k", k)))
    q, k = (rope(x, positions, config["rope_theta"]) for x in (q, k))
    out = []
    for h in range(H):
        g = h // (H // G)
        score = (q[queries, h] @ k[:, g].T) / math.sqrt(D)
        score = score.masked_fill(~visible[queries], float("-inf"))
        out.append(torch.softmax(score, -1) @ v[:, g])
    return linear(params, prefix + "self_attn.o_proj", torch.cat(out, -1))


def mlp(params, prefix, u):
    return linear(params, prefix + "mlp.down_proj", F.silu(linear(params, prefix + "mlp.gate_proj", u)) * linear(params, prefix + "mlp.up_proj", u))


def gate_factor(routing, r, tau):
    if routing["gate"] == "one_plus_tanh":
        return 1 + routing["gate_scale"] * torch.tanh(r)
    if routing["gate"] == "sigmoid":
        return torch.sigmoid(r)
    if routing["gate"] == "raw":
        return r
    s = torch.sigmoid(r / tau)  # hard: forward 1, backward the sigmoid's
    return torch.ones_like(r) + (s - s.detach())


def top_k(scores, k, forced):
    """Positions of the k highest, ties to the earlier, forced ones first; NaN never."""
    order = sorted((t for t in range(len(scores)) if forced[t] or not math.isnan(scores[t])),
                   key=lambda t: (not forced[t], -scores[t] if not forced[t] else 0, t))
    return set(order[: max(k, sum(forced))])


def selected_count(capacity, tokens):
    return min(tokens, max(1, math.ceil(capacity * tokens * (1 - 1e-12)))) if tokens else 0


def forward(config, params, tokens, targets=None, document_start=None, lengths=None, pick="topk", imposed=None,
            thresholds=None, capacity=None, tau=1.0, aux=()):
    """Returns a dictionary: logits [B, T, V], loss, nll [B, T], aux {name: scalar}, and per routed block raw, decision,
    selected [R][B, T]."""
    B, T = tokens.shape
    routing = config.get("fathom")
    blocks = routing["routed_blocks"] if routing else []
    eps = config["rms_norm_eps"]
    out = {k: [[None] * B for _ in blocks] for k in ("raw", "decision", "selected")}
    logits = []
    for b in range(B):
        length = int(lengths[b]) if lengths is not None else T
        start = document_start[b].tolist() if document_start is not None else [0] * T
        positions = torch.tensor([t - start[t] for t in range(T)])
        same_document = torch.tensor([[start[i] == start[j] and j <= i for j in range(T)] for i in range(T)])
        x = params["model.embed_tokens.weight"][tokens[b]]
        for layer in range(config["num_hidden_layers"]):
            p = f"model.layers.{layer}."
            norm1 = params[p + "input_layernorm.weight"]
            norm2 = params[p + "post_attention_layernorm.weight"]
            if layer not in blocks:
                everyone = list(range(T))
                h = x + attention(config, params, p, rms_norm(x, norm1, eps), positions, everyone, same_document)
                x = h + mlp(params, p, rms_norm(h, norm2, eps))
                continue
            n = blocks.index(layer)
            u = x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps) if routing["router_input"] == "normed" else x
            r = u @ params[p + "router.weight"][0]
            if routing["router_bias"]:
                r = r + params[p + "router.bias"][0]
            decision = r
            if routing["rule"] == "predictor":
                hidden = F.silu(u.detach() @ params[p + "predictor.fc1.weight"].T + params[p + "predictor.fc1.bias"])
                decision = hidden @ params[p + "predictor.fc2.weight"][0] + params[p + "predictor.fc2.bias"][0]
            forced = [t < length and int(positions[t]) < routing["forced_positions"] for t in range(T)]
            share = capacity[n] if capacity is not None else routing["capacity"][n]
            if pick == "imposed":
                run = [bool(imposed[n][b][t]) and t < length for t in range(T)]
            elif pick == "topk":
                chosen = top_k(r.detach().tolist()[:length], selected_count(share, length), forced[:length])
                run = [t in chosen for t in range(T)]
            elif pick == "random":
                run = [t < length and (forced[t] or random_score(routing["random_seed"], layer, int(positions[t])) < share) for t in range(T)]
            else:
                score = r if pick == "threshold" else decision
                run = [t < length and (forced[t] or bool(score[t] >= thresholds[n])) for t in range(T)]
            out["raw"][n][b], out["decision"][n][b] = r, decision
            out["selected"][n][b] = torch.tensor(run)
            picked = [t for t in range(T) if run[t]]
            if not picked:
                continue
            visible = same_document.clone()
            if routing["kv"] == "drop":
                visible &= torch.tensor(run)[None, :]
            g = gate_factor(routing, r, tau)
            g = torch.where(torch.tensor(forced), torch.ones_like(g), g)[picked, None]
            a = attention(config, params, p, rms_norm(x, norm1, eps), positions, picked, visible)
            m = mlp(params, p, rms_norm(x[picked] + a, norm2, eps))
            rows = list(x)
            new = (x[picked] + g * a) + g * m
            for i, t in enumerate(picked):
                rows[t] = new[i]
            x = torch.stack(rows)
        head = params["model.embed_tokens.weight"] if config["tie_word_embeddings"] else params["lm_head.weight"]
        logits.append(rms_norm(x, params["model.norm.weight"], eps) @ head.T)
    out = {k: [torch.stack(v) for v in out[k]] for k in out}
    out["logits"] = torch.stack(logits)
    if targets is not None:
        nll = F.cross_entropy(out["logits"].flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="none").view(B, T)
        out["nll"] = nll
        out["loss"] = nll.sum() / max(int((targets != -100).sum()), 1)
    real = torch.tensor([[t < (int(lengths[b]) if lengths is not None else T) for t in range(T)] for b in range(B)])
    out["aux"] = {}
    for name in aux:
        terms = []
        for n in range(len(blocks)):
            member = out["selected"][n][real].to(out["raw"][n].dtype)
            if name == "predictor_bce":
                terms.append(F.binary_cross_entropy_with_logits(out["decision"][n][real], member))
            elif name == "router_bce":
                terms.append(F.binary_cross_entropy_with_logits(out["raw"][n][real], member))
            elif name == "router_z":
                terms.append((out["raw"][n][real] ** 2).mean())
        out["aux"][name] = sum(terms) / max(len(terms), 1)
    return out
