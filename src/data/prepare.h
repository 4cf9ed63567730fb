// Text to a dataset folder (data/shards.h): streams documents, splits, encodes on many threads, writes shards. Deterministic:
// neither threads nor interruptions change a byte of the result. Work in progress stands in a hidden folder beside the
// target and is picked up by the next call with the same inputs and options; the target appears at once and whole.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "data/documents.h"
#include "data/shards.h"
#include "text/tokenizer.h"

namespace fathom::data {

enum class SplitMode {
  automatic,  // by_hash when there are enough documents for about five of them in validation, else by_tail; none at share 0
  by_hash,    // whole documents
  by_tail,    // the end of every document
  none,       // all is train
};

struct PrepareOptions {
  DocumentOptions documents;
  SplitMode split = SplitMode::automatic;
  double validation_share = 0.02;
  bool add_bos = true, add_eos = true;    // around every document, when the tokenizer has them
  int64_t shard_tokens = int64_t{1} << 24;  // a shard is closed after the document that reaches it
  int threads = 1;
  int64_t batch_bytes = 16 << 20;         // of text encoded between two calls of progress: several pieces of a long one at once
  bool restart = false;                   // forget an interrupted run instead of going on
  // Called after every batch with bytes of the sources read and in all; may throw to interrupt (nothing is lost).
  std::function<void(int64_t done, int64_t total, int64_t tokens)> progress;
};

struct PrepareResult {
  Manifest manifest;
  DocumentCounts counts;      // of this run; after a resume, of what was left
  bool resumed = false;
  int64_t train_tokens = 0, validation_tokens = 0, train_documents = 0, validation_documents = 0;
};

PrepareResult prepare(const std::vector<std::string>& inputs, const std::string& folder, const text::Tokenizer& tokenizer,
                      const PrepareOptions& options = {});

}  // namespace fathom::data
