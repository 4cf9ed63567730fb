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

Json parse(std::string_view bytes, const std::string& where) {
  JsonOptions options;
  options.max_bytes = limits::kJsonBytes;
  return parse_json(bytes, where, options);
}

// The greatest id sets a model's V. Far above the number of tokens it can only be damage, and would cost memory.
int64_t vocabulary_limit(size_t tokens, size_t added) { return std::min(limits::kVocabulary, 4 * static_cast<int64_t>(tokens + added) + 65536); }

class Builder {
 public:
  Builder(const TokenizerSource& source, Tokenizer::Data& data) : source_(source), where_(data.where), data_(&data) {}

  void build() {
    const Fields root(source_.root, where_);
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

  // Fills tokens and by_text.
  void vocabulary(const Fields& model, const std::vector<AddedToken>& added) {
    const auto vocabulary = source_.vocabulary(added.size());
    const int64_t limit = vocabulary_limit(vocabulary.size(), added.size());
    int64_t size = 0;
    for (const auto& [token, id] : vocabulary) {
      if (static_cast<int64_t>(token.size()) > limits::kTokenBytes)
        throw UserError({where_, "model.vocab", str("a token of ", token.size(), " bytes"), str("at most ", limits::kTokenBytes), ""});
      size = std::max<int64_t>(size, id + 1);
    }
    for (const auto& t : added) {
      if (t.id >= limit) throw UserError({where_, "added_tokens", str("the id ", t.id, " of \"", printable(t.content), "\""), str("below ", limit), ""});
      size = std::max<int64_t>(size, t.id + 1);
    }
    if (size == 0) model.wrong("vocab", "no tokens", "at least one");
    data_->tokens.resize(static_cast<size_t>(size));
    data_->by_text.reserve(vocabulary.size() + added.size());
    for (const auto& [token, id] : vocabulary) {
      auto& t = data_->tokens[static_cast<size_t>(id)];
      if (t.exists)
        throw UserError({where_, "model.vocab[\"" + printable(token) + "\"]", str("the id ", id, ", which is also that of \"", printable(t.text), "\""), "each id once", ""});
      t.text = token;
      t.exists = true;
      data_->by_text.emplace(t.text, id);
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
    MergeTable merges = source_.merges();
    for (const char* key : {"vocab", "merges"}) model.ignore(key);
    model.done("it may change ids in a way that Fathom does not know");
    data_->bpe = std::make_unique<const Bpe>(data_->by_text, std::move(merges), std::move(o));
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

  const TokenizerSource& source_;
  const std::string& where_;
  Tokenizer::Data* data_;
};

std::vector<std::pair<std::string_view, int32_t>> read_vocabulary(const Fields& model, size_t added) {
  const Json& vocab = model.raw("vocab");
  if (!vocab.is_object()) model.wrong("vocab", describe(vocab), "an object of token: id");
  const int64_t limit = vocabulary_limit(vocab.size(), added);
  std::vector<std::pair<std::string_view, int32_t>> out;
  out.reserve(vocab.size());
  for (auto it = vocab.begin(); it != vocab.end(); ++it) {
    const Json& id = *it;
    if (!id.is_number_integer() || (id.is_number_unsigned() ? id.get<uint64_t>() >= static_cast<uint64_t>(limit) : id.get<int64_t>() < 0))
      model.wrong("vocab[\"" + printable(it.key()) + "\"]", describe(id), str("a whole number below ", limit));
    out.emplace_back(it.key(), id.get<int32_t>());
  }
  return out;
}

MergeTable read_merges(const Fields& model, const Bpe::Vocabulary& ids_of) {
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
      throw UserError({model.where(), str("model.merges[", i, "]"), found, expected, ""});
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
      const auto it = ids_of.find(token);
      if (it == ids_of.end()) wrong("\"" + printable(token) + "\", which the vocabulary lacks", "tokens of model.vocab");
      ids[k++] = it->second;
    }
    table.set(ids[0], ids[1], {rank++, ids[2]});
  }
  return table;
}

}  // namespace

void build_tokenizer(const TokenizerSource& source, Tokenizer::Data& data) { Builder(source, data).build(); }

std::shared_ptr<const Tokenizer::Data> read_tokenizer_json(std::string_view bytes, const std::string& where) {
  auto data = std::make_shared<Tokenizer::Data>();
  data->where = where;
  data->json = bytes;
  TokenizerSource source;
  source.root = parse(bytes, where);
  const auto model = [&] { return Fields(source.root, where).object("model"); };
  source.vocabulary = [&](size_t added) { return read_vocabulary(model(), added); };
  source.merges = [&] { return read_merges(model(), data->by_text); };
  build_tokenizer(source, *data);
  return data;
}

std::string canonical_json(std::string_view json, const std::string& where) {
  Json root = parse(json, where);
  for (Json& m : root["model"]["merges"]) {
    if (!m.is_string()) continue;
    const std::string line = m.get<std::string>();
    const size_t space = line.find(' ');
    if (!line.starts_with("#version")) m = Json::array({line.substr(0, space), line.substr(space + 1)});
  }
  return root.dump();
}

}  // namespace fathom::text
