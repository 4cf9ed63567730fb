#include "infer/score.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace fathom::infer {
namespace {

// A document on its way through the engine.
struct Reading {
  size_t document = 0;
  std::span<const int32_t> ids;
  std::vector<int32_t> targets;  // [T] the next id, −1 for the last
  Sequence sequence;
  int64_t read = 0;
  DocumentScore score;
};

void append(DocumentScore& score, const StepResult& result, size_t item) {
  const StepResult::Item& at = result.items[item];
  score.nll.insert(score.nll.end(), result.nll.begin() + at.first_row, result.nll.begin() + at.first_row + at.rows);
  score.best.insert(score.best.end(), result.best.begin() + at.first_row, result.best.begin() + at.first_row + at.rows);
  result.append_decisions(item, score.decisions);
}

}  // namespace

void score_documents(Engine& engine, std::span<const std::span<const int32_t>> documents, const ScoreOptions& options,
                     const std::function<void(DocumentScore&&)>& done) {
  FATHOM_ASSERT(options.rows_per_step >= 1, options.rows_per_step);
  const bool whole = options.policy.rule == Rule::topk;
  constexpr int64_t kFairShare = 4;  // documents side by side: enough to fill a step when some are short
  const int64_t chunk = whole ? INT64_MAX : std::max<int64_t>(1, options.rows_per_step / kFairShare);

  int64_t longest = 0;
  for (const std::span<const int32_t> ids : documents) longest = std::max(longest, std::ssize(ids));
  engine.require_room(longest);  // before any work is done

  std::vector<Reading> open;  // in order of document
  size_t next = 0;
  StepResult result;
  std::vector<WorkItem> items;
  while (next < documents.size() || !open.empty()) {
    // A document is opened when this step has room for its next chunk, and the first one always.
    items.clear();
    int64_t rows = 0;
    const auto planned = [&](const Reading& r) { return std::min<int64_t>(chunk, static_cast<int64_t>(r.ids.size()) - r.read); };
    for (const Reading& r : open) rows += planned(r);
    int64_t kv_bytes = 0;  // that those which are not read yet may need
    for (const Reading& r : open) kv_bytes += planned(r) > 0 ? engine.kv_bytes_for(std::ssize(r.ids)) : 0;
    while (next < documents.size()) {
      const std::span<const int32_t> ids = documents[next];
      if (ids.empty()) throw UserError({str("document ", next), "", "no token", "at least one", ""});
      const int64_t first = std::min<int64_t>(chunk, std::ssize(ids));
      if (!open.empty() && rows + first > options.rows_per_step) break;
      if (kv_bytes > 0 && kv_bytes + engine.kv_bytes_for(std::ssize(ids)) > engine.pool().byte_limit()) break;
      kv_bytes += engine.kv_bytes_for(std::ssize(ids));
      Reading r{.document = next, .ids = ids, .targets = std::vector<int32_t>(ids.begin() + 1, ids.end()),
                .sequence = engine.new_sequence(), .score = {}};
      r.targets.push_back(-1);
      r.score.document = next++;
      open.push_back(std::move(r));
      rows += first;
    }
    std::vector<Reading*> reading;  // those that are not waiting for an earlier document
    for (Reading& r : open) {
      const size_t count = static_cast<size_t>(planned(r)), at = static_cast<size_t>(r.read);
      if (count == 0) continue;
      reading.push_back(&r);
      items.push_back({.sequence = &r.sequence, .tokens = r.ids.subspan(at, count), .policy = &options.policy,
                       .logits = Logits::none, .targets = std::span<const int32_t>(r.targets).subspan(at, count)});
    }
    engine.forward(items, result);
    for (size_t i = 0; i < reading.size(); ++i) {
      result.refuse_nan_scores(engine.config(), result.items[i].first_row, result.items[i].rows);
      append(reading[i]->score, result, i);
      reading[i]->read += static_cast<int64_t>(items[i].tokens.size());
      if (planned(*reading[i]) == 0) reading[i]->sequence.clear();
    }
    size_t ready = 0;
    while (ready < open.size() && planned(open[ready]) == 0) {
      DocumentScore& score = open[ready++].score;
      score.nll.pop_back();
      score.best.pop_back();
      for (size_t t = 0; t < score.nll.size(); ++t)
        if (!std::isfinite(score.nll[t]))
          throw UserError({"the model", str("document ", score.document, ", token ", t + 1), "a loss that is not finite", "numbers", "are its weights damaged?"});
      done(std::move(score));
    }
    open.erase(open.begin(), open.begin() + static_cast<int64_t>(ready));
  }
}

DocumentScore score_document(Engine& engine, std::span<const int32_t> document, const ScoreOptions& options) {
  DocumentScore score;
  score_documents(engine, {&document, 1}, options, [&](DocumentScore&& s) { score = std::move(s); });
  return score;
}

}  // namespace fathom::infer
