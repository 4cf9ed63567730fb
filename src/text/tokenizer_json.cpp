// Reads a tokenizer.json: checks everything that encoding and decoding rely on, so that they need no checks of their own.
#include <algorithm>

#include "core/error.h"
#include "core/file.h"
#include "core/json.h"
#include "core/limits.h"
#include "core/log.h"
#include "text/component.h"
#include "text/tokenizer_data.h"

namespace fathom::text {
namespace {

class Reader {
 public:
  Reader(std::string_view bytes, const std::string& where) : where_(where), data_(std::make_shared<Tokenizer::Data>()) {
    JsonOptions options;
    options.max_bytes = limits::kJsonBytes;
    root_ = parse_json(bytes, where, options);
    data_->json = bytes;
  }

  std::shared_ptr<const Tokenizer::Data> read() {
    const Fields root(root_, where_);
    if (root.string("version", "1.0") != "1.0") root.wrong("version", "\"" + printable(root.string("version")) + "\"", "\"1.0\"");
    for (const char* key : {"truncation", "padding"})
      if (root.has(key)) log_warning(where_, ": \"", key, "\" is left aside: texts are neither cut nor filled up");
    const Json null;
    const auto part = [&](const char* key) -> const Json& { return root.has(key) ? root.raw(key) : null; };
    data_->normalizer = Normalizer(part("normalizer"), where_, "normalizer");
    data_->pre_tokenizer = PreTokenizer(part("pre_tokenizer"), where_, "pre_tokenizer");
    data_->decoder = Decoder(part("decoder"), where_, "decoder");
    const Fields model = root.object("model");
    check_model_type(model);
    const std::vector<AddedToken> added = added_tokens(part("added_tokens"));
    vocabulary(model, added);
    read_model(model);
    place_added(added);
    std::vector<bool> known(data_->tokens.size());
    for (size_t i = 0; i < known.size(); ++i) known[i] = data_->tokens[i].exists;
    data_->post_processor = read_post_processor(part("post_processor"), where_, "post_processor", known);
    root.done("it may change ids in a way that Fathom does not know");
    find_ends(added);
    data_->identity = hash_bytes(canonical());
    return data_;
  }

 private:
  void check_model_type(const Fields& model) {
    // Old GPT-2 files have no type; what has merges is BPE.
    const std::string type = model.string("type", model.has("merges") ? "BPE" : "");
    if (type != "BPE")
      model.wrong("type", type.empty() ? "no model type" : "the model \"" + printable(type) + "\"", "BPE", "Fathom reads BPE tokenizers only");
  }

  std::vector<AddedToken> added_tokens(const Json& json) {
    std::vector<AddedToken> out;
    if (json.is_null()) return out;
    if (!json.is_array() || static_cast<int64_t>(json.size()) > limits::kAddedTokens)
      throw UserError({where_, "added_tokens", describe(json), str("an array of at most ", limits::kAddedTokens, " objects"), ""});
    out.reserve(json.size());
    for (size_t i = 0; i < json.size(); ++i) {
      const Fields f(json[i], where_, str("added_tokens[", i, "]"));
      AddedToken t;
      t.id = static_cast<int32_t>(f.integer("id", 0, limits::kVocabulary - 1));
      t.content = f.string("content");
      if (t.content.empty() || static_cast<int64_t>(t.content.size()) > limits::kAddedTokenBytes)
        f.wrong("content", str("a text of ", t.content.size(), " bytes"), str("1 to ", limits::kAddedTokenBytes));
      t.single_word = f.boolean("single_word", false);
      t.lstrip = f.boolean("lstrip", false);
      t.rstrip = f.boolean("rstrip", false);
      t.special = f.boolean("special", false);
      t.normalized = f.boolean("normalized", !t.special);
      f.done();
      out.push_back(std::move(t));
    }
    return out;
  }

