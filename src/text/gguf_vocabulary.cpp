#include "text/gguf_vocabulary.h"

#include <cmath>
#include <deque>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/json.h"
#include "core/limits.h"
#include "core/log.h"
#include "core/utf8.h"
#include "text/gguf_pre_tokenizer.h"
#include "text/piece_merges.h"
#include "text/tokenizer_data.h"

namespace fathom::text {
namespace {

using Type = GgufTokenType;
using Merge = Tokenizer::Data::Merge;

constexpr const char* kMetaspace = "\u2581";

std::string in_quotes(std::string_view text) { return Json(text).dump(); }

class Reader {
 public:
  Reader(const GgufVocabulary& v, const std::string& where) : v_(v), where_(where) {}

  std::shared_ptr<const Tokenizer::Data> read() {
    check_model();
    check_lengths();
    read_tokens();
    bos_ = checked_id("bos_token_id", v_.bos_id, 1, Type::control);
    eos_ = checked_id("eos_token_id", v_.eos_id, 2, Type::control);
    unknown_ = checked_id("unknown_token_id", v_.unknown_id, 0, Type::unknown);
    checked_id("padding_token_id", v_.padding_id, -1, Type::control);
    if (v_.token_type.empty()) {  // older files: what the ids say is all there is to know
      if (unknown_ >= 0) type_[static_cast<size_t>(unknown_)] = Type::unknown;
      for (const int64_t id : {bos_, eos_})
        if (id >= 0) type_[static_cast<size_t>(id)] = Type::control;
    }
    if (sentence_piece_) pieces();
    else byte_level();
    return build();
  }

 private:
  [[noreturn]] void wrong(const std::string& key, const std::string& found, const std::string& expected, const std::string& hint = "") const {
    throw UserError({where_, "tokenizer.ggml." + key, found, expected, hint});
  }

  void check_model() {
    if (v_.model.empty()) wrong("model", "no such key", "\"gpt2\" or \"llama\"");
    sentence_piece_ = v_.model == "llama";
    if (sentence_piece_ || v_.model == "gpt2") return;
    static const std::pair<const char*, const char*> kOthers[] = {{"bert", "WordPiece"}, {"t5", "Unigram"}, {"rwkv", "RWKV's trie"}, {"plamo2", "PLaMo's"},
                                                                   {"gemma4", "BPE over whole texts"}, {"none", "no tokenizer"}, {"no_vocab", "no tokenizer"}};
    std::string kind;
    for (const auto& [name, what] : kOthers)
      if (v_.model == name) kind = std::string(" (") + what + ")";
    wrong("model", "\"" + printable(v_.model) + "\"" + kind, "\"gpt2\" (byte-level BPE) or \"llama\" (SentencePiece BPE)", "Fathom has no tokenizer of this kind");
  }

  void check_lengths() const {
    const auto n = static_cast<int64_t>(v_.tokens.size());
    if (n == 0) wrong("tokens", "no tokens", "the vocabulary");
    if (n > limits::kVocabulary) wrong("tokens", str(n, " tokens"), str("at most ", limits::kVocabulary));
    const auto as_many = [&](const char* key, size_t count) {
      if (count != 0 && static_cast<int64_t>(count) != n) wrong(key, str(count, " entries"), str(n, ", as many as tokens"));
    };
    as_many("token_type", v_.token_type.size());
    as_many("scores", v_.scores.size());
    if (static_cast<int64_t>(v_.merges.size()) > limits::kMerges) wrong("merges", str(v_.merges.size(), " merges"), str("at most ", limits::kMerges));
  }

