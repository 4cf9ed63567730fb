// vocabulary_tool METADATA OUT: tokenizer.json of GGUF metadata that Python has dumped as JSON ({"model", "pre", "tokens",
// "token_type", "merges", "scores", "bos_token_id", …}); prints the ids of the beginning and the end of a document, -1 for none.
#include <iostream>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/file.h"
#include "core/json.h"
#include "text/gguf_vocabulary.h"
#include "text/tokenizer.h"

namespace {

using fathom::Json;

template <class T>
std::vector<T> array(const Json& all, const char* key) {
  return all.contains(key) ? all.at(key).get<std::vector<T>>() : std::vector<T>();
}

template <class T>
std::optional<T> value(const Json& all, const char* key) {
  return all.contains(key) ? std::optional<T>(all.at(key).get<T>()) : std::nullopt;
}

int run(const std::string& from, const std::string& to) {
  const Json all = Json::parse(fathom::read_file(from, int64_t{1} << 30));
  const std::string model = all.value("model", ""), pre = all.value("pre", "");
  const auto tokens = array<std::string>(all, "tokens"), merges = array<std::string>(all, "merges");
  const auto types = array<int32_t>(all, "token_type");
  const auto scores = array<float>(all, "scores");
  const std::vector<std::string_view> token_views(tokens.begin(), tokens.end()), merge_views(merges.begin(), merges.end());
  fathom::text::GgufVocabulary v;
  v.model = model, v.pre = pre, v.tokens = token_views, v.merges = merge_views, v.token_type = types, v.scores = scores;
  v.bos_id = value<int64_t>(all, "bos_token_id"), v.eos_id = value<int64_t>(all, "eos_token_id");
  v.unknown_id = value<int64_t>(all, "unknown_token_id"), v.padding_id = value<int64_t>(all, "padding_token_id");
  v.add_bos_token = value<bool>(all, "add_bos_token"), v.add_eos_token = value<bool>(all, "add_eos_token");
  v.add_space_prefix = value<bool>(all, "add_space_prefix"), v.remove_extra_whitespaces = value<bool>(all, "remove_extra_whitespaces");
  const auto tokenizer = fathom::text::Tokenizer::from_gguf(v, from);
  fathom::atomic_write(to, tokenizer.json());
  std::cout << tokenizer.bos_id().value_or(-1) << " " << tokenizer.eos_id().value_or(-1) << "\n";
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return argc == 3 ? run(argv[1], argv[2]) : 2;
  } catch (const std::exception& e) {
    std::cerr << e.what() << "\n";
    return 1;
  }
}
