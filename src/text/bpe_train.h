// Training of a byte-level BPE: documents stream in once, are cut into words by GPT-2's or Llama-3's pattern and
// counted; then the most frequent pair is merged again and again (Sennrich et al. 2016). Deterministic: ties go to the
// pair whose ids are smaller, and neither threads nor the cut into chunks change a byte of the result, which is a
// tokenizer.json that `tokenizers` reads with equal ids.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace fathom::text {

enum class WordPattern {
  gpt2,    // letters, digits, the rest; a word keeps its leading space
  llama3,  // as Llama-3: digits in groups of at most three, so numbers keep a regular form; newlines stay with punctuation
};

struct BpeTrainOptions {
  int64_t vocab_size = 4096;  // with the special tokens and the 256 bytes; fewer when the text has no more pairs
  std::vector<std::string> special_tokens = {"<|endoftext|>"};  // ids from 0
  WordPattern pattern = WordPattern::llama3;
  int64_t min_frequency = 2;  // pairs seen less often are not merged
  int threads = 1;            // for the counting
  std::string source = "the text";  // its name in errors
  // Called now and then: stage "count" with bytes read, stage "merge" with merges done of `total`.
  std::function<void(const std::string& stage, int64_t done, int64_t total)> progress;
};

struct BpeTrainResult {
  std::string tokenizer_json;
  int64_t vocab_size = 0;
  int64_t bytes = 0;           // of text read
  int64_t words = 0;           // occurrences
  int64_t distinct_words = 0;
};

// `next` fills the next document and returns true, or returns false at the end. Special tokens that stand in a
// document count as text. UserError when there is no text at all.
BpeTrainResult train_bpe(const std::function<bool(std::string&)>& next, const BpeTrainOptions& options);

}  // namespace fathom::text
