// The dense model that tuning goes by: what it says of the next token of every row, computed by the engine, which is the same to the bit however rows are
// batched. Its top log-probabilities are kept in a file when there is a folder for it: runs over the same rows then ask once.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "infer/forward.h"
#include "model/folder.h"
#include "nn/ops.h"
#include "train/loader.h"

namespace fathom::tune {

struct TeacherOptions {
  int64_t top = 64;           // log-probabilities per token, rounded to f16 whether they are kept or not; 0: all logits
  int threads = 0;            // 0: all cores that this process may use
  std::string cache;          // folder; "" = nothing is kept
  std::string rows;           // identity of the order of rows: dataset, seed
  int64_t row_tokens = 0;     // T
};

class Teacher {
 public:
  // UserError: a cache of other rows, a damaged one, one that another process fills.
  Teacher(std::shared_ptr<const model::ModelFolder> folder, const TeacherOptions& options);
  ~Teacher();

  const model::ModelFolder& folder() const;
  // Of the rows of `batch`, which are those from number `first_row` on in the run's order; [B·T, top] or [B·T, V].
  nn::Teacher rows(const train::Batch& batch, int64_t first_row);
  // Of rows outside that order, with its own loss there: the sum over targets that count.
  struct Answer {
    nn::Teacher said;
    double nll = 0;
    int64_t targets = 0;
  };
  Answer ask(const train::Batch& batch);

  // Bytes that so many tokens take in the cache, and rows that it holds.
  int64_t cache_bytes(int64_t tokens) const;
  int64_t cached_rows() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// UserError where `teacher` cannot teach `student`: another tokenizer, vocabulary, or shape (the shape may differ with `other`), a routed model.
void require_teacher(const model::ModelFolder& teacher, const model::ModelFolder& student, bool other);

}  // namespace fathom::tune
