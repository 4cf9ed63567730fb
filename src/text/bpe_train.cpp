#include "text/bpe_train.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "core/error.h"
#include "core/json.h"
#include "core/limits.h"
#include "core/utf8.h"
#include "text/byte_alphabet.h"
#include "text/word_count.h"

namespace fathom::text {
namespace {

// Words as lists of ids, and for every pair of neighbours how often it stands in the text and in which words.
class PairMerger {
 public:
  PairMerger(const std::vector<std::pair<std::string, int64_t>>& words, const int32_t (&byte_ids)[256], std::vector<std::string> tokens)
      : tokens_(std::move(tokens)) {
    for (const auto& [word, count] : words) {
      if (word.size() < 2) continue;
      words_.push_back({symbols_.size(), static_cast<uint32_t>(word.size()), count});
      for (const char b : word) symbols_.push_back(byte_ids[static_cast<uint8_t>(b)]);
    }
    for (uint32_t w = 0; w < words_.size(); ++w) {
      const int32_t* s = &symbols_[words_[w].start];
      for (uint32_t i = 0; i + 1 < words_[w].length; ++i) change(s[i], s[i + 1], words_[w].count, w);
    }
    for (const uint64_t pair : touched_) queue_.push_back({pairs_[pair].count, pair});
    std::make_heap(queue_.begin(), queue_.end());
    touched_.clear();
  }

  // Merges the most frequent pair into a new token; false when none is frequent enough.
  bool merge(int64_t min_frequency, const std::unordered_set<std::string>& taken) {
    while (!queue_.empty()) {
      std::pop_heap(queue_.begin(), queue_.end());
      const Candidate top = queue_.back();
      queue_.pop_back();
      Pair& pair = pairs_[top.pair];
      if (pair.count != top.count) {  // it was counted before later merges took some away
        if (pair.count > 0) push(top.pair, pair.count);
        continue;
      }
      if (top.count < std::max<int64_t>(1, min_frequency)) return false;
      const auto left = static_cast<int32_t>(top.pair >> 32), right = static_cast<int32_t>(top.pair & 0xffffffff);
      std::string text = tokens_[static_cast<size_t>(left)] + tokens_[static_cast<size_t>(right)];
      if (taken.contains(text) || static_cast<int64_t>(text.size()) > limits::kTokenBytes) continue;  // never a token
      const auto merged = static_cast<int32_t>(tokens_.size());
      tokens_.push_back(std::move(text));
      merges_.emplace_back(left, right);
      std::vector<uint32_t> where = std::move(pair.words);
      std::sort(where.begin(), where.end());
      where.erase(std::unique(where.begin(), where.end()), where.end());
      for (const uint32_t w : where) rewrite(w, left, right, merged);
      pairs_.erase(top.pair);  // none is left, and none will come: merges only make longer tokens
      for (const uint64_t p : touched_)
        if (const auto it = pairs_.find(p); it != pairs_.end() && it->second.count > 0) push(p, it->second.count);
      touched_.clear();
      return true;
    }
    return false;
  }

  const std::vector<std::string>& tokens() const { return tokens_; }
  const std::vector<std::pair<int32_t, int32_t>>& merges() const { return merges_; }

 private:
  struct Word {
    size_t start;
    uint32_t length;
    int64_t count;
  };
  struct Pair {
    int64_t count = 0;
    std::vector<uint32_t> words;  // where it stands or stood
  };
  struct Candidate {
    int64_t count;
    uint64_t pair;
    // A heap's top is the greatest: the most frequent, of equals the smallest ids.
    bool operator<(const Candidate& o) const { return count != o.count ? count < o.count : pair > o.pair; }
  };

  void push(uint64_t pair, int64_t count) {
    queue_.push_back({count, pair});
    std::push_heap(queue_.begin(), queue_.end());
  }

  void change(int32_t left, int32_t right, int64_t by, uint32_t word) {
    const uint64_t key = static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
    Pair& pair = pairs_[key];
    pair.count += by;
    if (by <= 0) return;
    // A word is listed once in a row; the list is made unique when it is used.
    if (pair.words.empty()) touched_.push_back(key);
    if (pair.words.empty() || pair.words.back() != word) pair.words.push_back(word);
  }

  void rewrite(uint32_t w, int32_t left, int32_t right, int32_t merged) {
    Word& word = words_[w];
    int32_t* s = &symbols_[word.start];
    uint32_t out = 0;
    for (uint32_t i = 0; i < word.length;) {
      if (!(i + 1 < word.length && s[i] == left && s[i + 1] == right)) {
        s[out++] = s[i++];
        continue;
      }
      if (out > 0) {
        change(s[out - 1], left, -word.count, w);
        change(s[out - 1], merged, word.count, w);
      }
      if (i + 2 < word.length) {
        change(right, s[i + 2], -word.count, w);
        change(merged, s[i + 2], word.count, w);
      }
      s[out++] = merged;
      i += 2;
    }
    word.length = out;
  }

