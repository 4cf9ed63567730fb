// Losses of documents, token by token, under any rule: what evaluation, depth maps and calibration read. Documents run in
// ragged batches of bounded memory; each one's result is the same to the bit however they are batched.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "infer/forward.h"
#include "infer/policy.h"

namespace fathom::infer {

struct ScoreOptions {
  RoutingPolicy policy;
  int64_t rows_per_step = 512;   // rows of a step, over all documents in it (topk: at least one whole document)
};

struct DocumentScore {
  size_t document = 0;
  std::vector<float> nll;        // [T − 1] −log p(token t+1 | tokens ≤ t)
  std::vector<int32_t> best;     // [T − 1] the most likely next id
  routing::Decisions decisions;  // run[u][T], score[u][T] (of the model's causal rule, whatever rule decided)
};

// Calls `done` once per document, in order. A document has 1 to max_position_embeddings tokens: cut longer ones before
// (UserError). Documents are read side by side as the engine's KV limit allows; one that may not fit alone is a UserError. The last token is read as well, so that every token has its decisions. UserError, too, where the model
// computes NaN or an infinite loss.
void score_documents(Engine& engine, std::span<const std::span<const int32_t>> documents, const ScoreOptions& options,
                     const std::function<void(DocumentScore&&)>& done);
DocumentScore score_document(Engine& engine, std::span<const int32_t> document, const ScoreOptions& options);

}  // namespace fathom::infer
