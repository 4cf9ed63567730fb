#include "text/word_count.h"

#include "core/utf8.h"

namespace fathom::text {
namespace {

constexpr size_t kPartBytes = size_t{1} << 18;   // a document is cut into parts of about this size
constexpr size_t kBatchBytes = size_t{1} << 23;  // counted at once by all threads

}  // namespace

size_t safe_cut(std::string_view text, size_t from) {
  for (size_t at = text.find('\n', from); at != std::string_view::npos && at + 1 < text.size(); at = text.find('\n', at + 1)) {
    const char c = text[at + 1];
    if (at == 0 || text[at - 1] <= ' ' || text[at - 1] > '~') continue;
    if ((c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z')) return at + 1;
  }
  return text.size();
}

WordCounter::WordCounter(WordRule rule, int threads) : rule_(rule), pool_(threads), counts_(static_cast<size_t>(threads)) {}
WordCounter::~WordCounter() = default;

void WordCounter::add(std::string_view document) {
  std::string repaired;
  if (!is_utf8(document)) document = repaired = utf8_repair(document);
  while (!document.empty()) {
    const size_t end = document.size() <= kPartBytes ? document.size() : safe_cut(document, kPartBytes);
    batch_.emplace_back(document.substr(0, end));
    batch_bytes_ += end;
    document.remove_prefix(end);
    if (batch_bytes_ >= kBatchBytes) flush();
  }
}

void WordCounter::flush() {
  const auto threads = static_cast<int64_t>(counts_.size());
  pool_.parallel_for(threads, [&](int64_t t) {
    Counts& counts = counts_[static_cast<size_t>(t)];
    for (size_t i = static_cast<size_t>(t); i < batch_.size(); i += counts_.size()) {
      const std::string_view text = batch_[i];
      for_each_word(rule_, text, [&](size_t begin, size_t end) {
        const std::string_view word = text.substr(begin, end - begin);
        if (const auto it = counts.find(word); it != counts.end()) ++it->second;
        else counts.emplace(word, 1);
      });
    }
  });
  batch_.clear();
  batch_bytes_ = 0;
}

std::vector<std::pair<std::string, int64_t>> WordCounter::finish() {
  flush();
  Counts& all = counts_[0];
  for (size_t t = 1; t < counts_.size(); ++t) {
    for (const auto& [word, count] : counts_[t]) all[word] += count;
    counts_[t].clear();
  }
  std::vector<std::pair<std::string, int64_t>> out(all.begin(), all.end());
  all.clear();
  return out;
}

}  // namespace fathom::text
