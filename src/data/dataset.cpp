#include <algorithm>

#include "core/error.h"
#include "core/limits.h"
#include "core/utf8.h"
#include "data/shards.h"

namespace fathom::data {
namespace {

constexpr const char* kFormat = "fathom-dataset";
constexpr const char* kManifestName = "manifest.json";

Json shards_to_json(const std::vector<ShardInfo>& shards) {
  Json all = Json::array();
  int64_t tokens = 0, documents = 0, text_bytes = 0;
  for (const ShardInfo& s : shards) {
    all.push_back({{"file", s.file}, {"tokens", s.tokens}, {"documents", s.documents}, {"text_bytes", s.text_bytes},
                   {"file_bytes", s.file_bytes}, {"hash", s.hash}});
    tokens += s.tokens;
    documents += s.documents;
    text_bytes += s.text_bytes;
  }
  return {{"tokens", tokens}, {"documents", documents}, {"text_bytes", text_bytes}, {"shards", all}};
}

std::string hex_digits(const Fields& fields, const std::string& key) {
  const std::string value = fields.string(key);
  const bool good = value.size() == 32 && std::all_of(value.begin(), value.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
  });
  if (!good) fields.wrong(key, "\"" + printable(value) + "\"", "32 hexadecimal digits");
  return value;
}

std::vector<ShardInfo> shards_from_json(const Fields& split) {
  const Json& array = split.raw("shards");
  if (!array.is_array()) split.wrong("shards", describe(array), "an array");
  if (static_cast<int64_t>(array.size()) > limits::kShards) split.wrong("shards", str(array.size(), " shards"), str("at most ", limits::kShards));
  std::vector<ShardInfo> shards;
  int64_t tokens = 0, documents = 0, text_bytes = 0;
  for (size_t i = 0; i < array.size(); ++i) {
    const Fields f(array[i], split.where(), split.path(str("shards[", i, "]")));
    ShardInfo s;
    s.file = f.string("file");
    if (s.file.empty() || s.file[0] == '.' || s.file.find('/') != std::string::npos || has_control_character(s.file))
      f.wrong("file", "\"" + printable(s.file) + "\"", "the name of a file in the dataset's folder");
    s.tokens = f.integer("tokens", 1, limits::kShardTokens);
    s.documents = f.integer("documents", 1, limits::kShardDocuments);
    s.text_bytes = f.integer("text_bytes", 0, int64_t{1} << 56);
    s.file_bytes = f.integer("file_bytes", 0, int64_t{1} << 56);
    s.hash = hex_digits(f, "hash");
    f.done();
    // 2^20 shards of 2^36 tokens or 2^56 bytes may pass 2^63.
    if (__builtin_add_overflow(tokens, s.tokens, &tokens) || __builtin_add_overflow(documents, s.documents, &documents) ||
        __builtin_add_overflow(text_bytes, s.text_bytes, &text_bytes))
      f.wrong("tokens", "a sum that overflows", "plausible counts");
    shards.push_back(std::move(s));
  }
  for (const auto& [key, sum] : {std::pair<const char*, int64_t>{"tokens", tokens}, {"documents", documents}, {"text_bytes", text_bytes}})
    if (const int64_t said = split.integer(key, 0, INT64_MAX); said != sum) split.wrong(key, str(said), str(sum, ", the sum of the shards"));
  split.done();
  return shards;
}

}  // namespace

Json Manifest::to_json() const {
  Json listed = Json::array();
  for (const SourceInfo& s : sources) listed.push_back({{"name", s.name}, {"bytes", s.bytes}});
  const auto id = [](const std::optional<int32_t>& v) { return v ? Json(*v) : Json(); };
  return {{"format", kFormat},
          {"version", version},
          {"tokenizer", {{"identity", tokenizer_identity}, {"vocab_size", vocab_size}, {"bos_id", id(bos_id)}, {"eos_id", id(eos_id)}}},
          {"splits", {{"train", shards_to_json(train)}, {"validation", shards_to_json(validation)}}},
          {"sources", {{"count", source_count}, {"bytes", source_bytes}, {"files", listed}}},
          {"options", options}};
}

Manifest Manifest::from_json(const Json& json, const std::string& where) {
  const Fields f(json, where);
  Manifest m;
  if (const std::string format = f.string("format"); format != kFormat)
    f.wrong("format", "\"" + printable(format) + "\"", str("\"", kFormat, "\""), "this is not the manifest of a dataset");
  m.version = static_cast<int>(f.integer("version", 1, INT32_MAX));
  if (m.version != kDatasetVersion)
    f.wrong("version", str(m.version), str(kDatasetVersion), m.version > kDatasetVersion ? "a newer program wrote it" : "prepare the data again");
  const Fields tokenizer = f.object("tokenizer");
  m.tokenizer_identity = hex_digits(tokenizer, "identity");
  m.vocab_size = tokenizer.integer("vocab_size", 1, limits::kVocabulary);
  if (tokenizer.has("bos_id")) m.bos_id = static_cast<int32_t>(tokenizer.integer("bos_id", 0, m.vocab_size - 1));
  if (tokenizer.has("eos_id")) m.eos_id = static_cast<int32_t>(tokenizer.integer("eos_id", 0, m.vocab_size - 1));
  tokenizer.done();
  const Fields splits = f.object("splits");
  m.train = shards_from_json(splits.object("train"));
  m.validation = shards_from_json(splits.object("validation"));
  splits.done();
  const Fields sources = f.object("sources");
  m.source_count = sources.integer("count", 0, limits::kSourceFiles);
  m.source_bytes = sources.integer("bytes", 0, INT64_MAX);
  const Json& files = sources.raw("files");
  if (!files.is_array() || static_cast<int64_t>(files.size()) > limits::kManifestSources)
    sources.wrong("files", describe(files), str("an array of at most ", limits::kManifestSources));
  for (size_t i = 0; i < files.size(); ++i) {
    const Fields s(files[i], where, sources.path(str("files[", i, "]")));
    m.sources.push_back({s.string("name"), s.integer("bytes", 0, INT64_MAX)});
    s.done();
  }
  sources.done();
  m.options = f.object("options").value();
  f.done();
  return m;
}

