"""Fathom's models in `transformers`: Llama-family networks whose tokens choose, block by block, between skipping, a light path and the full one.

    model = AutoModelForCausalLM.from_pretrained(FOLDER, trust_remote_code=True)
    model.set_dial(0.75)   # the block fraction to ask for; 1.0 runs every token in full; at first the model's default

One file, plain PyTorch, for reading and for checking: every token decides by the causal rule, in a prompt as in generation, but nothing is
saved by what is skipped; the program `fathom` runs the same folder and saves it. Shapes: B texts, T new tokens, S tokens with those in the
cache, C width, H heads, G key/value heads, D head width.
"""
import math
import struct

import torch
from torch import nn
from torch.nn import functional as F
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicCache
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS


class FathomConfig(PretrainedConfig):
    model_type = "fathom"

    def __init__(self, vocab_size=0, hidden_size=0, intermediate_size=0, num_hidden_layers=0, num_attention_heads=1, num_key_value_heads=1, head_dim=2,
                 max_position_embeddings=2048, rms_norm_eps=1e-5, rope_theta=10000.0, attention_bias=False, attention_output_bias=None, mlp_bias=False, qk_norm=False,
                 tie_word_embeddings=False, initializer_range=0.02, hidden_act="silu", fathom=None, dial=None, rope_parameters=None, **kwargs):
        self.vocab_size, self.hidden_size, self.intermediate_size = vocab_size, hidden_size, intermediate_size
        self.num_hidden_layers, self.num_attention_heads, self.num_key_value_heads, self.head_dim = num_hidden_layers, num_attention_heads, num_key_value_heads, head_dim
        self.max_position_embeddings, self.rms_norm_eps, self.rope_theta = max_position_embeddings, rms_norm_eps, rope_theta
        self.rope_parameters = rope_parameters or {"rope_type": "default", "rope_theta": rope_theta}
        self.attention_bias, self.mlp_bias, self.qk_norm = attention_bias, mlp_bias, qk_norm
        self.attention_output_bias = attention_bias if attention_output_bias is None else attention_output_bias
        self.initializer_range, self.hidden_act = initializer_range, hidden_act
        self.fathom, self.dial = fathom or {}, dial
        super().__init__(tie_word_embeddings=tie_word_embeddings, **kwargs)


def units_of(config):
    """The routed units, each {"block", "part", "paths", …}: a model of whole blocks that skip or run lists them shortly."""
    routing = config.fathom
    if "units" in routing:
        return routing["units"]
    return [{"block": b, "part": "block", "paths": ["skip", "full"], "capacity": c} for b, c in zip(routing.get("routed_blocks", []), routing.get("capacity", []))]


PATHS = {"exit": 0, "skip": 1, "light": 2, "full": 3}  # cheapest first


def order(paths):
    return sorted(paths, key=PATHS.get)


def rms_norm(x, eps, weight=None):
    wide = x.float()
    y = (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype)
    return y if weight is None else weight * y


def wide(linear, x):
    """Decisions are made in f32, whatever type the model was loaded in."""
    return F.linear(x.float(), linear.weight.float(), None if linear.bias is None else linear.bias.float())


class Light(nn.Module):
    def __init__(self, width, rank):
        super().__init__()
        self.down, self.up = nn.Linear(width, rank, bias=False), nn.Linear(rank, width, bias=False)


