#include <algorithm>
#include <array>
#include <type_traits>

#include "core/error.h"
#include "infer/step.h"
#include "kernels/pack.h"

namespace fathom::infer {

namespace {

using kernels::Operand;
using kernels::PackedMatrix;
using kernels::QuantizedRows;

// A chunk holds at most this many rows, so that its inputs stay in the second-level cache beside a group of weights.
constexpr int64_t kRowBlock = 96;
// Below this many multiply–adds (about 3 µs of reading weights) a second thread costs more than it saves.
constexpr int64_t kWorthThreads = 1 << 15;

// The inputs of one set of jobs as their weights want them: each once for all jobs that read it so.
class Operands {
 public:
  explicit Operands(Step& step) : step_(step) {}

  void add(const Product& job) {
    const Operand form = operand_of(job.w->packing());
    if (form == Operand::f32 || job.rows == 0 || find(job)) return;
    FATHOM_ASSERT(count_ < std::size(step_.operands), "more inputs in one set of products than ", std::size(step_.operands));
    const int64_t width = job.w->inner();
    kernels::Buffer& memory = step_.operands[count_];
    Input input{job.x, job.rows, form, nullptr, {}};
    if (form == Operand::bf16) {
      const int64_t pairs = stride_of(job);
      memory.grow(job.rows * pairs);
      input.pairs = memory.data();
      over_rows(step_, job.rows, width, [&](int64_t first, int64_t last) {
        step_.kernels.round_rows(job.x + first * width, width, last - first, width, input.pairs + first * pairs);
      });
    } else {
      const int64_t blocks = kernels::block_count(width), each = job.rows * blocks;
      memory.grow(each * (kernels::kBlock / 4 + 3));  // codes, a scale, two sums
      input.codes = {reinterpret_cast<int8_t*>(memory.data()), memory.data() + each * (kernels::kBlock / 4),
                     reinterpret_cast<int32_t*>(memory.data() + each * (kernels::kBlock / 4 + 1)), blocks};
      over_rows(step_, job.rows, width, [&](int64_t first, int64_t last) {
        step_.kernels.quantize_rows(job.x + first * width, width, last - first, width, from(input.codes, first));
      });
    }
    inputs_[count_++] = input;
  }
  QuantizedRows codes_of(const Product& job, int64_t row) const { return from(find(job)->codes, row); }
  const float* numbers_of(const Product& job, int64_t row) const {
    return (operand_of(job.w->packing()) == Operand::f32 ? job.x : find(job)->pairs) + row * stride_of(job);
  }
  // Between its rows: numbers, or pairs of bf16.
  static int64_t stride_of(const Product& job) {
    return operand_of(job.w->packing()) == Operand::bf16 ? kernels::pair_count(job.w->inner()) : job.w->inner();
  }

 private:
  struct Input {
    const float* x = nullptr;
    int64_t rows = 0;
    Operand form = Operand::f32;
    float* pairs = nullptr;
    QuantizedRows codes;
  };
  static QuantizedRows from(const QuantizedRows& all, int64_t row) {
    return {all.codes + row * all.blocks * kernels::kBlock, all.scale + row * all.blocks, all.half_sum + row * all.blocks * 2, all.blocks};
  }
  const Input* find(const Product& job) const {
    for (size_t i = 0; i < count_; ++i)
      if (inputs_[i].x == job.x && inputs_[i].rows == job.rows && inputs_[i].form == operand_of(job.w->packing())) return &inputs_[i];
    return nullptr;
  }

