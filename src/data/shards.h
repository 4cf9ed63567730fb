// Tokens on disk. A shard file holds whole documents as uint16 or uint32 with their boundaries (docs/formats.md, "Token
// shards"); a dataset folder holds a manifest, the tokenizer and the shards of two splits, train and validation. Readers map
// the files, check every number of header and manifest before use and every token when it is read.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/file.h"
#include "core/json.h"

namespace fathom::data {

inline constexpr int kShardVersion = 1;
inline constexpr int kDatasetVersion = 1;

enum class TokenDtype { uint16, uint32 };
inline int64_t token_bytes(TokenDtype dtype) { return dtype == TokenDtype::uint16 ? 2 : 4; }
inline TokenDtype token_dtype(int64_t vocab_size) { return vocab_size <= 65536 ? TokenDtype::uint16 : TokenDtype::uint32; }

class ShardFile {
 public:
  explicit ShardFile(const std::string& path);

  int64_t tokens() const { return tokens_; }
  int64_t documents() const { return documents_; }
  int64_t vocab_size() const { return vocab_size_; }
  TokenDtype dtype() const { return dtype_; }
  const std::string& tokenizer_identity() const { return identity_; }
  const std::string& path() const { return map_.path(); }

  // Copies tokens [begin, begin + out.size()). UserError names the first token that is not below vocab_size.
  void read(int64_t begin, std::span<int32_t> out) const;
  // Document d is tokens [document_begin(d), document_begin(d + 1)); d may be documents(). Never empty.
  int64_t document_begin(int64_t d) const { return starts_[static_cast<size_t>(d)]; }
  int64_t document_of(int64_t token) const;
  std::string hash() const;  // of the whole file: reads all of it

 private:
  MappedFile map_;
  int64_t tokens_ = 0, documents_ = 0, vocab_size_ = 0;
  TokenDtype dtype_ = TokenDtype::uint16;
  std::string identity_;
  const std::byte* data_ = nullptr;
  std::span<const int64_t> starts_;  // documents + 1, the last is tokens
};

struct ShardInfo {
  std::string file;        // name in the dataset folder
  int64_t tokens = 0;
  int64_t documents = 0;
  int64_t text_bytes = 0;  // of UTF-8 that the tokens stand for
  int64_t file_bytes = 0;
  std::string hash;        // XXH3-128 of the file
};

// Gathers documents in memory and writes them as one file, atomically.
class ShardWriter {
 public:
  ShardWriter(int64_t vocab_size, std::string tokenizer_identity);
  void add(std::span<const int32_t> document, int64_t text_bytes);  // a document without tokens is passed over
  int64_t tokens() const { return tokens_; }
  int64_t documents() const { return static_cast<int64_t>(starts_.size()) - 1; }
  ShardInfo write(const std::string& folder, const std::string& name);  // and empties the writer

 private:
  int64_t vocab_size_, tokens_ = 0, text_bytes_ = 0;
  TokenDtype dtype_;
  std::string identity_;
  std::vector<uint16_t> narrow_;
  std::vector<uint32_t> wide_;
  std::vector<int64_t> starts_ = {0};
};

struct SourceInfo {
  std::string name;
  int64_t bytes = 0;
};

struct Manifest {  // manifest.json
  int version = kDatasetVersion;
  std::string tokenizer_identity;
  int64_t vocab_size = 0;
  std::optional<int32_t> bos_id, eos_id;  // put around every document, when set
  std::vector<ShardInfo> train, validation;
  std::vector<SourceInfo> sources;        // the first limits::kManifestSources of them
  int64_t source_count = 0, source_bytes = 0;
  Json options = Json::object();          // how it was made, for the reader's information

  Json to_json() const;
  static Manifest from_json(const Json& json, const std::string& where);
};

// One split of a dataset folder: all shards as one run of tokens and one list of documents.
class Dataset {
 public:
  // `split` is "train" or "validation". Checks the manifest against the headers and sizes of the shards.
  static std::shared_ptr<const Dataset> open(const std::string& folder, const std::string& split = "train");

  const std::string& folder() const { return folder_; }
  const Manifest& manifest() const { return manifest_; }
  std::string tokenizer_path() const;  // the copy in the folder
  int64_t tokens() const { return token_starts_.back(); }
  int64_t documents() const { return document_starts_.back(); }
  int64_t text_bytes() const { return text_bytes_; }
  int64_t vocab_size() const { return manifest_.vocab_size; }

  void read(int64_t begin, std::span<int32_t> out) const;  // across shards; checks every token
  int64_t document_begin(int64_t d) const;                 // d in [0, documents()]
  int64_t document_of(int64_t token) const;

  // UserError that names both tokenizers when they differ. `whose` says what the other belongs to ("the model at …").
  void require_tokenizer(const std::string& identity, const std::string& whose) const;
  void verify() const;  // reads every shard and compares hashes

 private:
  Dataset() = default;
  std::string folder_;
  Manifest manifest_;
  int64_t text_bytes_ = 0;
  std::vector<ShardInfo> infos_;
  std::vector<std::unique_ptr<ShardFile>> shards_;
  std::vector<int64_t> token_starts_ = {0}, document_starts_ = {0};  // one more than shards
};

// The same for the path of a folder that may not exist or may hold no dataset: what `open` checks first.
bool is_dataset(const std::string& folder);

}  // namespace fathom::data