class Unit:
    """What decides about a block or a part of it. Lives in the block (or its part) whose prefix its tensors have."""

    def __init__(self, config, unit):
        self.block, self.part, self.paths = unit["block"], unit["part"], order(unit["paths"])
        self.static = "full" not in self.paths
        self.first_cut = 0

    @staticmethod
    def tensors(config, unit):
        """The submodules that a unit adds beside its block's."""
        C, routing = config.hidden_size, config.fathom
        out = {}
        if "full" in unit["paths"]:
            out["router"] = nn.Linear(C, 1, bias=routing.get("router_bias", False))
            if routing.get("rule", "score") == "predictor":
                P = max(C // 2, 1)
                out["predictor"] = nn.ModuleDict({"fc1": nn.Linear(C, P), "fc2": nn.Linear(P, 1)})
        if "light" in unit["paths"]:
            out["light"] = Light(C, unit["light_rank"])
        return out


class Attention(nn.Module):
    def __init__(self, config, static):
        super().__init__()
        if static:
            return
        C, HD, GD = config.hidden_size, config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
        self.q_proj, self.o_proj = nn.Linear(C, HD, bias=config.attention_bias), nn.Linear(HD, C, bias=config.attention_output_bias)
        self.k_proj, self.v_proj = nn.Linear(C, GD, bias=config.attention_bias), nn.Linear(C, GD, bias=config.attention_bias)
        if config.qk_norm:
            self.q_norm, self.k_norm = Norm(config.head_dim, config.rms_norm_eps), Norm(config.head_dim, config.rms_norm_eps)


class Mlp(nn.Module):
    def __init__(self, config, static):
        super().__init__()
        if static:
            return
        self.gate_proj, self.up_proj = (nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias) for _ in range(2))
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Norm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x):
        return rms_norm(x, self.eps, self.weight)


