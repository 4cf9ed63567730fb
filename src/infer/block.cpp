// One block over the rows that run it: compacted, computed against that block's pages, written back.
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

void gather(Step& step, const float* from, std::span<const int64_t> rows, int64_t width, float* to) {
  over_rows(step, static_cast<int64_t>(rows.size()), width, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) std::copy_n(from + rows[i] * width, width, to + i * width);
  });
}

}  // namespace

int64_t run_block(Step& step, int64_t block, bool routed) {
  const model::ModelConfig& config = step.config;
  const BlockWeights& w = step.weights.blocks()[block];
  const int64_t N = step.row_count(), M = static_cast<int64_t>(step.running.size());
  const int64_t C = config.hidden_size, F = config.intermediate_size;
  const int64_t H = config.num_attention_heads, G = config.num_key_value_heads, D = config.head_dim;
  const bool all_run = M == N;
  const bool all_write = all_run || config.routing.kv == routing::KvPolicy::keep;  // keys and values
  const int64_t writers = all_write ? N : M;
  if (writers == 0) return 0;

  // Rows that run, side by side: x_r [M, C].
  float* x_r = step.x.data();
  if (!all_run) {
    step.compact.grow(M * C);
    x_r = step.compact.data();
    gather(step, step.x.data(), step.running, C, x_r);
  }

  // u = norm(x) of the rows that write keys and values, and of those that run among them.
  step.normed.grow(writers * C);
  norm_rows(step, all_write ? step.x.data() : x_r, writers, w.attention_norm, step.normed.data());
  const float* u = step.normed.data();
  if (writers != M) {
    step.normed_running.grow(M * C);
    gather(step, step.normed.data(), step.running, C, step.normed_running.data());
    u = step.normed_running.data();
  }
  step.q.grow(M * H * D);
  step.k.grow(writers * G * D);
  step.v.grow(writers * G * D);
  const std::array qkv{Product{u, M, &w.q, step.q.data()}, Product{step.normed.data(), writers, &w.k, step.k.data()},
                       Product{step.normed.data(), writers, &w.v, step.v.data()}};
  products(step, qkv);

  // Slots are taken in row order, then written.
  step.slots.resize(writers);
  for (int64_t i = 0; i < writers; ++i) step.slots[i] = step.rows[all_write ? i : step.running[i]].sequence->append(block);
  over_rows(step, writers, 2 * G * D, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const Row& row = step.rows[all_write ? i : step.running[i]];
      float* const key = step.k.data() + i * G * D;
      step.kernels.rope(key, G, D, step.rope.cosine(row.position), step.rope.sine(row.position));
      step.kernels.store_slot({.type = step.pool.layout().type, .key = key, .value = step.v.data() + i * G * D, .kv_heads = G, .head_dim = D,
                               .slot = step.slots[i] % kPagePositions, .page = step.pool.page(row.sequence->page_table(block)[step.slots[i] / kPagePositions])});
    }
  });
  if (M == 0) return writers;
  over_rows(step, M, H * D, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t position = step.rows[step.running[i]].position;
      step.kernels.rope(step.q.data() + i * H * D, H, D, step.rope.cosine(position), step.rope.sine(position));
    }
  });

  step.visible.resize(M);
  for (int64_t i = 0; i < M; ++i) step.visible[i] = step.slots[writers == M ? i : step.running[i]] + 1;
  attend(step, step.visible, block);

  // h = x + a
  step.attention.grow(M * C);
  step.hidden.grow(M * C);
  float* const a = step.attention.data();
  float* const h = step.hidden.data();
  const Product output{step.q.data(), M, &w.o, a};
  products(step, {&output, 1});
  step.normed.grow(M * C);
  float* const u2 = step.normed.data();
  over_rows(step, M, C, [&](int64_t first, int64_t last) {
    step.kernels.add(x_r + first * C, a + first * C, (last - first) * C, h + first * C);
    step.kernels.rms_norm(h + first * C, C, last - first, C, w.mlp_norm.data(), static_cast<float>(config.rms_norm_eps),
                          u2 + first * C, C);
  });

  // m = down(silu(gate u2) · up u2)
  step.gate_up.grow(2 * M * F);
  step.mlp.grow(M * C);
  float* const gate = step.gate_up.data();
  float* const up = gate + M * F;
  float* const m = step.mlp.data();
  const std::array gate_up{Product{u2, M, &w.gate, gate}, Product{u2, M, &w.up, up}};
  products(step, gate_up);
  over_rows(step, M, F, [&](int64_t first, int64_t last) {
    step.kernels.silu_mul(gate + first * F, up + first * F, (last - first) * F, gate + first * F);
  });
  const Product down{gate, M, &w.down, m};
  products(step, {&down, 1});

  // x' = (x + g·a) + g·m; in a block that is not routed h + m, the same for g = 1.
  over_rows(step, M, C, [&](int64_t first, int64_t last) {
    if (!routed) return step.kernels.add(h + first * C, m + first * C, (last - first) * C, step.x.data() + first * C);
    for (int64_t i = first; i < last; ++i)
      step.kernels.gated_add(x_r + i * C, a + i * C, m + i * C, step.gate[i], C, step.x.data() + step.running[i] * C);
  });
  return writers;
}

}  // namespace fathom::infer
