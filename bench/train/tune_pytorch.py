"""A step of tuning a converted model as a good PyTorch user writes it: straight-through gates on whole blocks with a low-rank light path, every token
dense on both paths, frozen base weights without gradients, losses on text, on a teacher's top k and on the FLOPs that are spent. Keys are kept.

As a program it is the PyTorch side of the benchmark of tuning (tune.py): one process = one row, one JSON line.
As a module it is an oracle of whole steps: tests/oracle/test_tune.py.
"""
import argparse
import json
import math
import resource
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

SMOLLM2 = {"vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
           "head_dim": 64, "rms_norm_eps": 1e-5, "rope_theta": 100000.0, "tie_word_embeddings": True}


class Linear(nn.Module):
    """Frozen parts side by side in one matrix, and adapters on some of them."""

    def __init__(self, inputs, parts):
        super().__init__()
        self.parts = parts  # name → rows
        self.weight = nn.Parameter(torch.empty(sum(parts.values()), inputs), requires_grad=False)
        self.adapters = nn.ParameterDict()
        self.scale = 0.0

    def adapt(self, names, rank, scale):
        self.scale = scale
        for name in [n for n in names if n in self.parts]:
            self.adapters[name + "_A"] = nn.Parameter(torch.randn(rank, self.weight.shape[1]) / self.weight.shape[1] ** 0.5)
            self.adapters[name + "_B"] = nn.Parameter(torch.zeros(self.parts[name], rank))

    def forward(self, x):
        y = F.linear(x, self.weight)
        if not len(self.adapters):
            return y
        out = []
        for name, part in zip(self.parts, y.split(list(self.parts.values()), -1)):
            if name + "_A" in self.adapters:
                part = part + self.scale * F.linear(F.linear(x, self.adapters[name + "_A"]), self.adapters[name + "_B"])
            out.append(part)
        return torch.cat(out, -1) if len(out) > 1 else out[0]


def rms_norm(x, weight, eps):
    return F.rms_norm(x, x.shape[-1:], weight, eps)


def rotate(x, cos, sin):  # x [B, heads, T, D]; cos [T, D/2]
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Block(nn.Module):
    def __init__(self, c, unit):
        super().__init__()
        C, H, G, D, width = c["hidden_size"], c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"], c["intermediate_size"]
        self.c, self.eps = c, c["rms_norm_eps"]
        self.norm1, self.norm2 = (nn.Parameter(torch.ones(C), requires_grad=False) for _ in range(2))
        self.qkv, self.o = Linear(C, {"q": H * D, "k": G * D, "v": G * D}), Linear(H * D, {"o": C})
        self.gate_up, self.down = Linear(C, {"gate": width, "up": width}), Linear(width, {"down": C})
        if unit:
            self.router, self.bias = nn.Linear(C, 1, bias=False), nn.Parameter(torch.zeros(1))
            self.light_down, self.light_up = nn.Linear(C, unit["light_rank"], bias=False), nn.Linear(unit["light_rank"], C, bias=False)
        self.routed = unit is not None

    def parts(self, x, cos, sin):
        B, T, _ = x.shape
        H, G, D = self.c["num_attention_heads"], self.c["num_key_value_heads"], self.c["head_dim"]
        q, k, v = self.qkv(rms_norm(x, self.norm1, self.eps)).split([H * D, G * D, G * D], -1)
        q, k, v = (t.view(B, T, -1, D).transpose(1, 2) for t in (q, k, v))
        # Beside repeated keys a step took 8.4 s instead of 8.8 s in f32, the same in bf16.
        a = F.scaled_dot_product_attention(rotate(q, cos, sin).to(v.dtype), rotate(k, cos, sin).to(v.dtype), v, is_causal=True, enable_gqa=True)
        a = self.o(a.transpose(1, 2).reshape(B, T, H * D))
        h = x + a
        gate, up = self.gate_up(rms_norm(h, self.norm2, self.eps)).chunk(2, -1)
        return a, self.down(F.silu(gate) * up)

    def forward(self, x, cos, sin, tau, forced):
        a, m = self.parts(x, cos, sin)
        if not self.routed:
            return (x + a) + m, None
        u = rms_norm(x, None, self.eps)
        with torch.autocast("cpu", enabled=False):  # a score is held against a threshold
            s = (u @ self.router.weight[0] + self.bias)
        soft = torch.sigmoid(s / tau)
        soft = soft * ~forced
        g = ((s >= 0) | forced).to(soft.dtype) + (soft - soft.detach())
        light = self.light_up(self.light_down(u))
        return x + g[..., None] * (a + m) + (1 - g)[..., None] * light, g