  std::vector<std::string> tokens_;  // in GPT-2's letters
  std::vector<std::pair<int32_t, int32_t>> merges_;
  std::vector<int32_t> symbols_;
  std::vector<Word> words_;
  std::unordered_map<uint64_t, Pair> pairs_;
  std::vector<uint64_t> touched_;  // pairs that came up and have no place in the queue yet
  std::vector<Candidate> queue_;
};

std::string quoted(const std::string& text) { return Json(text).dump(); }

std::string to_json(const BpeTrainOptions& options, const std::vector<std::string>& tokens, const std::vector<std::pair<int32_t, int32_t>>& merges) {
  std::string out = "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n  \"added_tokens\": [";
  for (size_t i = 0; i < options.special_tokens.size(); ++i)
    out += str(i ? "," : "", "\n    {\"id\": ", i, ", \"content\": ", quoted(options.special_tokens[i]),
               ", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, \"normalized\": false, \"special\": true}");
  out += "\n  ],\n  \"normalizer\": null,\n  \"pre_tokenizer\": ";
  if (options.pattern == WordPattern::gpt2) {
    out += "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": true}";
  } else {
    out += "{\"type\": \"Sequence\", \"pretokenizers\": [\n    {\"type\": \"Split\", \"pattern\": {\"Regex\": " +
           quoted(word_rule_pattern(WordRule::llama3)) +
           "}, \"behavior\": \"Isolated\", \"invert\": false},\n"
           "    {\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": false}\n  ]}";
  }
  out +=
      ",\n  \"post_processor\": null,\n"
      "  \"decoder\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": true},\n"
      "  \"model\": {\n    \"type\": \"BPE\",\n    \"dropout\": null,\n    \"unk_token\": null,\n    \"continuing_subword_prefix\": null,\n"
      "    \"end_of_word_suffix\": null,\n    \"fuse_unk\": false,\n    \"byte_fallback\": false,\n    \"ignore_merges\": false,\n    \"vocab\": {";
  for (size_t i = 0; i < tokens.size(); ++i) out += str(i ? "," : "", "\n      ", quoted(tokens[i]), ": ", i);
  out += "\n    },\n    \"merges\": [";
  for (size_t i = 0; i < merges.size(); ++i)
    out += str(i ? "," : "", "\n      [", quoted(tokens[static_cast<size_t>(merges[i].first)]), ", ",
               quoted(tokens[static_cast<size_t>(merges[i].second)]), "]");
  return out + "\n    ]\n  }\n}\n";
}

void check(const BpeTrainOptions& o) {
  if (o.threads < 1 || o.threads > limits::kThreads) throw UserError({"tokenizer training", "threads", str(o.threads), str("1 to ", limits::kThreads), ""});
  if (o.min_frequency < 0) throw UserError({"tokenizer training", "min_frequency", str(o.min_frequency), "0 or more", ""});
  std::unordered_set<std::string> seen;
  for (const std::string& token : o.special_tokens) {
    if (token.empty() || static_cast<int64_t>(token.size()) > limits::kAddedTokenBytes || !is_utf8(token))
      throw UserError({"tokenizer training", "special_tokens", "\"" + printable(token) + "\"", str("1 to ", limits::kAddedTokenBytes, " bytes of UTF-8"), ""});
    char32_t c = 0;
    if (utf8_decode(token, c) == token.size() && letter_to_byte(c) >= 0)
      throw UserError({"tokenizer training", "special_tokens", "\"" + printable(token) + "\"", "not the name of a single byte", ""});
    if (!seen.insert(token).second) throw UserError({"tokenizer training", "special_tokens", "\"" + printable(token) + "\" twice", "each once", ""});
  }
  const auto least = static_cast<int64_t>(o.special_tokens.size()) + 256;
  if (o.vocab_size < least || o.vocab_size > limits::kVocabulary)
    throw UserError({"tokenizer training", "vocab_size", str(o.vocab_size), str(least, " (256 bytes and the special tokens) to ", limits::kVocabulary), ""});
}

}  // namespace

BpeTrainResult train_bpe(const std::function<bool(std::string&)>& next, const BpeTrainOptions& options) {
  check(options);
  BpeTrainResult result;
  WordCounter counter(options.pattern == WordPattern::gpt2 ? WordRule::gpt2 : WordRule::llama3, options.threads);
  std::string document;
  constexpr int64_t kReportBytes = 1 << 20;
  for (int64_t reported = 0; document.clear(), next(document);) {
    counter.add(document);
    result.bytes += static_cast<int64_t>(document.size());
    if (options.progress && result.bytes - reported >= kReportBytes) options.progress("count", reported = result.bytes, 0);
  }
  if (result.bytes == 0) throw UserError({options.source, "", "no text", "at least one document that is not empty", ""});
  if (options.progress) options.progress("count", result.bytes, result.bytes);
  const auto words = counter.finish();
  result.distinct_words = static_cast<int64_t>(words.size());
  for (const auto& [word, count] : words) result.words += count;

  // The first ids: special tokens, then the bytes in the order of their letters, as `tokenizers` numbers them.
  std::vector<std::string> tokens = options.special_tokens;
  std::vector<std::pair<std::string, int>> letters;
  for (int b = 0; b < 256; ++b) letters.emplace_back(byte_to_letter(static_cast<uint8_t>(b)), b);
  std::sort(letters.begin(), letters.end());  // UTF-8 sorts as code points do
  int32_t byte_ids[256];
  for (const auto& [letter, b] : letters) {
    byte_ids[b] = static_cast<int32_t>(tokens.size());
    tokens.push_back(letter);
  }
  const std::unordered_set<std::string> taken(options.special_tokens.begin(), options.special_tokens.end());
  PairMerger merger(words, byte_ids, std::move(tokens));
  const int64_t total = options.vocab_size - static_cast<int64_t>(merger.tokens().size());
  for (int64_t done = 0; done < total && merger.merge(options.min_frequency, taken); ++done)
    if (options.progress && (done + 1) % 64 == 0) options.progress("merge", done + 1, total);
  if (options.progress) options.progress("merge", static_cast<int64_t>(merger.merges().size()), total);
  result.vocab_size = static_cast<int64_t>(merger.tokens().size());
  result.tokenizer_json = to_json(options, merger.tokens(), merger.merges());
  return result;
}

}  // namespace fathom::text
