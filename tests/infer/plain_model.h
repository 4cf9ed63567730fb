// The model's mathematics in double precision, written from the design and not from the engine: one text, all at once,
// no cache, attention over explicit sets of earlier tokens. The oracle of this room's tests.
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

#include "model/config.h"
#include "model/random_model.h"
#include "model/schema.h"
#include "routing/decisions.h"

namespace fathom::infer::test {

using Vector = std::vector<double>;

struct PlainResult {
  std::vector<Vector> logits;           // [T][V]
  std::vector<Vector> router, decision; // [units][T] scores, 0 in a static unit
};

inline Vector times(const std::vector<float>& w, const Vector& x, int64_t outputs) {
  Vector y(outputs, 0.0);
  for (int64_t n = 0; n < outputs; ++n)
    for (size_t k = 0; k < x.size(); ++k) y[n] += static_cast<double>(w[n * x.size() + k]) * x[k];
  return y;
}

inline Vector normed(const Vector& x, const std::vector<float>* w, double eps) {
  double squares = 0;
  for (double v : x) squares += v * v;
  Vector y(x);
  for (size_t i = 0; i < x.size(); ++i) y[i] = x[i] / std::sqrt(squares / static_cast<double>(x.size()) + eps) * (w ? (*w)[i] : 1.0);
  return y;
}

// y = W x + B (A x) + b of the layer `name`, where the model has an adapter or a bias.
inline Vector layer(const model::Weights& w, const std::string& name, const Vector& x, int64_t outputs) {
  Vector y = times(w.at(name + ".weight"), x, outputs);
  if (const auto a = w.find(name + ".lora_A.weight"); a != w.end()) {
    const Vector more = times(w.at(name + ".lora_B.weight"), times(a->second, x, static_cast<int64_t>(a->second.size() / x.size())), outputs);
    for (int64_t n = 0; n < outputs; ++n) y[n] += more[n];
  }
  if (const auto bias = w.find(name + ".bias"); bias != w.end())
    for (int64_t n = 0; n < outputs; ++n) y[n] += static_cast<double>(bias->second[n]);
  return y;
}

// Turns per position of pair i, times 2 pi; the papers' formulas.
inline double frequency(const model::ModelConfig& c, int64_t i) {
  using Type = model::RopeScaling::Type;
  const model::RopeScaling& s = c.rope_scaling;
  const double D = static_cast<double>(c.head_dim), pi = std::acos(-1.0), plain = std::pow(c.rope_theta, -2.0 * static_cast<double>(i) / D);
  const double context = static_cast<double>(s.original_context), turns = context * plain / (2 * pi);
  switch (s.type) {
    case Type::none: return plain;
    case Type::linear: return plain / s.factor;
    case Type::divided: return plain / s.divisors[i];
    case Type::llama3: {
      const double kept = std::clamp((turns - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor), 0.0, 1.0);
      return (1 - kept) * plain / s.factor + kept * plain;
    }
    case Type::yarn: {
      const auto pair = [&](double beta) { return D * std::log(context / (2 * pi * beta)) / (2 * std::log(c.rope_theta)); };
      const double low = std::max(0.0, std::floor(pair(s.beta_fast))), high = std::min(D - 1, std::ceil(pair(s.beta_slow)));
      const double stretched = std::clamp((static_cast<double>(i) - low) / (high == low ? 0.001 : high - low), 0.0, 1.0);
      return stretched * plain / s.factor + (1 - stretched) * plain;
    }
  }
  return plain;
}

// Norm of every head, where the model has one, then RoPE.
inline void finish(Vector& heads, const model::ModelConfig& c, const std::vector<float>* norm, int64_t position) {
  const int64_t D = c.head_dim;
  for (size_t h = 0; h < heads.size(); h += D) {
    if (norm) {
      const Vector y = normed(Vector(heads.begin() + h, heads.begin() + h + D), norm, c.rms_norm_eps);
      std::copy(y.begin(), y.end(), heads.begin() + h);
    }
    for (int64_t i = 0; i < D / 2; ++i) {
      const double angle = static_cast<double>(position) * frequency(c, i), scale = c.rope_scaling.attention_factor;
      const double a = heads[h + i], b = heads[h + i + D / 2];
      heads[h + i] = scale * (a * std::cos(angle) - b * std::sin(angle));
      heads[h + i + D / 2] = scale * (b * std::cos(angle) + a * std::sin(angle));
    }
  }
}

inline double silu(double x) { return x / (1 + std::exp(-x)); }

// up(down(x / rms(x)))
inline Vector light(const model::ModelConfig& c, const model::Weights& w, const std::string& at, const Vector& x, int64_t rank) {
  return times(w.at(at + "light.up.weight"), times(w.at(at + "light.down.weight"), normed(x, nullptr, c.rms_norm_eps), rank), c.hidden_size);
}

inline void add(Vector& x, double g, const Vector& delta) {
  for (size_t i = 0; i < x.size(); ++i) x[i] += g * delta[i];
}

inline PlainResult plain_forward(const model::ModelConfig& c, const model::Weights& w, const std::vector<int32_t>& tokens,
                                 const routing::Decisions& decisions) {
  using namespace routing;
  const int64_t T = static_cast<int64_t>(tokens.size()), C = c.hidden_size, H = c.num_attention_heads, G = c.num_key_value_heads,
                D = c.head_dim;
  std::vector<Vector> x(T);
  for (int64_t t = 0; t < T; ++t) {
    const auto& table = w.at("model.embed_tokens.weight");
    x[t] = Vector(table.begin() + tokens[t] * C, table.begin() + (tokens[t] + 1) * C);
  }
  PlainResult out;
  for (int64_t block = 0; block < c.num_hidden_layers; ++block) {
    const std::string at = model::layer_prefix(block);
    // What a token does with attention and with the MLP, and by which gate; what stands beside them at a light path.
    struct Does {
      Path attention = Path::full, mlp = Path::full;
      double attention_gate = 1, mlp_gate = 1;
    };
    std::vector<Does> does(T);
    bool together = false, nobody_attends = false;
    std::string attention_unit, mlp_unit;
    int64_t attention_rank = 0, mlp_rank = 0;
    for (size_t u = 0; u < c.routing.units.size(); ++u) {
      const RoutedUnit& unit = c.routing.units[u];
      if (unit.block != block) continue;
      const std::string prefix = at + (unit.part == Part::attention ? "self_attn." : unit.part == Part::mlp ? "mlp." : "");
      together = unit.part == Part::block;
      if (unit.part != Part::mlp) attention_unit = prefix, attention_rank = unit.light_rank, nobody_attends = !unit.paths.full;
      else mlp_unit = prefix, mlp_rank = unit.light_rank;
      out.router.emplace_back(T, 0.0), out.decision.emplace_back(T, 0.0);
      for (int64_t t = 0; t < T; ++t) {
        const Path path = static_cast<Path>(decisions.run[u][t]);
        double gate = 1;
        if (unit.paths.full) {
          const Vector input = c.routing.router_input == RouterInput::normed ? normed(x[t], nullptr, c.rms_norm_eps) : x[t];
          double score = times(w.at(prefix + "router.weight"), input, 1)[0];
          if (c.routing.router_bias) score += w.at(prefix + "router.bias")[0];
          double decision = score;
          if (c.routing.rule == CausalRule::predictor) {
            Vector hidden = times(w.at(prefix + "predictor.fc1.weight"), input, c.predictor_width());
            for (size_t i = 0; i < hidden.size(); ++i) hidden[i] = silu(hidden[i] + w.at(prefix + "predictor.fc1.bias")[i]);
            decision = times(w.at(prefix + "predictor.fc2.weight"), hidden, 1)[0] + w.at(prefix + "predictor.fc2.bias")[0];
          }
          out.router.back()[t] = score, out.decision.back()[t] = decision;
          if (t >= c.routing.forced_positions) switch (c.routing.gate) {
            case Gate::one_plus_tanh: gate = 1 + c.routing.gate_scale * std::tanh(score); break;
            case Gate::sigmoid: gate = 1 / (1 + std::exp(-score)); break;
            case Gate::raw: gate = score; break;
            case Gate::hard: break;
          }
        }
        if (unit.part != Part::mlp) does[t].attention = path, does[t].attention_gate = gate;
        // Where the whole block is light, the MLP adds nothing more.
        if (unit.part != Part::attention) does[t].mlp = unit.part == Part::block && path == Path::light ? Path::skip : path, does[t].mlp_gate = gate;
      }
    }
    std::vector<Vector> next = x, keys(T), values(T);
    if (!nobody_attends)
      for (int64_t t = 0; t < T; ++t) {
        const Vector u = normed(x[t], &w.at(at + "input_layernorm.weight"), c.rms_norm_eps);
        keys[t] = layer(w, at + "self_attn.k_proj", u, G * D);
        values[t] = layer(w, at + "self_attn.v_proj", u, G * D);
        finish(keys[t], c, c.qk_norm ? &w.at(at + "self_attn.k_norm.weight") : nullptr, t);
      }
    for (int64_t t = 0; t < T; ++t) {
      Vector hidden = x[t];  // what the MLP reads
      if (does[t].attention == Path::light) add(next[t], 1, light(c, w, attention_unit, x[t], attention_rank));
      if (does[t].attention == Path::full) {
        const Vector u = normed(x[t], &w.at(at + "input_layernorm.weight"), c.rms_norm_eps);
        Vector q = layer(w, at + "self_attn.q_proj", u, H * D), mixed(H * D, 0.0);
        finish(q, c, c.qk_norm ? &w.at(at + "self_attn.q_norm.weight") : nullptr, t);
        for (int64_t h = 0; h < H; ++h) {
          const int64_t g = h / (H / G);
          Vector p;
          std::vector<int64_t> seen;
          double total = 0, greatest = -1e300;
          for (int64_t s = 0; s <= t; ++s) {
            if (c.routing.kv == KvPolicy::drop && does[s].attention != Path::full) continue;
            double score = 0;
            for (int64_t d = 0; d < D; ++d) score += q[h * D + d] * keys[s][g * D + d];
            p.push_back(score / std::sqrt(static_cast<double>(D))), seen.push_back(s);
            greatest = std::max(greatest, p.back());
          }
          for (double& v : p) total += v = std::exp(v - greatest);
          for (size_t j = 0; j < p.size(); ++j)
            for (int64_t d = 0; d < D; ++d) mixed[h * D + d] += p[j] / total * values[seen[j]][g * D + d];
        }
        const Vector a = layer(w, at + "self_attn.o_proj", mixed, C);
        add(next[t], does[t].attention_gate, a);
        add(hidden, 1, a);
      }
      if (!together) hidden = next[t];
      if (does[t].mlp == Path::light) add(next[t], 1, light(c, w, mlp_unit, hidden, mlp_rank));
      if (does[t].mlp == Path::full) {
        const Vector u = normed(hidden, &w.at(at + "post_attention_layernorm.weight"), c.rms_norm_eps);
        Vector f = layer(w, at + "mlp.gate_proj", u, c.intermediate_size);
        const Vector up = layer(w, at + "mlp.up_proj", u, c.intermediate_size);
        for (size_t i = 0; i < f.size(); ++i) f[i] = silu(f[i]) * up[i];
        add(next[t], does[t].mlp_gate, layer(w, at + "mlp.down_proj", f, C));
      }
    }
    x = next;
  }
  const auto& head = w.at(c.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight");
  for (int64_t t = 0; t < T; ++t)
    out.logits.push_back(times(head, normed(x[t], &w.at("model.norm.weight"), c.rms_norm_eps), c.vocab_size));
  return out;
}

}  // namespace fathom::infer::test