  // Fills tokens and by_text from the model's vocabulary.
  void vocabulary(const Fields& model, const std::vector<AddedToken>& added) {
    const Json& vocab = model.raw("vocab");
    if (!vocab.is_object()) model.wrong("vocab", describe(vocab), "an object of token: id");
    const auto entries = static_cast<int64_t>(vocab.size() + added.size());
    // The greatest id sets a model's V. Far above the number of tokens it can only be damage, and would cost memory.
    limit_ = std::min(limits::kVocabulary, 4 * entries + 65536);
    int64_t size = 0;
    for (const auto& [token, id] : vocab.items()) {
      if (!id.is_number_integer() || (id.is_number_unsigned() ? id.get<uint64_t>() >= static_cast<uint64_t>(limit_) : id.get<int64_t>() < 0))
        throw UserError({where_, "model.vocab[\"" + printable(token) + "\"]", describe(id), str("a whole number below ", limit_), ""});
      if (static_cast<int64_t>(token.size()) > limits::kTokenBytes)
        throw UserError({where_, "model.vocab", str("a token of ", token.size(), " bytes"), str("at most ", limits::kTokenBytes), ""});
      size = std::max(size, id.get<int64_t>() + 1);
    }
    for (const auto& t : added) {
      if (t.id >= limit_) throw UserError({where_, "added_tokens", str("the id ", t.id, " of \"", printable(t.content), "\""), str("below ", limit_), ""});
      size = std::max<int64_t>(size, t.id + 1);
    }
    if (size == 0) model.wrong("vocab", "no tokens", "at least one");
    data_->tokens.resize(static_cast<size_t>(size));
    data_->by_text.reserve(static_cast<size_t>(entries));
    for (const auto& [token, id] : vocab.items()) {
      auto& t = data_->tokens[id.get<size_t>()];
      if (t.exists)
        throw UserError({where_, "model.vocab[\"" + printable(token) + "\"]", str("the id ", id.get<size_t>(), ", which is also that of \"", printable(t.text), "\""),
                         "each id once", ""});
      t.text = token;
      t.exists = true;
      data_->by_text.emplace(t.text, static_cast<int32_t>(id.get<size_t>()));
    }
  }

  void read_model(const Fields& model) {
    if (model.has("dropout") && model.number("dropout", 0, 1) != 0)
      model.wrong("dropout", describe(model.raw("dropout")), "null", "with dropout the same text has other ids each time");
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
      if (!model.string(key, "").empty()) model.wrong(key, describe(model.raw(key)), "null or \"\"", "Fathom reads byte-level and byte-fallback BPE");
    Bpe::Options o;
    o.where = where_;
    o.byte_level = data_->pre_tokenizer.byte_level();
    o.byte_fallback = model.boolean("byte_fallback", false);
    o.fuse_unknown = model.boolean("fuse_unk", false);
    o.ignore_merges = model.boolean("ignore_merges", false);
    if (model.has("unk_token")) {
      const std::string unknown = model.string("unk_token");
      const auto it = data_->by_text.find(unknown);
      if (it != data_->by_text.end()) o.unknown = it->second;
      else o.missing_unknown = unknown.empty() ? "\"\"" : unknown;
    }
    MergeTable merges = read_merges(model);
    model.ignore("vocab");
    model.done("it may change ids in a way that Fathom does not know");
    data_->bpe = std::make_unique<const Bpe>(data_->by_text, std::move(merges), std::move(o));
  }