class Model(nn.Module):
    def __init__(self, c, units):
        """units: block → {"light_rank": r}."""
        super().__init__()
        self.c = c
        self.embed = nn.Parameter(torch.empty(c["vocab_size"], c["hidden_size"]), requires_grad=False)
        self.blocks = nn.ModuleList([Block(c, units.get(i)) for i in range(c["num_hidden_layers"])])
        self.norm = nn.Parameter(torch.ones(c["hidden_size"]), requires_grad=False)
        self.head = None if c["tie_word_embeddings"] else nn.Parameter(torch.empty_like(self.embed), requires_grad=False)
        self.forced = 2

    def frozen_to(self, dtype):
        """Matrices that are frozen need no master copy."""
        for block in self.blocks:
            for w in (block.qkv, block.o, block.gate_up, block.down):
                w.weight.data = w.weight.data.to(dtype)
        return self

    def fraction_weights(self, T):
        """fixed and per routed block w of c = fixed + Σ w·mean(g): expected FLOPs of the blocks over those of dense ones."""
        c = self.c
        C, HD, GD = c["hidden_size"], c["num_attention_heads"] * c["head_dim"], c["num_key_value_heads"] * c["head_dim"]
        kept, rest = 2 * C * GD, 2 * C * HD + HD * (T + 1) + 3 * C * c["intermediate_size"]
        dense = c["num_hidden_layers"] * (kept + rest)
        fixed, weights = 1.0, []
        for block in self.blocks:
            if block.routed:
                light = 2 * C * block.light_down.out_features
                fixed += (C + light - rest) / dense
                weights.append((rest - light) / dense)
        return fixed, weights

    def forward(self, tokens, targets, teacher=None, tau=1.0, target=0.5, weights=None):
        """total and {loss, distillation, budget, block_fraction}; teacher: (ids, log-probabilities) [B·T, k]."""
        weights = weights or {"loss": 1.0, "budget": 1.0, "distillation": 1.0}
        B, T = tokens.shape
        x = F.embedding(tokens, self.embed)
        angle = torch.arange(T)[:, None].double() * self.c["rope_theta"] ** (-torch.arange(0, self.c["head_dim"], 2).double() / self.c["head_dim"])
        cos, sin, forced = angle.cos().to(x.dtype), angle.sin().to(x.dtype), torch.arange(T) < self.forced
        shares = []
        for block in self.blocks:
            x, g = block(x, cos, sin, tau, forced)
            if g is not None:
                shares.append(g.mean())
        logits = F.linear(rms_norm(x, self.norm, self.c["rms_norm_eps"]), self.embed if self.head is None else self.head).flatten(0, 1)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        out = {"loss": F.cross_entropy(logits, targets.flatten())}
        if teacher is not None:
            ids, log_p = teacher
            log_z = torch.logsumexp(logits, -1, keepdim=True)
            log_q = logits.gather(1, ids.long()) - log_z
            rest, rest_q = (1 - log_p.exp().sum(-1)).clamp_min(1e-12), (1 - log_q.exp().sum(-1)).clamp_min(1e-12)
            out["distillation"] = ((log_p.exp() * (log_p - log_q)).sum(-1) + rest * (rest.log() - rest_q.log())).mean()
        fixed, per_block = self.fraction_weights(T)
        c = fixed + sum(w * s for w, s in zip(per_block, shares))
        out["budget"] = torch.sqrt((c - target) ** 2 + 1e-4)
        total = sum(weights[name] * value for name, value in out.items())
        return total, out | {"block_fraction": c, "share": torch.stack(shares).mean()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mode", choices=["eager", "compile"], default="eager")
    parser.add_argument("--route", choices=["default", "onednn"], default="default")
    parser.add_argument("--compute", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--lora", type=int, default=0)
    parser.add_argument("--teacher", type=int, default=0)
    parser.add_argument("--bias", type=float, default=0.0, help="of every router: 0 runs half of the tokens in full")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=1)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(1)
    if a.route == "onednn":
        torch.backends.mkldnn.matmul.fp32_precision = "bf16"  # which is true f32 on CPUs without AMX (src/nn/matmul.h)
    C, L, V = SMOLLM2["hidden_size"], SMOLLM2["num_hidden_layers"], SMOLLM2["vocab_size"]
    model = Model(SMOLLM2, {i: {"light_rank": 64} for i in range(1, L - 1)})
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() == 2:
                p.normal_(0, 1 / math.sqrt(C) if "router" in name else 0.02)
        for block in model.blocks:
            if block.routed:
                block.bias.fill_(a.bias)
    if a.lora:
        for block in model.blocks:
            for w in (block.qkv, block.o, block.gate_up, block.down):
                w.adapt(["q", "k", "v", "o", "gate", "up", "down"], a.lora, 2.0)
    if a.compute == "bf16":
        model.frozen_to(torch.bfloat16)
    forward = torch.compile(model) if a.mode == "compile" else model
    data = torch.randint(0, V, (4, a.rows, a.tokens + 1))
    teacher = None
    if a.teacher:
        ids = torch.randint(0, V // a.teacher, (a.rows * a.tokens, a.teacher)) + torch.arange(a.teacher) * (V // a.teacher)  # distinct
        teacher = (ids, torch.log_softmax(torch.randn(ids.shape), -1) + math.log(0.9))
    seconds, cpu = [], []
    for step in range(a.warmup + a.steps):
        start, start_cpu = time.perf_counter(), time.process_time()
        row = data[step % 4]
        with torch.autocast("cpu", torch.bfloat16, enabled=a.compute == "bf16"):
            total, values = forward(row[:, :-1], row[:, 1:], teacher)
        total.backward()
        seconds.append(time.perf_counter() - start)
        cpu.append(time.process_time() - start_cpu)
        model.zero_grad(set_to_none=True)
    print(json.dumps({"tokens_per_second": [a.rows * a.tokens / s for s in seconds[a.warmup:]], "cpu_s": cpu[a.warmup:], "loss": float(values["loss"].detach()),
                      "share": float(values["share"].detach()), "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


if __name__ == "__main__":
    main()
