#include "text/gguf_export.h"

#include <unordered_set>

#include "core/error.h"
#include "core/json.h"
#include "core/limits.h"
#include "text/byte_alphabet.h"
#include "text/gguf_pre_tokenizer.h"
#include "text/gguf_vocabulary.h"
#include "text/post_processor.h"

namespace fathom::text {
namespace {

class Export {
 public:
  Export(const Tokenizer& tokenizer, int64_t vocabulary, const std::string& where) : tokenizer_(tokenizer), where_(where), V_(vocabulary) {
    JsonOptions options;
    options.max_bytes = limits::kJsonBytes;
    root_ = parse_json(tokenizer.json(), where, options);
    FATHOM_ASSERT(tokenizer.vocab_size() <= V_, where);
  }

  GgufTokenizer make() {
    words();
    tokens();
    merges();
    ends();
    return std::move(out_);
  }

 private:
  [[noreturn]] void wrong(const std::string& field, const std::string& found, const std::string& expected) const {
    throw UserError({where_, field, found, expected, "GGUF cannot say it: write a model folder instead"});
  }
  const Json& part(const Json& object, const char* key) const {
    static const Json null;
    const auto it = object.find(key);
    return it == object.end() ? null : *it;
  }
  static std::string type_of(const Json& component) {
    return component.is_object() && component.contains("type") ? "the type " + component["type"].dump() : describe(component);
  }

  void words() {
    const Json &normalizer = part(root_, "normalizer"), &decoder = part(root_, "decoder"), &model = root_["model"];
    const bool nfc = normalizer.is_object() && part(normalizer, "type") == "NFC";
    if (!normalizer.is_null() && !nfc) wrong("normalizer", type_of(normalizer), "none, or NFC");
    if (!decoder.is_object() || part(decoder, "type") != "ByteLevel") wrong("decoder", type_of(decoder), "ByteLevel");
    if (part(model, "byte_fallback") == true) wrong("model.byte_fallback", "true", "false: a byte-level vocabulary");
    const auto pre = gguf_pre_tokenizer_name(part(root_, "pre_tokenizer"), nfc, part(model, "ignore_merges") == true);
    if (!pre) wrong("pre_tokenizer", "a way to cut words that has no name in GGUF", "one of those that tokenizer.ggml.pre names");
    out_.pre = *pre;
  }

  void tokens() {
    std::unordered_set<std::string> known;
    for (int64_t id = 0; id < V_; ++id) {
      out_.tokens.push_back(tokenizer_.token_text(static_cast<int32_t>(id)));
      if (!out_.tokens.back().empty()) known.insert(out_.tokens.back());
    }
    out_.token_type.assign(static_cast<size_t>(V_), static_cast<int32_t>(GgufTokenType::normal));
    for (int64_t id = 0; id < V_; ++id) {
      std::string& token = out_.tokens[static_cast<size_t>(id)];
      if (!token.empty()) continue;
      token = str("[PAD", id, "]");
      while (!known.insert(token).second) token = "[" + token + "]";
      out_.token_type[static_cast<size_t>(id)] = static_cast<int32_t>(GgufTokenType::unused);
    }
    // Without one of them a text might need an unknown token, which this kind of file has not.
    for (int byte = 0; byte < 256; ++byte)
      if (!known.count(byte_to_letter(static_cast<uint8_t>(byte)))) wrong("model.vocab", str("no token for the byte ", byte), "all 256");

    bool before = false, after = false;  // added tokens that are looked for before and after normalisation
    const Json& added = part(root_, "added_tokens");
    for (size_t i = 0; i < added.size(); ++i) {
      const Json& t = added[i];
      for (const char* flag : {"single_word", "lstrip", "rstrip"})
        if (part(t, flag) == true) wrong(str("added_tokens[", i, "].", flag), "true", "false");
      const bool special = part(t, "special") == true;
      (t.value("normalized", !special) ? after : before) = true;
      out_.token_type[t["id"].get<size_t>()] = static_cast<int32_t>(special ? GgufTokenType::control : GgufTokenType::user_defined);
    }
    if (after && (before || !part(root_, "normalizer").is_null())) wrong("added_tokens", "tokens that are looked for in normalised text", "none");
  }

  void merges() {
    for (const Json& m : root_["model"]["merges"]) {
      if (m.is_string()) {
        if (!(out_.merges.empty() && m.get_ref<const std::string&>().starts_with("#version"))) out_.merges.push_back(m);
        continue;
      }
      const std::string &left = m[0].get_ref<const std::string&>(), &right = m[1].get_ref<const std::string&>();
      if (left.find(' ') != std::string::npos || right.find(' ') != std::string::npos)
        wrong(str("model.merges[", out_.merges.size(), "]"), "a token with a space in it", "tokens of the byte-level alphabet");
      out_.merges.push_back(left + " " + right);
    }
    if (out_.merges.empty()) wrong("model.merges", "none", "those of the BPE");
  }

  void ends() {
    out_.bos_id = tokenizer_.bos_id(), out_.eos_id = tokenizer_.eos_id();
    std::vector<bool> known(static_cast<size_t>(tokenizer_.vocab_size()));
    for (size_t id = 0; id < known.size(); ++id) known[id] = !tokenizer_.token_text(static_cast<int32_t>(id)).empty();
    const PostProcessor around = read_post_processor(part(root_, "post_processor"), where_, "post_processor", known);
    const auto end = [&](const std::vector<int32_t>& ids, const std::optional<int32_t>& id, const char* what) {
      if (ids.empty()) return false;
      if (ids.size() > 1 || ids[0] != id) wrong("post_processor", str(ids.size(), " tokens ", what, " a text"), "the one that begins or ends a document, or none");
      return true;
    };
    out_.add_bos = end(around.before, out_.bos_id, "before");
    out_.add_eos = end(around.after, out_.eos_id, "after");
  }

  const Tokenizer& tokenizer_;
  const std::string& where_;
  int64_t V_;
  Json root_;
  GgufTokenizer out_;
};

}  // namespace

GgufTokenizer gguf_tokenizer_of(const Tokenizer& tokenizer, int64_t vocabulary, const std::string& where) {
  return Export(tokenizer, vocabulary, where).make();
}

}  // namespace fathom::text
