#include "study/held_out.h"

#include <algorithm>
#include <filesystem>

#include "core/limits.h"
#include "data/shards.h"

namespace fathom::study {
namespace {

void check_size(int64_t tokens, const std::string& where) {
  if (tokens > limits::kEvaluationTokens)
    throw UserError({where, "", str("more than ", limits::kEvaluationTokens, " tokens"), "fewer", "give a part of the text"});
}

void read_dataset(const std::string& folder, const text::Tokenizer& tokenizer, std::vector<std::vector<int32_t>>& documents, int64_t& tokens) {
  const auto dataset = data::Dataset::open(folder, "validation");
  dataset->require_tokenizer(tokenizer.identity(), "the model");
  check_size(tokens += dataset->tokens(), folder);
  for (int64_t d = 0; d < dataset->documents(); ++d) {
    const int64_t begin = dataset->document_begin(d);
    documents.emplace_back(static_cast<size_t>(dataset->document_begin(d + 1) - begin));
    dataset->read(begin, documents.back());
  }
}

void read_text(const std::vector<std::string>& inputs, const text::Tokenizer& tokenizer, const DocumentEnds& ends, const HeldOutOptions& options,
               std::vector<std::vector<int32_t>>& documents, int64_t& tokens) {
  data::DocumentStream stream(inputs, options.documents);
  for (std::string text; stream.next(text);) {
    std::vector<int32_t> ids;
    const bool whole = stream.is_conversation();
    if (ends.begin && !whole) ids.push_back(*ends.begin);
    tokenizer.encode_append(text, {.allow_special = whole}, ids);
    if (ends.end && !whole) ids.push_back(*ends.end);
    check_size(tokens += static_cast<int64_t>(ids.size()), inputs.front());
    documents.push_back(std::move(ids));
    if (options.progress) options.progress(stream.bytes_read(), stream.total_bytes());
  }
}

// A path below the working folder as it would be typed here: pages are shown to others.
// As it stands in what is kept and passed on: where a text lies on this machine is nobody's business.
std::string from_here(const std::string& path) {
  const std::filesystem::path p(path), relative = p.lexically_relative(std::filesystem::current_path());
  if (!p.is_absolute()) return path;
  return relative.empty() || *relative.begin() == ".." ? p.filename().string() : relative.string();
}

}  // namespace

int64_t predicted_tokens(const std::vector<Window>& windows) {
  int64_t tokens = 0;
  for (const Window& w : windows) tokens += static_cast<int64_t>(w.tokens.size()) - 1;
  return tokens;
}

std::vector<Window> spread_windows(const std::vector<Window>& all, int64_t limit) {
  size_t take = all.size();
  for (;;) {  // window i of `take` stands at the middle of its share
    std::vector<Window> out;
    for (size_t i = 0; i < take; ++i) out.push_back(all[(2 * i + 1) * all.size() / (2 * take)]);
    const int64_t predicted = predicted_tokens(out);
    if (limit <= 0 || predicted <= limit || take <= 1) return out;
    take = std::clamp<size_t>(static_cast<size_t>(static_cast<double>(take) * static_cast<double>(limit) / static_cast<double>(predicted)), 1, take - 1);
  }
}

std::vector<Window> take_half(HeldOut& text) {
  if (text.windows.size() < 2)
    throw UserError({text.name, "", "one window of text", "two or more: thresholds come from one half, figures from the other", "give more text, or less --context"});
  std::vector<Window> taken, left;
  for (size_t i = 0; i < text.windows.size(); ++i) (i % 2 == 0 ? taken : left).push_back(text.windows[i]);
  text.windows = std::move(left);
  text.predicted = predicted_tokens(text.windows);
  return taken;
}

HeldOut cut_windows(std::vector<std::vector<int32_t>> documents, int64_t context, int64_t limit) {
  FATHOM_ASSERT(context >= 2, "a window of ", context, " tokens predicts nothing");
  HeldOut text;
  text.documents = std::move(documents);
  std::vector<Window> all;
  for (size_t d = 0; d < text.documents.size(); ++d) {
    const std::span<const int32_t> ids = text.documents[d];
    const int64_t size = static_cast<int64_t>(ids.size());
    for (int64_t begin = 0; begin + 1 < size; begin += context - 1)
      all.push_back({d, begin, 0, ids.subspan(static_cast<size_t>(begin), static_cast<size_t>(std::min(context, size - begin)))});
  }
  text.all_windows = static_cast<int64_t>(all.size());
  text.windows = spread_windows(all, limit);
  text.predicted = predicted_tokens(text.windows);
  const size_t take = text.windows.size();
  text.by_stretch = text.documents.size() < kFewDocuments;
  text.units = text.by_stretch ? std::min(kStretches, take) : text.documents.size();
  for (size_t i = 0; i < take; ++i) text.windows[i].unit = text.by_stretch ? i * text.units / take : text.windows[i].document;
  return text;
}

HeldOut load_held_out(const std::vector<std::string>& inputs, const text::Tokenizer& tokenizer, const DocumentEnds& ends, const HeldOutOptions& options) {
  FATHOM_ASSERT(!inputs.empty(), "no text");
  std::vector<std::vector<int32_t>> documents;
  std::vector<std::string> plain;
  int64_t tokens = 0;
  std::string name;
  for (const std::string& input : inputs) {
    name += (name.empty() ? "" : ", ") + from_here(input);
    if (data::is_dataset(input)) read_dataset(input, tokenizer, documents, tokens);
    else plain.push_back(input);
  }
  if (!plain.empty()) read_text(plain, tokenizer, ends, options, documents, tokens);
  HeldOut text = cut_windows(std::move(documents), options.context, options.limit);
  if (text.windows.empty()) throw UserError({name, "", "no document of two tokens", "text to evaluate on", ""});
  text.name = name;
  return text;
}

}  // namespace fathom::study
