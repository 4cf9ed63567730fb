#include <algorithm>
#include <bit>
#include <cstring>

#include "core/error.h"
#include "core/limits.h"
#include "data/shards.h"

namespace fathom::data {
namespace {

static_assert(std::endian::native == std::endian::little, "shards are mapped as they lie in the file");

constexpr char kMagic[8] = {'F', 'A', 'T', 'H', 'O', 'M', 'T', 'K'};

struct Header {  // docs/formats.md, "Token shards"
  char magic[8];
  uint32_t version;
  uint32_t token_bytes;
  uint64_t tokens;
  uint64_t documents;
  uint64_t vocab_size;
  char identity[32];
  char reserved[56];  // zero
};
static_assert(sizeof(Header) == 128);

uint64_t padded(uint64_t bytes) { return (bytes + 7) / 8 * 8; }

}  // namespace

ShardFile::ShardFile(const std::string& path) : map_(path) {
  const auto fail = [&](const std::string& field, const std::string& found, const std::string& expected, const std::string& hint = "") {
    throw UserError({path, field, found, expected, hint});
  };
  const std::span<const std::byte> file = map_.bytes();
  if (file.size() < sizeof(Header)) fail("header", str("a file of ", file.size(), " bytes"), str("at least ", sizeof(Header)), "the file is cut off");
  Header h;
  std::memcpy(&h, file.data(), sizeof h);
  if (std::memcmp(h.magic, kMagic, sizeof kMagic) != 0)
    fail("magic", "\"" + printable({h.magic, sizeof h.magic}) + "\"", "\"FATHOMTK\"", "this is not a token shard");
  if (h.version != kShardVersion)
    fail("version", str(h.version), str(kShardVersion), h.version > kShardVersion ? "a newer program wrote it" : "prepare the data again");
  if (h.token_bytes != 2 && h.token_bytes != 4) fail("token_bytes", str(h.token_bytes), "2 or 4");
  const auto bounded = [&](const char* field, uint64_t value, uint64_t low, int64_t high) {
    if (value < low || value > static_cast<uint64_t>(high)) fail(field, str(value), str("a whole number from ", low, " to ", high));
    return static_cast<int64_t>(value);
  };
  tokens_ = bounded("tokens", h.tokens, 1, limits::kShardTokens);
  documents_ = bounded("documents", h.documents, 1, std::min(limits::kShardDocuments, tokens_));
  vocab_size_ = bounded("vocab_size", h.vocab_size, 1, limits::kVocabulary);
  dtype_ = h.token_bytes == 2 ? TokenDtype::uint16 : TokenDtype::uint32;
  if (dtype_ != token_dtype(vocab_size_)) fail("token_bytes", str(h.token_bytes), str(token_bytes(token_dtype(vocab_size_)), " for a vocabulary of ", vocab_size_));
  identity_.assign(h.identity, sizeof h.identity);
  for (char c : identity_)
    if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) fail("tokenizer identity", "\"" + printable(identity_) + "\"", "32 hexadecimal digits");
  for (char c : h.reserved)
    if (c != 0) fail("reserved bytes", "other than zero", "zero");
  const uint64_t starts_at = sizeof(Header) + padded(static_cast<uint64_t>(tokens_) * h.token_bytes);
  const uint64_t expected = starts_at + (static_cast<uint64_t>(documents_) + 1) * 8;
  if (file.size() != expected)
    fail("size", str(file.size(), " bytes"), str(expected, " for ", tokens_, " tokens of ", h.token_bytes, " bytes and ", documents_, " documents"),
         file.size() < expected ? "the file is cut off" : "");
  data_ = file.data() + sizeof(Header);
  starts_ = {reinterpret_cast<const int64_t*>(file.data() + starts_at), static_cast<size_t>(documents_) + 1};
  if (starts_.front() != 0) fail("document 0", str("a start at ", starts_.front()), "0");
  for (size_t d = 1; d < starts_.size(); ++d)
    if (starts_[d] <= starts_[d - 1]) fail(str("document ", d), str("a start at ", starts_[d]), str("more than ", starts_[d - 1], ", where the document before starts"));
  if (starts_.back() != tokens_) fail("document boundaries", str("an end at ", starts_.back()), str(tokens_, ", the number of tokens"));
}