  Step& step_;
  size_t count_ = 0;
  Input inputs_[std::extent_v<decltype(Step::operands)>];
};

void compute(Step& step, std::span<const Product> jobs) {
  Operands operands(step);
  int64_t chunks = 0, work = 0;
  for (const Product& job : jobs) {
    operands.add(job);
    chunks += job.w->groups() * ((job.rows + kRowBlock - 1) / kRowBlock);
    work += job.w->outputs() * job.w->inner() * job.rows;
    if (job.rows > 0) step.weight_bytes += job.w->bytes();
  }
  const auto one = [&](int64_t chunk) {
    for (const Product& job : jobs) {
      const int64_t row_blocks = (job.rows + kRowBlock - 1) / kRowBlock, here = job.w->groups() * row_blocks;
      if (chunk >= here) {
        chunk -= here;
        continue;
      }
      const PackedMatrix& w = *job.w;
      const int64_t row = chunk % row_blocks * kRowBlock, rows = std::min(kRowBlock, job.rows - row), group = chunk / row_blocks;
      float* const y = job.y + row * w.outputs();
      if (kernels::is_plain(w.packing()))
        return step.kernels.matmul({.x = operands.numbers_of(job, row), .x_stride = Operands::stride_of(job), .rows = rows, .packing = w.packing(), .packed = w.data(), .outputs = w.outputs(),
                                    .inner = w.inner(), .y = y, .y_stride = w.outputs(), .group_begin = group, .group_end = group + 1});
      return step.kernels.quantized_matmul({.x = operands.codes_of(job, row), .rows = rows, .packing = w.packing(), .packed = w.data(), .outputs = w.outputs(),
                                            .y = y, .y_stride = w.outputs(), .group_begin = group, .group_end = group + 1});
    }
  };
  if (work < kWorthThreads) {
    for (int64_t chunk = 0; chunk < chunks; ++chunk) one(chunk);
  } else {
    step.threads.parallel_for(chunks, std::ref(one));
  }
}

}  // namespace

void products(Step& step, std::span<const Product> jobs) {
  FATHOM_ASSERT(jobs.size() <= kProducts, jobs.size(), " products in one set");
  const auto adapter_of = [](const Product& job) { return job.adapter && *job.adapter && job.rows > 0 ? &**job.adapter : nullptr; };
  int64_t low_size = 0, delta_size = 0;
  for (const Product& job : jobs)
    if (const AdapterWeights* a = adapter_of(job)) low_size += job.rows * a->down.outputs(), delta_size += job.rows * a->up.outputs();
  if (delta_size == 0) return compute(step, jobs);

  // A x beside W x, whose input it reads; then B (A x).
  step.adapter_low.grow(low_size);
  step.adapter_delta.grow(delta_size);
  std::array<Product, 2 * kProducts> first;
  std::array<Product, kProducts> second;
  size_t count = std::ranges::copy(jobs, first.begin()).out - first.begin(), adapted = 0;
  float *low = step.adapter_low.data(), *delta = step.adapter_delta.data();
  for (const Product& job : jobs) {
    const AdapterWeights* a = adapter_of(job);
    if (!a) continue;
    first[count++] = {.x = job.x, .rows = job.rows, .w = &a->down, .y = low};
    second[adapted++] = {.x = low, .rows = job.rows, .w = &a->up, .y = delta};
    low += job.rows * a->down.outputs(), delta += job.rows * a->up.outputs();
  }
  compute(step, {first.data(), count});
  compute(step, {second.data(), adapted});
  delta = step.adapter_delta.data();
  for (const Product& job : jobs) {
    const AdapterWeights* a = adapter_of(job);
    if (!a) continue;
    const int64_t width = a->up.outputs();
    over_rows(step, job.rows, width, [&](int64_t from, int64_t to) {
      step.kernels.add(job.y + from * width, delta + from * width, (to - from) * width, job.y + from * width);
    });
    delta += job.rows * width;
  }
}

void over_rows(Step& step, int64_t rows, int64_t width, const std::function<void(int64_t, int64_t)>& body) {
  constexpr int64_t kFloats = 1 << 13;  // of one chunk
  const int64_t per_chunk = std::max<int64_t>(1, kFloats / std::max<int64_t>(1, width));
  if (step.threads.size() == 1 || rows <= per_chunk) {
    if (rows > 0) body(0, rows);
    return;
  }
  step.threads.parallel_for((rows + per_chunk - 1) / per_chunk, [&](int64_t chunk) {
    body(chunk * per_chunk, std::min(rows, (chunk + 1) * per_chunk));
  });
}

}  // namespace fathom::infer
