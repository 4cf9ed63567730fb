// One block: rows that run its attention, compacted, against that block's pages; rows that run its MLP; rows of light paths. Each
// adds its delta to the residual stream.
#include <algorithm>
#include <array>

#include "infer/step.h"
#include "kernels/pack.h"

namespace fathom::infer {
namespace {

void norm_rows(Step& step, const float* x, int64_t rows, const std::vector<float>& weight, float* y) {
  const int64_t C = step.config.hidden_size;
  over_rows(step, rows, C, [&](int64_t first, int64_t last) {
    step.kernels.rms_norm(x + first * C, C, last - first, C, weight.data(), static_cast<float>(step.config.rms_norm_eps),
                          y + first * C, C);
  });
}

// y + bias of `rows` rows, where the model has one.
void add_bias(const Step& step, float* y, int64_t rows, const std::vector<float>& bias) {
  const int64_t width = static_cast<int64_t>(bias.size());
  for (int64_t i = 0; width > 0 && i < rows; ++i) step.kernels.add(y + i * width, bias.data(), width, y + i * width);
}

// One row's queries or keys, from the product on: bias, norm of every head, RoPE.
void finish_heads(const Step& step, float* x, int64_t heads, const std::vector<float>& bias, const std::vector<float>& norm, int64_t position) {
  const int64_t D = step.config.head_dim;
  add_bias(step, x, 1, bias);
  if (!norm.empty()) step.kernels.rms_norm(x, D, heads, D, norm.data(), static_cast<float>(step.config.rms_norm_eps), x, D);
  step.kernels.rope(x, heads, D, step.rope.cosine(position), step.rope.sine(position));
}

// The same of a product's [rows, C] output, shared out.
void add_output_bias(Step& step, int64_t rows, const std::vector<float>& bias) {
  if (bias.empty()) return;
  const int64_t C = step.config.hidden_size;
  over_rows(step, rows, C, [&](int64_t first, int64_t last) { add_bias(step, step.delta.data() + first * C, last - first, bias); });
}

// Some rows of the residual stream, side by side and normed; `weight` may be null.
void norm_stream(Step& step, std::span<const int64_t> rows, const float* weight, float* y) {
  const int64_t C = step.config.hidden_size;
  over_rows(step, static_cast<int64_t>(rows.size()), C, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i)
      step.kernels.rms_norm(step.x.data() + rows[i] * C, C, 1, C, weight, static_cast<float>(step.config.rms_norm_eps), y + i * C, C);
  });
}

// x += g · delta [rows, C] in the residual stream; no gates: 1 everywhere.
void add_delta(Step& step, std::span<const int64_t> rows, const std::vector<float>& gate, const float* delta) {
  const int64_t C = step.config.hidden_size;
  over_rows(step, static_cast<int64_t>(rows.size()), C, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      float* const x = step.x.data() + rows[i] * C;
      if (gate.empty()) step.kernels.add(x, delta + i * C, C, x);
      else step.kernels.scaled_add(x, delta + i * C, gate[i], C, x);
    }
  });
}

void gather(Step& step, const float* from, std::span<const int64_t> rows, int64_t width, float* to) {
  over_rows(step, static_cast<int64_t>(rows.size()), width, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) std::copy_n(from + rows[i] * width, width, to + i * width);
  });
}

}  // namespace