class Block(nn.Module):
    def __init__(self, config, index):
        super().__init__()
        self.config, self.index = config, index
        self.units = []
        for unit in units_of(config):
            if unit["block"] == index:
                self.units.append(Unit(config, unit))
        static = lambda part: any(u.static and u.part in ("block", part) for u in self.units)
        self.self_attn, self.mlp = Attention(config, static("attention")), Mlp(config, static("mlp"))
        if not static("attention"):
            self.input_layernorm = Norm(config.hidden_size, config.rms_norm_eps)
        if not static("mlp"):
            self.post_attention_layernorm = Norm(config.hidden_size, config.rms_norm_eps)
        for unit in units_of(config):
            if unit["block"] == index:
                home = {"block": self, "attention": self.self_attn, "mlp": self.mlp}[unit["part"]]
                for name, module in Unit.tensors(config, unit).items():
                    setattr(home, name, module)

    def home(self, unit):
        return {"block": self, "attention": self.self_attn, "mlp": self.mlp}[unit.part]

    def decide(self, unit, x, positions, thresholds, exited):
        """Which path every token takes at the unit, [B, T] of PATHS; and the gate on what full adds, None for 1."""
        routing, home = self.config.fathom, self.home(unit)
        path = torch.full(x.shape[:2], PATHS[unit.paths[0]], device=x.device)
        if unit.static:
            return path, None
        u = rms_norm(x, self.config.rms_norm_eps) if routing.get("router_input") == "normed" else x
        r = wide(home.router, u).squeeze(-1)
        score = r
        if routing.get("rule", "score") == "predictor":
            score = wide(home.predictor["fc2"], F.silu(wide(home.predictor["fc1"], u))).squeeze(-1)
        for i, name in enumerate(unit.paths[1:]):
            path = torch.where(score >= thresholds[unit.first_cut + i], PATHS[name], path)
        forced = positions < routing.get("forced_positions", 0)
        exited |= (path == PATHS["exit"]) & ~forced
        path = torch.where(exited, PATHS["light" if "light" in unit.paths and "skip" not in unit.paths else "skip"], path)
        path = torch.where(forced, PATHS["full"], path)
        kind, scale = routing.get("gate", "hard"), routing.get("gate_scale", 0.2)
        gate = {"hard": None, "raw": r, "sigmoid": torch.sigmoid(r), "one_plus_tanh": 1 + scale * torch.tanh(r)}[kind]
        if gate is not None:
            gate = torch.where(forced, torch.ones_like(gate), gate)
        return path, gate

    def forward(self, x, positions, rotary, mask, cache, thresholds, exited):
        """x [B, T, C]. mask [B, S]: tokens that are no padding. Returns the stream behind the block."""
        full = {"attention": torch.ones(x.shape[:2], dtype=torch.bool, device=x.device), "mlp": torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)}
        light, gates, whole = {}, {}, None
        for unit in self.units:
            path, gate = self.decide(unit, x, positions, thresholds, exited)
            runs = path == PATHS["full"]
            for part in ("attention", "mlp") if unit.part == "block" else (unit.part,):
                full[part], gates[part] = runs, gate
            if "light" in unit.paths:  # of a whole block it stands where its attention does
                light["mlp" if unit.part == "mlp" else "attention"] = (path == PATHS["light"], self.home(unit).light)
            whole = unit.part == "block"

        hidden = x
        if hasattr(self.self_attn, "q_proj"):
            a = self.attend(x, rotary, mask, full["attention"], cache)
            hidden = x + a  # what the MLP of a whole block reads, whatever the gate
            x = torch.where(full["attention"].unsqueeze(-1), x + scaled(a, gates.get("attention")), x)
        x = self.add_light(x, light.get("attention"))
        if hasattr(self.mlp, "gate_proj"):
            m = self.mlp(self.post_attention_layernorm(hidden if whole else x))
            x = torch.where(full["mlp"].unsqueeze(-1), x + scaled(m, gates.get("mlp")), x)
        return self.add_light(x, light.get("mlp"))

    def add_light(self, x, light):
        if light is None:
            return x
        takes, maps = light
        return torch.where(takes.unsqueeze(-1), x + maps.up(maps.down(rms_norm(x, self.config.rms_norm_eps))), x)

    def attend(self, x, rotary, mask, runs, cache):
        c, a = self.config, self.self_attn
        B, T, _ = x.shape
        u = self.input_layernorm(x)
        heads = lambda y, n: y.view(B, T, n, c.head_dim).transpose(1, 2)
        q, k, v = heads(a.q_proj(u), c.num_attention_heads), heads(a.k_proj(u), c.num_key_value_heads), heads(a.v_proj(u), c.num_key_value_heads)
        if c.qk_norm:
            q, k = a.q_norm(q), a.k_norm(k)
        q, k = rotate(q, *rotary), rotate(k, *rotary)
        seen = torch.ones_like(runs) if c.fathom.get("kv", "drop") == "keep" else runs  # who has keys and values
        if cache is not None:
            # One number more per key says so: whatever reorders, repeats or crops a cache does it to both.
            k, v = cache.update(torch.cat([k, seen[:, None, :, None].expand(-1, k.shape[1], -1, 1).to(k.dtype)], -1), v, self.index)
            k, seen = k[..., :-1], k[:, 0, :, -1] > 0
        S = k.shape[2]
        where = torch.arange(S, device=x.device)
        visible = (where[None, :] <= where[S - T:, None])[None] & (mask[:, None, :] & seen[:, None, :])  # [B, T, S]
        visible = visible | (where[None, :] == where[S - T:, None])[None]  # a row that sees nobody is one whose result nobody takes
        groups = c.num_attention_heads // c.num_key_value_heads
        out = F.scaled_dot_product_attention(q, k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1), attn_mask=visible[:, None])
        return a.o_proj(out.transpose(1, 2).reshape(B, T, -1))


def scaled(delta, gate):
    return delta if gate is None else gate.unsqueeze(-1).to(delta.dtype) * delta


def rotate(x, cos, sin):
    half = x.shape[-1] // 2
    turned = torch.cat([-x[..., half:], x[..., :half]], -1)
    return (x * cos[:, None] + turned * sin[:, None]).to(x.dtype)


class FathomModel(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.num_hidden_layers))
        self.norm = Norm(config.hidden_size, config.rms_norm_eps)
        cut = 0
        for block in self.layers:
            for unit in block.units:
                unit.first_cut = cut
                cut += len(unit.paths) - 1
        self.cuts = cut