  void read_tokens() {
    const size_t n = v_.tokens.size();
    tokens_.reserve(n);
    ids_.reserve(n);
    type_.assign(n, Type::normal);
    for (size_t i = 0; i < n; ++i) {
      std::string_view token = v_.tokens[i];
      const auto key = [&] { return str("tokens[", i, "]"); };
      if (static_cast<int64_t>(token.size()) > limits::kTokenBytes) wrong(key(), str("a token of ", token.size(), " bytes"), str("at most ", limits::kTokenBytes));
      if (!is_utf8(token)) wrong(key(), "\"" + printable(token) + "\"", "UTF-8");
      if (token.empty()) token = names_.emplace_back(str("[EMPTY_", i, "]"));  // llama.cpp's name for it
      tokens_.push_back(token);
      const auto [known, fresh] = ids_.emplace(token, static_cast<int32_t>(i));
      if (!fresh) wrong(key(), "\"" + printable(token) + "\", which is also token " + str(known->second), "each token once");
      if (v_.token_type.empty()) continue;
      const int32_t type = v_.token_type[i];
      if (type < static_cast<int32_t>(Type::undefined) || type > static_cast<int32_t>(Type::byte))
        wrong(str("token_type[", i, "]"), str(type), "1 (normal), 2 (unknown), 3 (control), 4 (user defined), 5 (unused) or 6 (byte)");
      type_[i] = static_cast<Type>(type);
    }
  }

  // -1 for none. Where a "llama" file does not say, llama.cpp takes the ids that SentencePiece gives by default; here only if
  // such a token stands there.
  int64_t checked_id(const char* key, std::optional<int64_t> id, int64_t fallback, Type expected) const {
    const auto n = static_cast<int64_t>(tokens_.size());
    if (id) {
      if (*id < 0 || *id >= n) wrong(key, str(*id), str("the id of a token, 0 to ", n - 1));
      return *id;
    }
    if (!sentence_piece_ || fallback < 0 || fallback >= n) return -1;
    return v_.token_type.empty() || type_[static_cast<size_t>(fallback)] == expected ? fallback : -1;
  }

  void byte_level() {
    const GgufPreTokenizer words = gguf_pre_tokenizer(v_.pre, where_);
    pre_tokenizer_ = words.json;
    normalizer_ = words.nfc ? "{\"type\": \"NFC\"}" : "null";
    ignore_merges_ = words.ignore_merges;
    decoder_ = "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": true}";
    if (v_.add_space_prefix.value_or(false)) log_warning(where_, ": tokenizer.ggml.add_space_prefix is left aside for byte-level BPE, as in llama.cpp");
    if (v_.remove_extra_whitespaces.value_or(false)) wrong("remove_extra_whitespaces", "true for a \"gpt2\" model", "false");
    if (v_.merges.empty()) wrong("merges", "no merges", "those of the BPE");
    given_merges();
    ends();
  }

  void pieces() {
    const bool prefix = v_.add_space_prefix.value_or(true);
    pre_tokenizer_ = "null";
    normalizer_ = "{\"type\": \"Sequence\", \"normalizers\": [";
    if (v_.remove_extra_whitespaces.value_or(false))  // \A and \z: ^ and $ stand at lines
      normalizer_ += "{\"type\": \"Replace\", \"pattern\": {\"Regex\": \"\\\\A +| +\\\\z\"}, \"content\": \"\"}, "
                     "{\"type\": \"Replace\", \"pattern\": {\"Regex\": \" {2,}\"}, \"content\": \" \"}, ";
    if (prefix) normalizer_ += std::string("{\"type\": \"Prepend\", \"prepend\": \"") + kMetaspace + "\"}, ";
    normalizer_ += std::string("{\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": \"") + kMetaspace + "\"}]}";
    decoder_ = std::string("{\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Replace\", \"pattern\": {\"String\": \"") + kMetaspace +
               "\"}, \"content\": \" \"}, {\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"}" +
               (prefix ? ", {\"type\": \"Strip\", \"content\": \" \", \"start\": 1, \"stop\": 0}]}" : "]}");
    byte_fallback_ = true;
    for (size_t i = 0; i < tokens_.size(); ++i)
      if (type_[i] == Type::byte && !is_byte_token(tokens_[i])) wrong(str("tokens[", i, "]"), "\"" + printable(tokens_[i]) + "\" for a byte", "<0x00> to <0xFF>");
    if (!v_.scores.empty()) {
      for (size_t i = 0; i < v_.scores.size(); ++i)
        if (std::isnan(v_.scores[i])) wrong(str("scores[", i, "]"), "not a number", "a number");
      // SentencePiece never makes these of text: "<s>" written in a text is no beginning of one.
      std::vector<bool> takes_part(tokens_.size());
      for (size_t i = 0; i < tokens_.size(); ++i)
        takes_part[i] = (type_[i] == Type::normal || type_[i] == Type::unused || type_[i] == Type::undefined) && !(v_.token_type.empty() && is_byte_token(tokens_[i]));
      std::string merged;
      for (const auto& [left, right] : merges_of_scores(tokens_, v_.scores, takes_part, where_)) {
        merged.assign(tokens_[static_cast<size_t>(left)]).append(tokens_[static_cast<size_t>(right)]);
        merges_.push_back({left, right, ids_.at(merged)});
      }
    } else if (!v_.merges.empty()) {
      given_merges();
    } else {
      wrong("scores", "no such key", "the scores of a \"llama\" model");
    }
    ends();
  }

