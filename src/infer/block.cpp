// One block: rows that run its attention, compacted, against that block's pages; rows that run its MLP; rows of light paths. Each
// adds its delta to the residual stream.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

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

// Keys and values into their pages: key [G·D] after RoPE is spread over [G][D][16], value [G·D] goes to [G][16][D].
void write_slot(float* page, int64_t slot, int64_t kv_heads, int64_t head_dim, const float* key, const float* value) {
  const int64_t at = slot % kPagePositions;
  float* const keys = page + at;
  for (int64_t i = 0; i < kv_heads * head_dim; ++i) keys[i * kPagePositions] = key[i];
  float* const values = page + kv_heads * head_dim * kPagePositions;
  for (int64_t g = 0; g < kv_heads; ++g)
    std::copy_n(value + g * head_dim, head_dim, values + (g * kPagePositions + at) * head_dim);
}

// Some running rows of one item, for one key/value head: the unit of work that threads take.
struct AttentionTask {
  int64_t kv_head, first, last;  // running rows [first, last)
  const float* const* pages;
};

float* attention_scratch(int64_t floats) {
  thread_local kernels::Buffer scratch;
  scratch.grow(floats);
  return scratch.data();
}

}  // namespace

// The slots of step.slots belong to `writers` rows; a running row's own slot is its last visible one.
static void attend(Step& step, std::span<const int64_t> visible, int64_t block) {
  const int64_t H = step.config.num_attention_heads, G = step.config.num_key_value_heads, D = step.config.head_dim;
  const int64_t share = H / G, M = static_cast<int64_t>(step.running.size());
  constexpr int64_t kQueries = 32;  // of one task: enough to reuse a page, few enough to share out
  const int64_t rows_per_task = std::max<int64_t>(1, kQueries / share);

  // Runs of rows of one item, then the bases of its pages (pointers into `pages` are taken when it has its full size).
  struct Segment {
    int64_t first, last;
    size_t pages;
  };
  std::vector<Segment> segments;
  step.pages.clear();
  for (int64_t i = 0; i < M; ++i) {
    const Row& row = step.rows[step.running[i]];
    if (i == 0 || row.item != step.rows[step.running[i - 1]].item) {
      segments.push_back({i, i + 1, step.pages.size()});
      for (uint32_t page : row.sequence->page_table(block)) step.pages.push_back(step.pool.page(page));
    } else {
      segments.back().last = i + 1;
    }
  }
  std::vector<AttentionTask> tasks;
  int64_t work = 0;
  for (const Segment& s : segments)
    for (int64_t g = 0; g < G; ++g)
      for (int64_t first = s.first; first < s.last; first += rows_per_task) {
        tasks.push_back({g, first, std::min(s.last, first + rows_per_task), step.pages.data() + s.pages});
        work += visible[tasks.back().last - 1] * D * share * (tasks.back().last - first);
      }

  float* const q = step.q.data();
  const auto run = [&](int64_t t) {
    const AttentionTask& task = tasks[t];
    const int64_t count = (task.last - task.first) * share;
    std::array<float*, kQueries> small;
    std::array<int64_t, kQueries> small_visible;
    std::vector<float*> large;  // more heads per key/value head than a task holds queries
    std::vector<int64_t> large_visible;
    float** queries = small.data();
    int64_t* seen = small_visible.data();
    if (count > kQueries) {
      large.resize(count), large_visible.resize(count);
      queries = large.data(), seen = large_visible.data();
    }
    int64_t at = 0;
    for (int64_t i = task.first; i < task.last; ++i)
      for (int64_t h = 0; h < share; ++h, ++at) {
        queries[at] = q + (i * H + task.kv_head * share + h) * D;
        seen[at] = visible[i];
      }
    const int64_t slots = (seen[count - 1] + kPagePositions - 1) / kPagePositions * kPagePositions;
    step.kernels.attend({.pages = task.pages, .key_offset = task.kv_head * D * kPagePositions,
                         .value_offset = (G + task.kv_head) * D * kPagePositions, .head_dim = D,
                         .scale = 1.0f / std::sqrt(static_cast<float>(D)), .queries = queries, .outputs = queries,
                         .visible = seen, .count = count, .scratch = attention_scratch(kernels::kAttendTile * slots)});
  };
  if (work < (1 << 14)) {  // a few µs: sharing out costs as much
    for (size_t t = 0; t < tasks.size(); ++t) run(static_cast<int64_t>(t));
  } else {
    step.threads.parallel_for(static_cast<int64_t>(tasks.size()), std::ref(run));
  }
}

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
      finish_heads(step, key, G, w.k_bias, w.k_norm, row.position);
      add_bias(step, step.v.data() + i * G * D, 1, w.v_bias);
      float* const page = step.pool.page(row.sequence->page_table(block)[step.slots[i] / kPagePositions]);
      write_slot(page, step.slots[i], G, D, key, step.v.data() + i * G * D);
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
  const Product output{step.q.data(), M, &w.o, step.delta.data()};
  products(step, {&output, 1});
  add_bias(step, step.delta.data(), M, w.o_bias);
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
  const std::array gate_up{Product{u, M, &w.gate, gate}, Product{u, M, &w.up, up}};
  products(step, gate_up);
  over_rows(step, M, F, [&](int64_t first, int64_t last) {
    add_bias(step, gate + first * F, last - first, w.gate_bias);
    add_bias(step, up + first * F, last - first, w.up_bias);
    step.kernels.silu_mul(gate + first * F, up + first * F, (last - first) * F, gate + first * F);
  });
  const Product down{gate, M, &w.down, step.delta.data()};
  products(step, {&down, 1});
  add_bias(step, step.delta.data(), M, w.down_bias);
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
int64_t run_block(Step& step, int64_t block) {
  const int64_t slots = run_attention(step, block);
  run_light(step, step.light, step.light_weights);
  run_mlp(step, block);
  run_light(step, step.mlp_light, step.mlp_light_weights);
  return slots;
}

}  // namespace fathom::infer