  MergeTable read_merges(const Fields& model) {
    const Json& list = model.raw("merges");
    if (!list.is_array() || static_cast<int64_t>(list.size()) > limits::kMerges)
      model.wrong("merges", describe(list), str("an array of at most ", limits::kMerges, " pairs"));
    MergeTable table;
    table.reserve(list.size());
    std::string merged;
    uint32_t rank = 0;
    for (size_t i = 0; i < list.size(); ++i) {
      const Json& m = list[i];
      const auto wrong = [&](const std::string& found, const std::string& expected) {
        throw UserError({where_, str("model.merges[", i, "]"), found, expected, ""});
      };
      std::string_view left, right;
      if (m.is_string()) {
        const std::string_view line = m.get_ref<const std::string&>();
        if (i == 0 && line.starts_with("#version")) continue;  // the head line of a merges.txt
        const size_t space = line.find(' ');
        if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos)
          wrong(describe(m), "two tokens with one space between");
        left = line.substr(0, space), right = line.substr(space + 1);
      } else if (m.is_array() && m.size() == 2 && m[0].is_string() && m[1].is_string()) {
        left = m[0].get_ref<const std::string&>(), right = m[1].get_ref<const std::string&>();
      } else {
        wrong(describe(m), "\"a b\" or [\"a\", \"b\"]");
      }
      merged.assign(left).append(right);
      int32_t ids[3];
      int k = 0;
      for (const std::string_view token : {left, right, std::string_view(merged)}) {
        const auto it = data_->by_text.find(token);
        if (it == data_->by_text.end()) wrong("\"" + printable(token) + "\", which the vocabulary lacks", "tokens of model.vocab");
        ids[k++] = it->second;
      }
      table.set(ids[0], ids[1], {rank++, ids[2]});
    }
    return table;
  }

  void place_added(const std::vector<AddedToken>& added) {
    PatternScratch patterns;
    std::string buffers[2];
    for (size_t i = 0; i < added.size(); ++i) {
      const AddedToken& t = added[i];
      const auto wrong = [&](const std::string& found, const std::string& expected) {
        throw UserError({where_, str("added_tokens[", i, "]"), found, expected, ""});
      };
      auto& token = data_->tokens[static_cast<size_t>(t.id)];
      const auto known = data_->by_text.find(t.content);
      if (known != data_->by_text.end() && known->second != t.id)
        wrong(str("the id ", t.id, " for \"", printable(t.content), "\", which has the id ", known->second), "one id for one token");
      if (token.added) wrong("\"" + printable(t.content) + "\" twice", "each added token once");
      if (token.exists && token.text != t.content)
        wrong(str("the id ", t.id, ", which is that of \"", printable(token.text), "\""), "each id once");
      if (!token.exists) {
        token.exists = true;
        token.text = t.content;
        data_->by_text.emplace(token.text, t.id);
      }
      token.added = true;
      token.special = t.special;
      if (!t.normalized) {
        data_->raw_added.add(t, t.content);
        continue;
      }
      const std::string normal(data_->normalizer.apply(t.content, buffers, patterns));
      if (normal != t.content) token.decoded = normal;
      if (!normal.empty()) data_->normalized_added.add(t, normal);
    }
  }

  // The tokens that a document begins and ends with, for models that come without a word about it.
  void find_ends(const std::vector<AddedToken>& added) {
    const auto named = [&](std::initializer_list<const char*> names) -> std::optional<int32_t> {
      for (const char* name : names)
        for (const auto& t : added)
          if (t.content == name) return t.id;
      for (const char* name : names)
        if (const auto it = data_->by_text.find(name); it != data_->by_text.end()) return it->second;
      return {};
    };
    const auto& p = data_->post_processor;
    data_->bos = p.bos.said           ? p.bos.id
                 : !p.before.empty() ? std::optional(p.before.front()) : named({"<s>", "<|begin_of_text|>", "<bos>", "<|startoftext|>"});
    data_->eos = p.eos.said          ? p.eos.id
                 : !p.after.empty() ? std::optional(p.after.back())
                                  : named({"</s>", "<|endoftext|>", "<|end_of_text|>", "<eos>", "<|eot_id|>", "<|im_end|>"});
  }

  // Keys sorted, no white space, merges in one spelling.
  std::string canonical() {
    for (Json& m : root_["model"]["merges"]) {
      if (!m.is_string()) continue;
      const std::string line = m.get<std::string>();
      const size_t space = line.find(' ');
      if (!line.starts_with("#version")) m = Json::array({line.substr(0, space), line.substr(space + 1)});
    }
    return root_.dump();
  }

  const std::string& where_;
  Json root_;
  std::shared_ptr<Tokenizer::Data> data_;
  int64_t limit_ = 0;
};

}  // namespace

std::shared_ptr<const Tokenizer::Data> read_tokenizer_json(std::string_view bytes, const std::string& where) {
  return Reader(bytes, where).read();
}

}  // namespace fathom::text