  static bool is_byte_token(std::string_view token) {
    const auto hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'F'); };
    return token.size() == 6 && token.starts_with("<0x") && hex(token[3]) && hex(token[4]) && token[5] == '>';
  }

  void given_merges() {
    merges_.reserve(v_.merges.size());
    std::string merged;
    for (size_t i = 0; i < v_.merges.size(); ++i) {
      const std::string_view line = v_.merges[i];
      const auto key = [&] { return str("merges[", i, "]"); };
      const size_t space = line.find(' ');
      if (space == std::string_view::npos || space == 0 || space + 1 == line.size() || line.find(' ', space + 1) != std::string_view::npos)
        wrong(key(), "\"" + printable(line) + "\"", "two tokens with one space between");
      const std::string_view left = line.substr(0, space), right = line.substr(space + 1);
      merged.assign(left).append(right);
      int32_t ids[3];
      int k = 0;
      for (const std::string_view token : {left, right, std::string_view(merged)}) {
        const auto it = ids_.find(token);
        if (it == ids_.end()) wrong(key(), "\"" + printable(token) + "\", which the vocabulary lacks", "tokens of tokenizer.ggml.tokens");
        ids[k++] = it->second;
      }
      merges_.push_back({ids[0], ids[1], ids[2]});
    }
  }

  // Whether a text gets a beginning and an end.
  void ends() {
    add_bos_ = v_.add_bos_token.value_or(gguf_adds_bos(v_.model, v_.pre) && bos_ >= 0);
    add_eos_ = v_.add_eos_token.value_or(false);
    if (add_bos_ && bos_ < 0) wrong("bos_token_id", "no such key", "the token that add_bos_token puts before a text");
    if (add_eos_ && eos_ < 0) wrong("eos_token_id", "no such key", "the token that add_eos_token puts after a text");
  }

  // The special tokens are named by their roles, also those that the template does not use: so the file says what begins and
  // ends a document (see post_processor.h).
  std::string post_processor() const {
    const auto piece = [](const char* role, int type) { return str("{\"SpecialToken\": {\"id\": \"", role, "\", \"type_id\": ", type, "}}"); };
    const auto text = [&](const char* name, int type) {
      std::string out;
      if (add_bos_) out += piece("bos_token", type) + ", ";
      out += str("{\"Sequence\": {\"id\": \"", name, "\", \"type_id\": ", type, "}}");
      if (add_eos_) out += ", " + piece("eos_token", type);
      return out;
    };
    const auto role = [&](const char* name, int64_t id) {
      const std::string ids = id < 0 ? "" : str(id), tokens = id < 0 ? "" : in_quotes(tokens_[static_cast<size_t>(id)]);
      return str("\"", name, "\": {\"id\": \"", name, "\", \"ids\": [", ids, "], \"tokens\": [", tokens, "]}");
    };
    return "{\"type\": \"TemplateProcessing\", \"single\": [" + text("A", 0) + "], \"pair\": [" + text("A", 0) + ", " + text("B", 1) + "],\n    \"special_tokens\": {" +
           role("bos_token", bos_) + ", " + role("eos_token", eos_) + "}}";
  }

  std::string added_tokens() const {
    std::string out;
    for (size_t i = 0; i < tokens_.size(); ++i) {
      const bool special = type_[i] == Type::control || type_[i] == Type::unknown;
      if (!special && type_[i] != Type::user_defined) continue;
      if (static_cast<int64_t>(tokens_[i].size()) > limits::kAddedTokenBytes)
        wrong(str("tokens[", i, "]"), str("a control or user-defined token of ", tokens_[i].size(), " bytes"), str("at most ", limits::kAddedTokenBytes));
      out += str(out.empty() ? "" : ",", "\n    {\"id\": ", i, ", \"content\": ", in_quotes(tokens_[i]),
                 ", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, \"normalized\": false, \"special\": ", special ? "true}" : "false}");
    }
    return out;
  }

  // A tokenizer.json up to its vocabulary.
  std::string head() const {
    const auto flag = [](bool b) { return b ? "true" : "false"; };
    return "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n  \"added_tokens\": [" + added_tokens() +
           "\n  ],\n  \"normalizer\": " + normalizer_ + ",\n  \"pre_tokenizer\": " + pre_tokenizer_ + ",\n  \"post_processor\": " + post_processor() +
           ",\n  \"decoder\": " + decoder_ + ",\n  \"model\": {\n    \"type\": \"BPE\",\n    \"dropout\": null,\n    \"unk_token\": " +
           (sentence_piece_ && unknown_ >= 0 ? in_quotes(tokens_[static_cast<size_t>(unknown_)]) : "null") +
           ",\n    \"continuing_subword_prefix\": null,\n    \"end_of_word_suffix\": null,\n    \"fuse_unk\": " + flag(sentence_piece_) +
           ",\n    \"byte_fallback\": " + flag(byte_fallback_) + ",\n    \"ignore_merges\": " + flag(ignore_merges_) + ",\n    ";
  }

  std::shared_ptr<const Tokenizer::Data> build() {
    auto data = std::make_shared<Tokenizer::Data>();
    data->where = where_;
    data->json_head = head();
    data->merges = std::move(merges_);
    TokenizerSource source;
    source.root = Json::parse(data->json_head + "\"vocab\": {}, \"merges\": []}}");
    source.vocabulary = [&](size_t) {
      std::vector<std::pair<std::string_view, int32_t>> out;
      out.reserve(tokens_.size());
      for (const std::string_view token : tokens_) out.emplace_back(token, static_cast<int32_t>(out.size()));
      return out;
    };
    source.merges = [&] {
      MergeTable table;
      table.reserve(data->merges.size());
      uint32_t rank = 0;
      for (const Merge& m : data->merges) table.set(m.left, m.right, {rank++, m.merged});
      return table;
    };
    build_tokenizer(source, *data);
    return data;
  }

  const GgufVocabulary& v_;
  const std::string& where_;
  bool sentence_piece_ = false, ignore_merges_ = false, byte_fallback_ = false, add_bos_ = false, add_eos_ = false;
  std::deque<std::string> names_;         // of tokens without one; views of them stay
  std::vector<std::string_view> tokens_;
  std::vector<Type> type_;
  std::unordered_map<std::string_view, int32_t> ids_;
  std::vector<Merge> merges_;
  int64_t bos_ = -1, eos_ = -1, unknown_ = -1;
  std::string normalizer_, pre_tokenizer_, decoder_;
};

}  // namespace

std::shared_ptr<const Tokenizer::Data> read_gguf_vocabulary(const GgufVocabulary& vocabulary, const std::string& where) {
  return Reader(vocabulary, where).read();
}

// As tokenizer.json files are laid out.
std::string gguf_tokenizer_json(const Tokenizer::Data& data) {
  std::string out = data.json_head + "\"vocab\": {";
  std::vector<std::string> names;
  names.reserve(data.tokens.size());
  for (size_t i = 0; i < data.tokens.size(); ++i) {
    names.push_back(in_quotes(data.tokens[i].text));
    out.append(i ? ",\n      " : "\n      ").append(names[i]).append(": ").append(std::to_string(i));
  }
  out += "\n    },\n    \"merges\": [";
  bool first = true;
  for (const Merge& m : data.merges) {
    out.append(std::exchange(first, false) ? "\n      [" : ",\n      [").append(names[static_cast<size_t>(m.left)]).append(", ");
    out.append(names[static_cast<size_t>(m.right)]).append("]");
  }
  return out + "\n    ]\n  }\n}\n";
}

}  // namespace fathom::text