// a = attention(norm(x)) of step.running: adds g·a to the stream. Where the MLP is to read x + a and the gate is not 1, keeps that in
// step.hidden. Returns the slots of keys and values written.
static int64_t run_attention(Step& step, int64_t block) {
  const model::ModelConfig& config = step.config;
  if (!config.has_part(block, routing::Part::attention)) return 0;
  const BlockWeights& w = step.weights.blocks()[block];
  const int64_t N = step.row_count(), M = static_cast<int64_t>(step.running.size()), C = config.hidden_size;
  const int64_t H = config.num_attention_heads, G = config.num_key_value_heads, D = config.head_dim;
  const bool all_write = M == N || config.routing.kv == routing::KvPolicy::keep;  // keys and values
  const int64_t writers = all_write ? N : M;
  if (writers == 0) return 0;

  // u = norm(x) of the rows that write keys and values, and of those that run among them.
  step.normed.grow(writers * C);
  if (all_write) norm_rows(step, step.x.data(), N, w.attention_norm, step.normed.data());
  else norm_stream(step, step.running, w.attention_norm.data(), step.normed.data());
  const float* u = step.normed.data();
  if (writers != M) {
    step.normed_running.grow(M * C);
    gather(step, step.normed.data(), step.running, C, step.normed_running.data());
    u = step.normed_running.data();
  }
  step.q.grow(M * H * D);
  step.k.grow(writers * G * D);
  step.v.grow(writers * G * D);
  const std::array qkv{Product{u, M, &w.q, step.q.data(), &w.q_adapter}, Product{step.normed.data(), writers, &w.k, step.k.data(), &w.k_adapter},
                       Product{step.normed.data(), writers, &w.v, step.v.data(), &w.v_adapter}};
  products(step, qkv);

  // Slots are taken in row order, then written.
  step.slots.resize(writers);
  for (int64_t i = 0; i < writers; ++i) step.slots[i] = step.rows[all_write ? i : step.running[i]].sequence->append(block);
  over_rows(step, writers, 2 * G * D, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const Row& row = step.rows[all_write ? i : step.running[i]];
      float* const key = step.k.data() + i * G * D;
      finish_heads(step, key, G, w.k_bias, w.k_norm, row.position);
      add_bias(step, step.v.data() + i * G * D, 1, w.v_bias);
      step.kernels.store_slot({.type = step.pool.layout().type, .key = key, .value = step.v.data() + i * G * D, .kv_heads = G, .head_dim = D,
                               .slot = step.slots[i] % kPagePositions, .page = step.pool.page(row.sequence->page_table(block)[step.slots[i] / kPagePositions])});
    }
  });
  if (M == 0) return writers;
  over_rows(step, M, H * D, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) finish_heads(step, step.q.data() + i * H * D, H, w.q_bias, w.q_norm, step.rows[step.running[i]].position);
  });

  step.visible.resize(M);
  for (int64_t i = 0; i < M; ++i) step.visible[i] = step.slots[writers == M ? i : step.running[i]] + 1;
  attend(step, step.visible, block);

  step.delta.grow(M * C);
  const Product output{step.q.data(), M, &w.o, step.delta.data(), &w.o_adapter};
  products(step, {&output, 1});
  add_output_bias(step, M, w.o_bias);
  if (step.whole && !step.gate.empty()) {  // h = x + a
    step.hidden.grow(M * C);
    over_rows(step, M, C, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i)
        step.kernels.add(step.x.data() + step.running[i] * C, step.delta.data() + i * C, C, step.hidden.data() + i * C);
    });
  }
  add_delta(step, step.running, step.gate, step.delta.data());
  return writers;
}

// m = down(silu(gate u) · up u) of step.mlp_running, u = norm(h): adds g·m to the stream.
static void run_mlp(Step& step, int64_t block) {
  const int64_t M = static_cast<int64_t>(step.mlp_running.size()), C = step.config.hidden_size, F = step.config.intermediate_size;
  if (M == 0) return;
  const BlockWeights& w = step.weights.blocks()[block];
  step.normed.grow(M * C);
  float* const u = step.normed.data();
  if (step.whole && !step.gate.empty()) norm_rows(step, step.hidden.data(), M, w.mlp_norm, u);
  else norm_stream(step, step.mlp_running, w.mlp_norm.data(), u);
  step.gate_up.grow(2 * M * F);
  step.delta.grow(M * C);
  float* const gate = step.gate_up.data();
  float* const up = gate + M * F;
  const std::array gate_up{Product{u, M, &w.gate, gate, &w.gate_adapter}, Product{u, M, &w.up, up, &w.up_adapter}};
  products(step, gate_up);
  over_rows(step, M, F, [&](int64_t first, int64_t last) {
    add_bias(step, gate + first * F, last - first, w.gate_bias);
    add_bias(step, up + first * F, last - first, w.up_bias);
    step.kernels.silu_mul(gate + first * F, up + first * F, (last - first) * F, gate + first * F);
  });
  const Product down{gate, M, &w.down, step.delta.data(), &w.down_adapter};
  products(step, {&down, 1});
  add_output_bias(step, M, w.down_bias);
  add_delta(step, step.mlp_running, step.mlp_gate, step.delta.data());
}

// up(down(x / rms(x))) of some rows: added to the stream.
static void run_light(Step& step, std::span<const int64_t> rows, const UnitWeights* w) {
  const int64_t M = static_cast<int64_t>(rows.size()), C = step.config.hidden_size;
  if (M == 0) return;
  step.normed.grow(M * C);
  step.low.grow(M * w->light_down.outputs());
  step.delta.grow(M * C);
  norm_stream(step, rows, nullptr, step.normed.data());
  const Product down{step.normed.data(), M, &w->light_down, step.low.data()};
  products(step, {&down, 1});
  const Product up{step.low.data(), M, &w->light_up, step.delta.data()};
  products(step, {&up, 1});
  add_delta(step, rows, {}, step.delta.data());
}

// Rows of one part are disjoint; the MLP's read what attention and its light path left in the stream.
int64_t run_block(Step& step, int64_t block, const std::function<void()>& between) {
  const int64_t slots = run_attention(step, block);
  run_light(step, step.light, step.light_weights);
  if (between) between();
  run_mlp(step, block);
  run_light(step, step.mlp_light, step.mlp_light_weights);
  return slots;
}

}  // namespace fathom::infer
