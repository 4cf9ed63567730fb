#include <algorithm>

#include "infer/step.h"
#include "kernels/pack.h"

namespace fathom::infer {

namespace {
// A chunk holds at most this many rows, so that its inputs stay in the second-level cache beside a group of weights.
constexpr int64_t kRowBlock = 96;
// Below this many multiply–adds (about 3 µs of reading weights) a second thread costs more than it saves.
constexpr int64_t kWorthThreads = 1 << 15;
}  // namespace

void products(Step& step, std::span<const kernels::Matmul> jobs) {
  int64_t chunks = 0, work = 0;
  for (const kernels::Matmul& job : jobs) {
    chunks += kernels::group_count(job.outputs) * ((job.rows + kRowBlock - 1) / kRowBlock);
    work += job.outputs * job.inner * job.rows;
  }
  const auto one = [&](int64_t chunk) {
    for (kernels::Matmul job : jobs) {
      const int64_t row_blocks = (job.rows + kRowBlock - 1) / kRowBlock;
      const int64_t here = kernels::group_count(job.outputs) * row_blocks;
      if (chunk >= here) {
        chunk -= here;
        continue;
      }
      const int64_t row = chunk % row_blocks * kRowBlock;
      job.x += row * job.x_stride;
      job.y += row * job.y_stride;
      job.rows = std::min(kRowBlock, job.rows - row);
      job.group_begin = chunk / row_blocks;
      job.group_end = job.group_begin + 1;
      return step.kernels.matmul(job);
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