bool is_dataset(const std::string& folder) { return exists(join_path(folder, kManifestName)); }

std::shared_ptr<const Dataset> Dataset::open(const std::string& folder, const std::string& split) {
  FATHOM_ASSERT(split == "train" || split == "validation", split);
  const std::string path = join_path(folder, kManifestName);
  if (!exists(path))
    throw UserError({folder, "", is_folder(folder) ? "no manifest.json" : exists(folder) ? "a file" : "no such folder", "a dataset", "make one with: fathom data prepare"});
  const Json json = read_json(path, {.max_bytes = limits::kManifestBytes});
  std::shared_ptr<Dataset> d(new Dataset);
  d->folder_ = folder;
  d->manifest_ = Manifest::from_json(json, path);
  d->infos_ = split == "train" ? d->manifest_.train : d->manifest_.validation;
  for (const ShardInfo& info : d->infos_) {
    const std::string file = join_path(folder, info.file);
    auto shard = std::make_unique<ShardFile>(file);
    const auto same = [&](const char* field, const auto& found, const auto& expected) {
      if (!(found == expected)) throw UserError({file, field, str(found), str(expected, " as the manifest says"), "the file is not the one that was prepared"});
    };
    same("size", file_size(file), info.file_bytes);
    same("tokens", shard->tokens(), info.tokens);
    same("documents", shard->documents(), info.documents);
    same("vocab_size", shard->vocab_size(), d->manifest_.vocab_size);
    same("tokenizer identity", shard->tokenizer_identity(), d->manifest_.tokenizer_identity);
    d->text_bytes_ += info.text_bytes;
    d->token_starts_.push_back(d->token_starts_.back() + info.tokens);
    d->document_starts_.push_back(d->document_starts_.back() + info.documents);
    d->shards_.push_back(std::move(shard));
  }
  return d;
}

std::string Dataset::tokenizer_path() const { return join_path(folder_, "tokenizer.json"); }

namespace {

// The shard that holds item `i`, where shard s holds [starts[s], starts[s + 1]).
size_t shard_of(const std::vector<int64_t>& starts, int64_t i) {
  return static_cast<size_t>(std::upper_bound(starts.begin(), starts.end(), i) - starts.begin() - 1);
}

}  // namespace

void Dataset::read(int64_t begin, std::span<int32_t> out) const {
  FATHOM_ASSERT(begin >= 0 && static_cast<int64_t>(out.size()) <= tokens() - begin, begin, " + ", out.size(), " of ", tokens());
  while (!out.empty()) {
    const size_t s = shard_of(token_starts_, begin);
    const int64_t n = std::min(static_cast<int64_t>(out.size()), token_starts_[s + 1] - begin);
    shards_[s]->read(begin - token_starts_[s], out.first(static_cast<size_t>(n)));
    out = out.subspan(static_cast<size_t>(n));
    begin += n;
  }
}

int64_t Dataset::document_begin(int64_t d) const {
  FATHOM_ASSERT(d >= 0 && d <= documents(), d, " of ", documents());
  if (d == documents()) return tokens();
  const size_t s = shard_of(document_starts_, d);
  return token_starts_[s] + shards_[s]->document_begin(d - document_starts_[s]);
}

int64_t Dataset::document_of(int64_t token) const {
  FATHOM_ASSERT(token >= 0 && token < tokens(), token, " of ", tokens());
  const size_t s = shard_of(token_starts_, token);
  return document_starts_[s] + shards_[s]->document_of(token - token_starts_[s]);
}

void Dataset::require_tokenizer(const std::string& identity, const std::string& whose) const {
  if (identity == manifest_.tokenizer_identity) return;
  throw UserError({folder_, "tokenizer", str(manifest_.tokenizer_identity, " (vocabulary ", vocab_size(), ", ", tokenizer_path(), ")"),
                   str(identity, ", the tokenizer of ", whose), "prepare the data with that tokenizer"});
}

void Dataset::verify() const {
  for (size_t i = 0; i < shards_.size(); ++i)
    if (const std::string hash = shards_[i]->hash(); hash != infos_[i].hash)
      throw UserError({shards_[i]->path(), "hash", hash, infos_[i].hash + " as the manifest says", "the file is damaged: prepare the data again"});
}

}  // namespace fathom::data