void ShardFile::read(int64_t begin, std::span<int32_t> out) const {
  FATHOM_ASSERT(begin >= 0 && static_cast<int64_t>(out.size()) <= tokens_ - begin, begin, " + ", out.size(), " of ", tokens_);
  const auto copy = [&](auto sample) {
    const std::byte* p = data_ + begin * static_cast<int64_t>(sizeof sample);
    decltype(sample) greatest = 0;
    for (size_t i = 0; i < out.size(); ++i) {
      std::memcpy(&sample, p + i * sizeof sample, sizeof sample);
      greatest = std::max(greatest, sample);
      out[i] = static_cast<int32_t>(sample);
    }
    if (static_cast<int64_t>(greatest) < vocab_size_) return;
    for (size_t i = 0; i < out.size(); ++i) {
      std::memcpy(&sample, p + i * sizeof sample, sizeof sample);
      if (static_cast<int64_t>(sample) >= vocab_size_)
        throw UserError({map_.path(), str("token ", begin + static_cast<int64_t>(i)), str(sample), str("less than the vocabulary's ", vocab_size_), "the file is damaged"});
    }
  };
  if (dtype_ == TokenDtype::uint16) copy(uint16_t{});
  else copy(uint32_t{});
}

int64_t ShardFile::document_of(int64_t token) const {
  FATHOM_ASSERT(token >= 0 && token < tokens_, token, " of ", tokens_);
  return std::upper_bound(starts_.begin(), starts_.end(), token) - starts_.begin() - 1;
}

std::string ShardFile::hash() const {
  const auto bytes = map_.bytes();
  return hash_bytes({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

ShardWriter::ShardWriter(int64_t vocab_size, std::string tokenizer_identity)
    : vocab_size_(vocab_size), dtype_(token_dtype(vocab_size)), identity_(std::move(tokenizer_identity)) {
  FATHOM_ASSERT(vocab_size >= 1 && vocab_size <= limits::kVocabulary, vocab_size);
  FATHOM_ASSERT(identity_.size() == 32, identity_);
}

void ShardWriter::add(std::span<const int32_t> document, int64_t text_bytes) {
  if (document.empty()) return;
  FATHOM_ASSERT(static_cast<int64_t>(document.size()) <= limits::kShardTokens - tokens_, tokens_);
  for (int32_t t : document) {
    FATHOM_ASSERT(t >= 0 && t < vocab_size_, t, " of ", vocab_size_);
    if (dtype_ == TokenDtype::uint16) narrow_.push_back(static_cast<uint16_t>(t));
    else wide_.push_back(static_cast<uint32_t>(t));
  }
  tokens_ += static_cast<int64_t>(document.size());
  text_bytes_ += text_bytes;
  starts_.push_back(tokens_);
}

ShardInfo ShardWriter::write(const std::string& folder, const std::string& name) {
  FATHOM_ASSERT(tokens_ > 0, name);
  Header h{};
  std::memcpy(h.magic, kMagic, sizeof kMagic);
  h.version = kShardVersion;
  h.token_bytes = static_cast<uint32_t>(token_bytes(dtype_));
  h.tokens = static_cast<uint64_t>(tokens_);
  h.documents = static_cast<uint64_t>(documents());
  h.vocab_size = static_cast<uint64_t>(vocab_size_);
  std::memcpy(h.identity, identity_.data(), sizeof h.identity);

  AtomicFile file(join_path(folder, name));
  Hasher hasher;
  const auto put = [&](const void* bytes, size_t count) {
    file.write(bytes, count);
    hasher.update(bytes, count);
  };
  put(&h, sizeof h);
  const size_t bytes = static_cast<size_t>(tokens_ * token_bytes(dtype_));
  put(dtype_ == TokenDtype::uint16 ? static_cast<const void*>(narrow_.data()) : wide_.data(), bytes);
  const char zeros[8] = {};
  put(zeros, padded(bytes) - bytes);
  put(starts_.data(), starts_.size() * sizeof(int64_t));
  ShardInfo info{name, tokens_, documents(), text_bytes_, file.size(), hasher.hex()};
  file.commit();
  tokens_ = text_bytes_ = 0;
  narrow_.clear();
  wide_.clear();
  starts_ = {0};
  return info;
}

}  // namespace fathom::data
