#include "train/loader.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>

#include "core/limits.h"
#include "core/random.h"

namespace fathom::train {
namespace {

// The windows of an epoch.
struct Epoch {
  int64_t offset, windows;
  Permutation order;
};
Epoch epoch_of(const data::Dataset& dataset, int64_t tokens, uint64_t seed, int64_t number) {
  const int64_t spare = dataset.tokens() - 1;  // the last window needs one token after it
  Random random = Random(seed).fork(str("epoch ", number));
  const int64_t slack = std::min(tokens, spare - tokens + 1);
  const int64_t offset = static_cast<int64_t>(random.below(static_cast<uint64_t>(slack)));
  const int64_t windows = (spare - offset) / tokens;
  return {offset, windows, Permutation(static_cast<uint64_t>(windows), random.bits())};
}

}  // namespace

Permutation::Permutation(uint64_t n, uint64_t key) : n_(n), key_(key), half_bits_(1) {
  FATHOM_ASSERT(n > 0 && n <= (uint64_t{1} << 62), n);
  while ((uint64_t{1} << (2 * half_bits_)) < n) ++half_bits_;
}

uint64_t Permutation::operator()(uint64_t i) const {
  FATHOM_ASSERT(i < n_, i, " of ", n_);
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  do {
    uint64_t left = i >> half_bits_, right = i & mask;
    for (uint64_t round = 0; round < 4; ++round) {
      const uint64_t next = left ^ (mix64(key_ ^ mix64(right + round * 0x9e3779b97f4a7c15ULL)) & mask);
      left = right;
      right = next;
    }
    i = left << half_bits_ | right;
  } while (i >= n_);
  return i;
}

Json LoaderState::to_json() const { return {{"seed", seed}, {"epoch", epoch}, {"position", position}}; }

LoaderState LoaderState::from_json(const Fields& fields) {
  LoaderState s;
  s.seed = static_cast<uint64_t>(fields.integer("seed", 0, INT64_MAX));
  s.epoch = fields.integer("epoch", 0, limits::kTrainTokens);
  s.position = fields.integer("position", 0, limits::kTrainTokens);
  fields.done();
  return s;
}

Batch empty_batch(int64_t rows, int64_t tokens) {
  const auto n = static_cast<size_t>(rows * tokens);
  return {rows, tokens, std::vector<int32_t>(n), std::vector<int32_t>(n), std::vector<int32_t>(n)};
}

Batch read_batch(const data::Dataset& dataset, std::span<const int64_t> begins, int64_t row_tokens) {
  Batch batch = empty_batch(std::ssize(begins), row_tokens);
  for (size_t row = 0; row < begins.size(); ++row) fill_row(dataset, begins[row], batch, static_cast<int64_t>(row));
  return batch;
}

int64_t document_end(const Batch& batch, int64_t row, int64_t begin) {
  const auto start = [&](int64_t t) { return batch.document_start[static_cast<size_t>(row * batch.tokens + t)]; };
  int64_t end = begin + 1;
  while (end < batch.tokens && start(end) == start(begin)) ++end;
  return end;
}

void fill_row(const data::Dataset& dataset, int64_t begin, Batch& batch, int64_t row) {
  const int64_t T = batch.tokens;
  std::vector<int32_t> ids(static_cast<size_t>(T + 1));
  dataset.read(begin, ids);
  const int64_t at = row * T;
  std::copy_n(ids.begin(), T, batch.input.begin() + at);
  std::copy_n(ids.begin() + 1, T, batch.target.begin() + at);
  int64_t d = dataset.document_of(begin), next = dataset.document_begin(d + 1);
  int32_t start = 0;
  for (int64_t t = 0; t < T; ++t) {
    while (begin + t >= next) {
      start = static_cast<int32_t>(t);
      next = dataset.document_begin(++d + 1);
    }
    batch.document_start[static_cast<size_t>(at + t)] = start;
    // Nothing before it says how another document begins.
    if (begin + t + 1 == next) batch.target[static_cast<size_t>(at + t)] = kIgnore;
  }
}

struct Loader::Work {
  std::shared_ptr<const data::Dataset> dataset;
  int64_t rows, tokens;

  struct Ready {
    Batch batch;
    LoaderState after;
    std::exception_ptr error;
  };
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<Ready> ready;
  bool stop = false;
  LoaderState handed_out;
  std::thread thread;

