#include "text/gguf_pre_tokenizer.h"

#include <algorithm>

#include "core/error.h"
#include "core/json.h"
#include "core/log.h"
#include "text/word_patterns.h"

namespace fathom::text {
namespace {

enum class Words : uint8_t { unnamed, gpt2, digits, llama3, qwen2, qwen35, tekken, gpt4o, falcon, deepseek_coder, deepseek_v3 };

struct Known {
  const char* name;
  Words words;
  bool nfc, ignore_merges, add_bos;
};

// The names are those that llama.cpp's converter writes. Not here: those whose rule is known from one implementation only.
constexpr Known kKnown[] = {
    {"default", Words::unnamed, false, false, false},
    {"gpt-2", Words::gpt2, false, false, false},
    {"phi-2", Words::gpt2, false, false, false},
    {"mpt", Words::gpt2, false, false, false},
    {"olmo", Words::gpt2, false, false, false},
    {"smollm", Words::digits, false, false, false},
    {"starcoder", Words::digits, false, false, false},
    {"refact", Words::digits, false, false, false},
    {"codeshell", Words::digits, false, false, false},
    {"llama-bpe", Words::llama3, false, true, true},
    {"llama3", Words::llama3, false, true, true},
    {"llama-v3", Words::llama3, false, true, true},
    {"falcon3", Words::llama3, false, true, true},
    {"falcon-h1", Words::llama3, false, true, true},
    {"pixtral", Words::llama3, false, true, true},
    {"midm-2.0", Words::llama3, false, true, true},
    {"lfm2", Words::llama3, false, true, true},
    {"smaug-bpe", Words::llama3, false, false, false},
    {"dbrx", Words::llama3, false, false, false},
    // Qwen's own tokenizer.json asks for NFC, which llama.cpp leaves out: equal on text that is in NFC, as most is.
    {"qwen2", Words::qwen2, true, false, false},
    {"qwen35", Words::qwen35, true, false, false},
    {"deepseek-r1-qwen", Words::qwen2, false, false, false},
    {"megrez", Words::qwen2, false, false, false},
    {"tekken", Words::tekken, false, true, true},
    {"gpt-4o", Words::gpt4o, false, false, false},
    {"llama4", Words::gpt4o, false, false, false},
    {"falcon", Words::falcon, false, false, false},
    {"deepseek-coder", Words::deepseek_coder, false, false, false},
    {"deepseek-v3", Words::deepseek_v3, false, false, false},
};

std::string split(const std::string& regex) {
  return "{\"type\": \"Split\", \"pattern\": {\"Regex\": " + Json(regex).dump() + "}, \"behavior\": \"Isolated\", \"invert\": false}";
}

std::string byte_level(bool use_regex) {
  return std::string("{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": ") + (use_regex ? "true}" : "false}");
}

std::string digits(bool individual) { return std::string("{\"type\": \"Digits\", \"individual_digits\": ") + (individual ? "true}" : "false}"); }

std::string sequence(std::initializer_list<std::string> stages) {
  std::string out = "{\"type\": \"Sequence\", \"pretokenizers\": [";
  bool first = true;
  for (const auto& s : stages) out += (std::exchange(first, false) ? "" : ", ") + s;
  return out + "]}";
}

// Words of capital and small letters apart, as tekken and o200k have them; `contraction` may follow one.
std::string cased_words(const std::string& contraction, const char* numbers) {
  const std::string upper = "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]", lower = "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]", before = "[^\\r\\n\\p{L}\\p{N}]?";
  return before + upper + "*" + lower + "+" + contraction + "|" + before + upper + "+" + lower + "*" + contraction + "|" + numbers +
         "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
}

std::string words_json(Words words) {
  switch (words) {
    case Words::gpt2: return byte_level(true);
    case Words::digits: return sequence({digits(true), byte_level(true)});
    case Words::llama3: return sequence({split(word_rule_pattern(WordRule::llama3)), byte_level(false)});
    case Words::qwen2: return sequence({split(word_rule_pattern(WordRule::qwen2)), byte_level(false)});
    case Words::qwen35:
      return sequence({split("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"),
                       byte_level(false)});
    case Words::tekken: return sequence({split(cased_words("", "\\p{N}")), byte_level(false)});
    case Words::gpt4o: return sequence({split(cased_words("(?i:'s|'t|'re|'ve|'m|'ll|'d)?", "\\p{N}{1,3}")), byte_level(false)});
    case Words::falcon:
      return sequence({"{\"type\": \"Punctuation\", \"behavior\": \"Contiguous\"}", byte_level(true), digits(false), split("[0-9][0-9][0-9]")});
    case Words::deepseek_coder:
      return sequence({split("[\\r\\n]"), split("\\s?\\p{L}+"), split("\\s?\\p{P}+"), split("[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"), digits(true), byte_level(false)});
    case Words::deepseek_v3:
      return sequence({split("\\p{N}{1,3}"), split("[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"),
                       split("[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"),
                       byte_level(false)});
    case Words::unnamed:  // what llama.cpp takes for a file that names nothing
      return sequence({split("[\\p{P}\\$\\+<=>\\^~\\|]+"), split(word_rule_pattern(WordRule::gpt2)), split("\\p{N}+"), split("[0-9][0-9][0-9]"), byte_level(false)});
  }
  FATHOM_ASSERT(false, "words");
}

// Without what changes no id: offsets, and a sequence of one. Keys that ByteLevel may leave out get their defaults.
Json plain(Json stage) {
  if (!stage.is_object()) return stage;
  stage.erase("trim_offsets");
  if (stage.value("type", Json()) == "ByteLevel" && !stage.contains("use_regex")) stage["use_regex"] = true;
  const auto stages = stage.find("pretokenizers");
  if (stages == stage.end() || !stages->is_array()) return stage;
  for (Json& inner : *stages) inner = plain(inner);
  return stages->size() == 1 ? Json(stages->front()) : stage;
}

}  // namespace

std::optional<std::string> gguf_pre_tokenizer_name(const Json& pre_tokenizer, bool nfc, bool ignore_merges) {
  const Json wanted = plain(pre_tokenizer);
  for (const Known& k : kKnown)
    if (k.nfc == nfc && k.ignore_merges == ignore_merges && plain(Json::parse(words_json(k.words))) == wanted) return k.name;
  return {};
}

bool gguf_adds_bos(std::string_view model, std::string_view pre) {
  return model == "llama" || std::ranges::any_of(kKnown, [&](const Known& k) { return pre == k.name && k.add_bos; });
}

GgufPreTokenizer gguf_pre_tokenizer(std::string_view pre, const std::string& where) {
  if (pre.empty()) {
    log_warning(where, ": no tokenizer.ggml.pre: words are cut by llama.cpp's default, which may not be the model's");
    pre = "default";
  }
  std::string names;
  for (const Known& k : kKnown) {
    if (pre == k.name) return {words_json(k.words), k.nfc, k.ignore_merges};
    names += std::string(names.empty() ? "" : ", ") + k.name;
  }
  throw UserError({where, "tokenizer.ggml.pre", "the pre-tokenizer \"" + printable(pre) + "\"", "one of " + names, "this model cuts words in a way that Fathom does not know"});
}

}  // namespace fathom::text
