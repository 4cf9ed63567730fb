#include "text/tokenizer.h"

#include <algorithm>

#include "core/error.h"
#include "core/file.h"
#include "core/limits.h"
#include "core/utf8.h"
#include "text/tokenizer_data.h"

namespace fathom::text {
namespace {

constexpr size_t kKeptScratch = 64;  // sets of buffers, 2 MiB and more each
constexpr size_t kKeptBytes = size_t{16} << 20;

// Encodes the words of one text into the scratch's ids.
class Encoder final : public WordSink {
 public:
  Encoder(const Bpe& bpe, BpeScratch& scratch) : bpe_(bpe), scratch_(scratch) {}
  void word(std::string_view word, const char* readable_end) override { bpe_.encode(word, readable_end, scratch_); }

 private:
  const Bpe& bpe_;
  BpeScratch& scratch_;
};

// Puts the scratch back also when an exception passes.
class Borrowed {
 public:
  explicit Borrowed(const Tokenizer::Data& data) : data_(data), scratch_(data.take_scratch()) {}
  ~Borrowed() { data_.give_scratch(std::move(scratch_)); }
  Borrowed(const Borrowed&) = delete;
  Borrowed& operator=(const Borrowed&) = delete;
  Tokenizer::Data::Scratch& operator*() { return *scratch_; }

 private:
  const Tokenizer::Data& data_;
  std::unique_ptr<Tokenizer::Data::Scratch> scratch_;
};

}  // namespace

std::unique_ptr<Tokenizer::Data::Scratch> Tokenizer::Data::take_scratch() const {
  {
    const std::lock_guard lock(mutex);
    if (!free_scratch.empty()) {
      auto scratch = std::move(free_scratch.back());
      free_scratch.pop_back();
      return scratch;
    }
  }
  return std::make_unique<Scratch>();
}

void Tokenizer::Data::give_scratch(std::unique_ptr<Scratch> scratch) const {
  scratch->bpe.ids.clear();
  // One huge document must not keep its buffers for ever.
  if (scratch->bpe.bytes() + scratch->normalized[0].capacity() + scratch->normalized[1].capacity() > kKeptBytes) return;
  const std::lock_guard lock(mutex);
  if (free_scratch.size() < kKeptScratch) free_scratch.push_back(std::move(scratch));
}

Tokenizer Tokenizer::load(const std::string& path) {
  const std::string file = is_folder(path) ? join_path(path, "tokenizer.json") : path;
  return from_json(read_file(file, limits::kJsonBytes), file);
}

Tokenizer Tokenizer::from_json(std::string_view bytes, const std::string& where) { return Tokenizer(read_tokenizer_json(bytes, where)); }

Tokenizer Tokenizer::from_gguf(const GgufVocabulary& vocabulary, const std::string& where) { return Tokenizer(read_gguf_vocabulary(vocabulary, where)); }

std::vector<int32_t> Tokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  std::vector<int32_t> ids;
  encode_append(text, options, ids);
  return ids;
}

void Tokenizer::encode_append(std::string_view text, const EncodeOptions& options, std::vector<int32_t>& out) const {
  const Data& d = *data_;
  if (static_cast<int64_t>(text.size()) > limits::kDocumentBytes)
    throw UserError({"", "text", str(text.size(), " bytes"), str("at most ", limits::kDocumentBytes), "split it into documents"});
  std::string repaired;
  if (!is_utf8(text)) text = repaired = utf8_repair(text);

  Borrowed borrowed(d);
  Data::Scratch& s = *borrowed;
  std::vector<int32_t>& ids = s.bpe.ids;
  Encoder encoder(*d.bpe, s.bpe);
  const auto push = [&](int32_t id) { ids.push_back(id); };

  if (options.add_special_tokens) ids.insert(ids.end(), d.post_processor.before.begin(), d.post_processor.before.end());
  d.raw_added.split(
      text, options.allow_special,
      [&](size_t begin, size_t end) {
        const std::string_view raw = text.substr(begin, end - begin);
        size_t lead = begin == 0 && d.pre_tokenizer.needs_lead() ? utf8_length(raw) : 0;
        const std::string_view part = d.normalizer.apply(raw, s.normalized, s.patterns, lead > 0 ? &lead : nullptr);
        d.normalized_added.split(
            part, options.allow_special,
            [&](size_t from, size_t to) {
              d.pre_tokenizer.run(part.substr(from, to - from), lead > from ? std::min(lead, to) - from : 0, s.pre_tokenizer, encoder);
            },
            push);
      },
      push);
  if (options.add_special_tokens) ids.insert(ids.end(), d.post_processor.after.begin(), d.post_processor.after.end());
  out.insert(out.end(), ids.begin(), ids.end());
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  std::string out;
  DecoderStream stream(data_->decoder);
  for (const int32_t id : ids) {
    if (id < 0 || id >= vocab_size()) continue;
    const Data::Token& token = data_->tokens[static_cast<size_t>(id)];
    if (token.exists && !(skip_special && token.special)) stream.push(token.decoded.empty() ? token.text : token.decoded, out);
  }
  stream.finish(out);
  return out;
}