  Ready make(LoaderState& state) const {
    Ready r;
    const size_t n = static_cast<size_t>(rows * tokens);
    r.batch = {rows, tokens, std::vector<int32_t>(n), std::vector<int32_t>(n), std::vector<int32_t>(n)};
    Epoch e = epoch_of(*dataset, tokens, state.seed, state.epoch);
    for (int64_t row = 0; row < rows; ++row) {
      if (state.position >= e.windows) {
        ++state.epoch;
        state.position = 0;
        e = epoch_of(*dataset, tokens, state.seed, state.epoch);
      }
      const int64_t window = static_cast<int64_t>(e.order(static_cast<uint64_t>(state.position++)));
      fill_row(*dataset, e.offset + window * tokens, r.batch, row);
    }
    r.after = state;
    return r;
  }

  void loop(LoaderState state) {
    while (true) {
      {
        std::unique_lock lock(mutex);
        changed.wait(lock, [&] { return stop || ready.size() < static_cast<size_t>(kReadAhead); });
        if (stop) return;
      }
      Ready r;
      try {
        r = make(state);
      } catch (...) {
        r.error = std::current_exception();
      }
      const bool failed = r.error != nullptr;
      {
        std::lock_guard lock(mutex);
        ready.push_back(std::move(r));
      }
      changed.notify_all();
      if (failed) return;
    }
  }
};

LoaderState state_after(const data::Dataset& dataset, int64_t row_tokens, uint64_t seed, int64_t rows) {
  LoaderState s{.seed = seed};
  for (;; ++s.epoch) {
    const int64_t windows = epoch_of(dataset, row_tokens, seed, s.epoch).windows;
    if (rows <= windows) break;
    rows -= windows;
  }
  s.position = rows;
  return s;
}

Loader::Loader(std::shared_ptr<const data::Dataset> dataset, int64_t rows, int64_t tokens, LoaderState state)
    : work_(std::make_unique<Work>()) {
  if (dataset->tokens() < tokens + 1)
    throw UserError({dataset->folder(), "train", str(dataset->tokens(), " tokens"), str("at least sequence_length + 1 = ", tokens + 1),
                     "give more text or a shorter sequence_length"});
  work_->dataset = std::move(dataset);
  work_->rows = rows;
  work_->tokens = tokens;
  work_->handed_out = state;
  work_->thread = std::thread([w = work_.get(), state] { w->loop(state); });
}

Loader::~Loader() {
  {
    std::lock_guard lock(work_->mutex);
    work_->stop = true;
  }
  work_->changed.notify_all();
  work_->thread.join();
}

Batch Loader::next() {
  Work::Ready r;
  {
    std::unique_lock lock(work_->mutex);
    work_->changed.wait(lock, [&] { return !work_->ready.empty(); });
    if (work_->ready.front().error) std::rethrow_exception(work_->ready.front().error);
    r = std::move(work_->ready.front());
    work_->ready.pop_front();
    work_->handed_out = r.after;
  }
  work_->changed.notify_all();
  return std::move(r.batch);
}

LoaderState Loader::state() const {
  std::lock_guard lock(work_->mutex);
  return work_->handed_out;
}

int64_t Loader::windows_per_epoch() const {
  const LoaderState s = state();
  return epoch_of(*work_->dataset, work_->tokens, s.seed, s.epoch).windows;
}

std::vector<int64_t> evaluation_windows(const data::Dataset& dataset, int64_t tokens, int64_t row_tokens, int part, int parts) {
  const int64_t windows = (dataset.tokens() - 1) / row_tokens;
  if (windows < parts)
    throw UserError({dataset.folder(), "validation", str(dataset.tokens(), " tokens of held-out text"),
                     str("at least ", parts, " × sequence_length + 1 = ", parts * row_tokens + 1),
                     "prepare more text or a greater validation share, or shorten sequence_length"});
  const int64_t mine = (windows - part + parts - 1) / parts;  // windows part, part + parts, part + 2·parts, …
  const int64_t wanted = std::clamp<int64_t>(tokens / row_tokens, 1, mine);
  std::vector<int64_t> out;
  for (int64_t i = 0; i < wanted; ++i) out.push_back((part + parts * (i * mine / wanted)) * row_tokens);
  return out;
}

}  // namespace fathom::train
