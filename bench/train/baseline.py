"""The PyTorch side of the training benchmark: a plain Llama-like model, dense or naive Mixture-of-Depths (12.5 %, every
second block), as a good PyTorch user writes it. One process = one row:

  baseline.py --mode eager|compile --mod 0|1 --route default|onednn --dtype f32|bf16 --steps N

Prints one JSON line: tokens/s per step, peak memory. run.py calls it in turns with our program.
"""
import argparse
import json
import math
import resource
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

V, C, L, H, FF, T, BATCH = 4096, 384, 8, 6, 1024, 256, 16
D = C // H


def rope_table():
    angle = torch.arange(T)[:, None] * 10000.0 ** (-torch.arange(0, D, 2) / D)[None, :]
    return torch.cos(angle), torch.sin(angle)


def rotate(x, cos, sin):  # x [B, H, T, D]; cos [B or 1, 1, T, D/2]
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.RMSNorm(C, eps=1e-5), nn.RMSNorm(C, eps=1e-5)
        self.qkv, self.o = nn.Linear(C, 3 * C, bias=False), nn.Linear(C, C, bias=False)
        self.gate_up, self.down = nn.Linear(C, 2 * FF, bias=False), nn.Linear(FF, C, bias=False)

    def parts(self, x, cos, sin):
        B, T_, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(B, T_, 3, H, D).permute(2, 0, 3, 1, 4)
        a = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v, is_causal=True)
        a = self.o(a.transpose(1, 2).reshape(B, T_, C))
        h = x + a
        gate, up = self.gate_up(self.norm2(h)).chunk(2, -1)
        return a, h, self.down(F.silu(gate) * up)

    def forward(self, x, cos, sin):
        _, h, m = self.parts(x, cos[None, None], sin[None, None])
        return h + m


class Routed(Block):
    def __init__(self):
        super().__init__()
        self.router = nn.Linear(C, 1, bias=False)

    def forward(self, x, cos, sin):
        B, T_, _ = x.shape
        r = self.router(x).squeeze(-1)
        index = r.topk(math.ceil(0.125 * T_), dim=1).indices.sort(1).values  # [B, K]
        wide = index[..., None].expand(-1, -1, C)
        xs = x.gather(1, wide)
        a, _, m = self.parts(xs, cos[index][:, None], sin[index][:, None])
        g = (1 + 0.2 * torch.tanh(r.gather(1, index)))[..., None]
        return x.scatter(1, wide, (xs + g * a) + g * m)


class Model(nn.Module):
    def __init__(self, mod):
        super().__init__()
        self.embed = nn.Embedding(V, C)
        self.blocks = nn.ModuleList([Routed() if mod and i % 2 else Block() for i in range(L)])
        self.norm, self.head = nn.RMSNorm(C, eps=1e-5), nn.Linear(C, V, bias=False)
        cos, sin = rope_table()
        self.register_buffer("cos", cos), self.register_buffer("sin", sin)
        for p in self.parameters():
            if p.dim() == 2:
                nn.init.normal_(p, 0, 0.02)

    def forward(self, tokens, targets):
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        return F.cross_entropy(self.head(self.norm(x)).flatten(0, 1).float(), targets.flatten())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mode", choices=["eager", "compile"], default="eager")
    parser.add_argument("--mod", type=int, default=0)
    parser.add_argument("--route", choices=["default", "onednn"], default="default")
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--warmup", type=int, default=2)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(1)
    if a.route == "onednn":
        torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    model = Model(a.mod)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    forward = torch.compile(model) if a.mode == "compile" else model
    tokens = torch.randint(0, V, (8, BATCH, T + 1))
    seconds, cpu, losses = [], [], []
    for step in range(a.warmup + a.steps):
        start, start_cpu = time.perf_counter(), time.process_time()
        row = tokens[step % 8]
        with torch.autocast("cpu", torch.bfloat16, enabled=a.dtype == "bf16"):
            loss = forward(row[:, :-1], row[:, 1:])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        seconds.append(time.perf_counter() - start)
        cpu.append(time.process_time() - start_cpu)
    print(json.dumps({"tokens_per_second": [BATCH * T / s for s in seconds[a.warmup:]], "loss": losses[-1], "cpu_s": cpu[a.warmup:],
                      "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


if __name__ == "__main__":
    main()
