// Counts the words of documents, on several threads. The counts do not depend on the threads.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/thread_pool.h"
#include "text/word_patterns.h"

namespace fathom::text {

class WordCounter {
 public:
  WordCounter(WordRule rule, int threads);
  ~WordCounter();
  void add(std::string_view document);
  // All words with their counts; the counter is empty afterwards.
  std::vector<std::pair<std::string, int64_t>> finish();

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view s) const { return std::hash<std::string_view>{}(s); }
  };
  using Counts = std::unordered_map<std::string, int64_t, Hash, std::equal_to<>>;
  void flush();

  WordRule rule_;
  ThreadPool pool_;
  std::vector<Counts> counts_;      // per thread
  std::vector<std::string> batch_;  // texts that end where a word ends
  size_t batch_bytes_ = 0;
};

// Where `text` may be cut so that the parts have the words of the whole: behind a line end between a printing character and
// a letter or digit of ASCII. (Behind more white space it may not: GPT-2's pattern takes the last space of a run apart when
// something follows, and not when the text ends.) The first such place at or after `from`; text.size() without one.
size_t safe_cut(std::string_view text, size_t from);

}  // namespace fathom::text