class FathomForCausalLM(PreTrainedModel, GenerationMixin):
    config_class = FathomConfig
    base_model_prefix = "model"
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}
    _no_split_modules = ["Block"]

    def __init__(self, config):
        super().__init__(config)
        self.model = FathomModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.rope = {}
        self.set_dial(None)
        self.post_init()

    def _init_weights(self, module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            module.weight.data.normal_(0, self.config.initializer_range)
            if getattr(module, "bias", None) is not None:
                module.bias.data.zero_()

    def get_input_embeddings(self):
        return self.model.embed_tokens

    def set_input_embeddings(self, value):
        self.model.embed_tokens = value

    def get_output_embeddings(self):
        return self.lm_head

    def set_dial(self, dial):
        """The block fraction to ask for, in (0, 1]; None: the model's default. Thresholds lie linear between the points of its table."""
        cuts = sum(len(u["paths"]) - 1 for u in units_of(self.config))
        table = self.config.dial
        if cuts == 0 or (dial is not None and dial >= 1):
            self.thresholds = [-math.inf] * cuts
            return
        if table is None:
            raise ValueError("config.json has no \"dial\": the thresholds of the routed blocks")
        number = lambda t: float(t) if isinstance(t, str) else t
        points = [{**p, "thresholds": [number(t) for t in p["thresholds"]]} for p in table["points"]]
        dial = table["default_dial"] if dial is None else dial
        if not 0 < dial <= 1:
            raise ValueError(f"dial: found {dial}, expected a block fraction above 0 and at most 1")
        if dial >= 1:
            self.thresholds = [-math.inf] * cuts
        elif dial <= points[0]["dial"]:
            self.thresholds = points[0]["thresholds"]
        else:
            i = max(i for i, p in enumerate(points) if p["dial"] <= dial)
            low, high = points[i], points[min(i + 1, len(points) - 1)]
            t = (dial - low["dial"]) / (high["dial"] - low["dial"]) if high is not low else 0.0
            between = lambda a, b: a if t == 0 or a == b or math.isinf(a) or math.isinf(b) else (1 - t) * a + t * b
            self.thresholds = [between(a, b) for a, b in zip(low["thresholds"], high["thresholds"])]
        self.thresholds = [struct.unpack("f", struct.pack("f", t))[0] for t in self.thresholds]  # as f32 holds them

    def rotary(self, positions, dtype):
        kind = (self.config.rope_parameters or {}).get("rope_type", "default")
        if positions.device not in self.rope:
            if kind == "default":
                D = self.config.head_dim
                inverse, factor = 1.0 / self.config.rope_theta ** (torch.arange(0, D, 2, dtype=torch.float32, device=positions.device) / D), 1.0
            else:
                inverse, factor = ROPE_INIT_FUNCTIONS[kind](self.config, positions.device)
            self.rope[positions.device] = (inverse, factor)
        inverse, factor = self.rope[positions.device]
        angle = positions.float()[..., None] * inverse
        angle = torch.cat([angle, angle], -1)
        return (angle.cos() * factor).to(dtype), (angle.sin() * factor).to(dtype)

    def forward(self, input_ids=None, attention_mask=None, position_ids=None, past_key_values=None, inputs_embeds=None, labels=None, use_cache=None, logits_to_keep=0, **kwargs):
        x = self.model.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        B, T, _ = x.shape
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache()
        if attention_mask is None:
            # A layer whose attention is static holds nothing.
            before = max((past_key_values.get_seq_length(i) for i in range(len(past_key_values.layers))), default=0) if past_key_values is not None else 0
            mask = torch.ones(B, before + T, dtype=torch.bool, device=x.device)
        else:
            mask, before = attention_mask.bool(), attention_mask.shape[1] - T
        if position_ids is None:
            position_ids = (mask.long().cumsum(1) - 1).clamp(min=0)[:, before:]
        rotary = self.rotary(position_ids, x.dtype)
        exited = torch.zeros(B, T, dtype=torch.bool, device=x.device)
        for block in self.model.layers:
            x = block(x, position_ids, rotary, mask, past_key_values, self.thresholds, exited)
        x = self.model.norm(x)
        logits = self.lm_head(x[:, -logits_to_keep:] if logits_to_keep else x)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten())
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=past_key_values)
