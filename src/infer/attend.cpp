// Attention of the rows that run a block, over that block's pages.
#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>

#include "infer/step.h"

namespace fathom::infer {
namespace {

using kernels::Attend;
using kernels::kAttendQueries;
using kernels::kLanes;

constexpr int64_t kWorthThreads = 1 << 14;   // multiply–adds: a few µs, about what sharing them out costs
constexpr int64_t kWorthParting = 512;       // slots of a text whose heads are shared out piece by piece

int64_t pages_of(const Attend& a) { return (a.visible[a.count - 1] + kLanes - 1) / kLanes; }

float* scratch(int64_t floats) {
  thread_local kernels::Buffer buffer;
  buffer.grow(floats);
  return buffer.data();
}

void attend_whole(const Step& step, Attend a) {
  std::array<float, kAttendQueries> inverse;
  a.scores = scratch(a.count * pages_of(a) * kLanes);
  a.inverse = inverse.data();
  kernels::attend_scores(step.kernels, a, 0, pages_of(a));
  step.kernels.attend_softmax(a, 0, a.count);
  kernels::attend_values(step.kernels, a, 0, a.head_dim);
}

// A few long jobs for many threads: every step of them is shared out, scores by pages, weights by queries, values by columns. No
// sum is cut, so the results are the same.
void attend_in_parts(Step& step, std::span<Attend> jobs) {
  struct Part {
    Attend* job;
    int64_t begin, end;
  };
  const int64_t wanted = 4 * step.threads.size();  // parts
  int64_t floats = 0, pages = 0;
  for (const Attend& a : jobs) floats += a.count * (pages_of(a) * kLanes + 1), pages += pages_of(a);
  step.scores.grow(floats);
  float* at = step.scores.data();
  for (Attend& a : jobs) {
    a.scores = at;
    a.inverse = at += a.count * pages_of(a) * kLanes;
    at += a.count;
  }
  std::vector<Part> parts;
  const auto cut = [&](Attend& job, int64_t size, int64_t each) {
    for (int64_t begin = 0; begin < size; begin += each) parts.push_back({&job, begin, std::min(begin + each, size)});
  };
  const auto run = [&](auto one) {
    step.threads.parallel_for(std::ssize(parts), [&](int64_t i) { one(parts[static_cast<size_t>(i)]); });
    parts.clear();
  };
  const auto up_to = [](int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; };
  for (Attend& a : jobs) cut(a, pages_of(a), up_to((pages + wanted - 1) / wanted, 16));
  run([&](const Part& p) { kernels::attend_scores(step.kernels, *p.job, p.begin, p.end); });
  for (Attend& a : jobs) cut(a, a.count, 1);
  run([&](const Part& p) { step.kernels.attend_softmax(*p.job, p.begin, p.end); });
  const int64_t each = (wanted + std::ssize(jobs) - 1) / std::ssize(jobs);  // parts of a job
  for (Attend& a : jobs) {
    const int64_t columns = up_to((a.head_dim + each - 1) / each, kLanes);
    cut(a, a.head_dim, columns > kLanes ? up_to(columns, kKvBlock) : columns);
  }
  run([&](const Part& p) { kernels::attend_values(step.kernels, *p.job, p.begin, p.end); });
}

}  // namespace

void attend(Step& step, std::span<const int64_t> visible, int64_t block) {
  const auto began = std::chrono::steady_clock::now();
  const int64_t H = step.config.num_attention_heads, G = step.config.num_key_value_heads, D = step.config.head_dim;
  const int64_t share = H / G, M = static_cast<int64_t>(step.running.size());
  const kernels::KvPage& layout = step.pool.layout();

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
  // A job is up to eight queries of one key/value head: they meet each key and value while it is in a register.
  step.heads.resize(static_cast<size_t>(M * H)), step.head_visible.resize(static_cast<size_t>(M * H));
  std::vector<Attend> jobs;
  int64_t work = 0, longest = 0;
  size_t at = 0;
  for (const Segment& s : segments) {
    const int64_t slots = visible[s.last - 1];
    longest = std::max(longest, slots);
    step.attention_bytes += slots * layout.slot_bytes();
    for (int64_t g = 0; g < G; ++g) {
      size_t first = at;
      for (int64_t i = s.first; i < s.last; ++i)
        for (int64_t h = 0; h < share; ++h, ++at) {
          step.heads[at] = step.q.data() + (i * H + g * share + h) * D;
          step.head_visible[at] = visible[i];
        }
      for (; first < at; first += kAttendQueries) {
        const int64_t count = std::min<int64_t>(kAttendQueries, static_cast<int64_t>(at - first));
        jobs.push_back({.type = layout.type, .pages = step.pages.data() + s.pages, .key_offset = layout.keys(g), .value_offset = layout.values(g), .head_dim = D,
                        .scale = 1.0f / std::sqrt(static_cast<float>(D)), .queries = step.heads.data() + first, .outputs = step.heads.data() + first,
                        .visible = step.head_visible.data() + first, .count = count});
        work += jobs.back().visible[count - 1] * D * count;
      }
    }
  }

  const int64_t count = std::ssize(jobs), threads = step.threads.size();
  if (threads == 1 || work < kWorthThreads) {
    for (const Attend& job : jobs) attend_whole(step, job);
  } else if (count >= 2 * threads || longest < kWorthParting) {
    step.threads.parallel_for(count, [&](int64_t i) { attend_whole(step, jobs[static_cast<size_t>(i)]); });
  } else {
    attend_in_parts(step, jobs);
  }
  step.attention_seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
}

}  // namespace fathom::infer