int64_t Tokenizer::vocab_size() const { return static_cast<int64_t>(data_->tokens.size()); }

std::optional<int32_t> Tokenizer::token_to_id(std::string_view token) const {
  const auto it = data_->by_text.find(token);
  if (it == data_->by_text.end()) return {};
  return it->second;
}

std::string Tokenizer::token_text(int32_t id) const {
  return id >= 0 && id < vocab_size() ? data_->tokens[static_cast<size_t>(id)].text : std::string();
}

std::string Tokenizer::token_bytes(int32_t id) const {
  if (id < 0 || id >= vocab_size()) return "";
  const Data::Token& token = data_->tokens[static_cast<size_t>(id)];
  return token.added ? token.text : data_->decoder.token_bytes(token.text);
}

bool Tokenizer::is_special(int32_t id) const { return id >= 0 && id < vocab_size() && data_->tokens[static_cast<size_t>(id)].special; }

const std::string& Tokenizer::identity() const {
  std::call_once(data_->identified, [&] { data_->identity = hash_bytes(canonical_json(json(), data_->where)); });
  return data_->identity;
}

const std::string& Tokenizer::json() const {
  std::call_once(data_->json_written, [&] {
    if (data_->json.empty()) data_->json = gguf_tokenizer_json(*data_);
  });
  return data_->json;
}

std::optional<int32_t> Tokenizer::bos_id() const { return data_->bos; }
std::optional<int32_t> Tokenizer::eos_id() const { return data_->eos; }

std::vector<int32_t> Tokenizer::bytes_per_token() const {
  std::vector<int32_t> out(static_cast<size_t>(vocab_size()));
  for (size_t id = 0; id < out.size(); ++id)
    if (!is_special(static_cast<int32_t>(id))) out[id] = static_cast<int32_t>(token_bytes(static_cast<int32_t>(id)).size());
  return out;
}

StreamDecoder::StreamDecoder(Tokenizer tokenizer, bool skip_special)
    : tokenizer_(std::move(tokenizer)), skip_special_(skip_special), stream_(tokenizer_.data_->decoder.stream()) {}
StreamDecoder::~StreamDecoder() = default;
StreamDecoder::StreamDecoder(StreamDecoder&&) noexcept = default;
StreamDecoder& StreamDecoder::operator=(StreamDecoder&&) noexcept = default;

std::string StreamDecoder::push(int32_t id) {
  std::string out;
  if (id < 0 || id >= tokenizer_.vocab_size()) return out;
  const auto& token = tokenizer_.data_->tokens[static_cast<size_t>(id)];
  if (token.exists && !(skip_special_ && token.special)) stream_->push(token.decoded.empty() ? token.text : token.decoded, out);
  return without_known(std::move(out));
}

std::string StreamDecoder::finish() {
  std::string out;
  stream_->finish(out);
  out = without_known(std::move(out));
  known_.clear();
  return out;
}

void StreamDecoder::begin_after(std::span<const int32_t> before) {
  std::string certain;
  for (const int32_t id : before) certain += push(id);
  known_ = tokenizer_.decode(before, skip_special_).substr(certain.size());
}

// What follows may turn out otherwise than decode(before) ended (half a character that is completed now, a run of byte
// tokens that is broken now): then the reader gets what differs.
std::string StreamDecoder::without_known(std::string out) {
  if (known_.empty() || out.empty()) return out;
  size_t same = static_cast<size_t>(std::mismatch(known_.begin(), known_.end(), out.begin(), out.end()).first - known_.begin());
  const auto inside = [&](const std::string& text) { return same < text.size() && (static_cast<unsigned char>(text[same]) & 0xc0) == 0x80; };
  while (same > 0 && (inside(known_) || inside(out))) --same;
  if (same < out.size()) known_.clear();
  else known_.erase(0, same);
  return out.substr(same);
}

}  // namespace fathom::text
