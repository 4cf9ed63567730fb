#include <algorithm>

#include "core/error.h"
#include "infer/step.h"
#include "kernels/pack.h"

namespace fathom::infer {

namespace {

using kernels::PackedMatrix;
using kernels::QuantizedRows;

// A chunk holds at most this many rows, so that its inputs stay in the second-level cache beside a group of weights.
constexpr int64_t kRowBlock = 96;
// Below this many multiply–adds (about 3 µs of reading weights) a second thread costs more than it saves.
constexpr int64_t kWorthThreads = 1 << 15;

// The quantised inputs of one set of jobs.
class Codes {
 public:
  explicit Codes(Step& step) : step_(step) {}

  void add(const Product& job) {
    if (find(job) || job.rows == 0) return;
    FATHOM_ASSERT(count_ < 2, "three inputs in one set of products");
    const int64_t blocks = kernels::block_count(job.w->inner()), each = job.rows * blocks;
    kernels::Buffer& memory = step_.codes[count_];
    memory.grow(each * (kernels::kBlock / 4 + 3));  // codes, a scale, two sums
    QuantizedRows rows{reinterpret_cast<int8_t*>(memory.data()), memory.data() + each * (kernels::kBlock / 4),
                       reinterpret_cast<int32_t*>(memory.data() + each * (kernels::kBlock / 4 + 1)), blocks};
    const int64_t width = job.w->inner();
    over_rows(step_, job.rows, width, [&](int64_t first, int64_t last) {
      step_.kernels.quantize_rows(job.x + first * width, width, last - first, width, from(rows, first));
    });
    x_[count_] = job.x, n_[count_] = job.rows, rows_[count_] = rows;
    ++count_;
  }
  QuantizedRows of(const Product& job, int64_t row) const { return from(*find(job), row); }

 private:
  static QuantizedRows from(const QuantizedRows& all, int64_t row) {
    return {all.codes + row * all.blocks * kernels::kBlock, all.scale + row * all.blocks, all.half_sum + row * all.blocks * 2, all.blocks};
  }
  const QuantizedRows* find(const Product& job) const {
    for (int i = 0; i < count_; ++i)
      if (x_[i] == job.x && n_[i] == job.rows) return &rows_[i];
    return nullptr;
  }

  Step& step_;
  int count_ = 0;
  const float* x_[2] = {};
  int64_t n_[2] = {};
  QuantizedRows rows_[2];
};

}  // namespace

void products(Step& step, std::span<const Product> jobs) {
  Codes codes(step);
  int64_t chunks = 0, work = 0;
  for (const Product& job : jobs) {
    if (!kernels::is_plain(job.w->packing())) codes.add(job);
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
        return step.kernels.matmul({.x = job.x + row * w.inner(), .x_stride = w.inner(), .rows = rows, .packing = w.packing(), .packed = w.data(), .outputs = w.outputs(),
                                    .inner = w.inner(), .y = y, .y_stride = w.outputs(), .group_begin = group, .group_end = group + 1});
      return step.kernels.quantized_matmul({.x = codes.of(job, row), .rows = rows, .packing = w.packing(), .packed = w.data(), .outputs = w.outputs(),
                                            .y = y, .y_stride = w.outputs(), .group_begin = group, .group_end = group + 1});
    }
  };
  if (work < kWorthThreads) {
    for (int64_t chunk = 0; chunk < chunks; ++chunk) one(chunk);
  } else {
    step.threads.parallel_for(chunks, std::ref(one));
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
