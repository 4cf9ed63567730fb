// Text to token ids and back, from a tokenizer.json in the Hugging Face format: byte-level BPE (GPT-2, Llama-3, Qwen)
// and byte-fallback BPE (Llama-2). The ids are those of the `tokenizers` package; a component that we do not know is
// refused by name. A Tokenizer is a handle to immutable data: copies are cheap and every const call is thread-safe.
// Text that is not UTF-8 is read as Python's errors="replace" reads it: each maximal ill-formed part is one U+FFFD.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace fathom::text {

struct EncodeOptions {
  bool add_special_tokens = false;  // what the post-processor adds around a text (<s> …)
  bool allow_special = false;  // "<|endoftext|>" in the text becomes that special token; false: it is plain text
};

struct GgufVocabulary;  // text/gguf_vocabulary.h

class Tokenizer {
 public:
  // A tokenizer.json, or a folder that holds one. UserError names the file and the field.
  static Tokenizer load(const std::string& path);
  static Tokenizer from_json(std::string_view bytes, const std::string& where);
  // `where` names the GGUF file in errors. bos_id() and eos_id() are the metadata's.
  static Tokenizer from_gguf(const GgufVocabulary& vocabulary, const std::string& where);

  std::vector<int32_t> encode(std::string_view text, const EncodeOptions& options = {}) const;
  void encode_append(std::string_view text, const EncodeOptions& options, std::vector<int32_t>& out) const;

  // Always UTF-8 (broken characters become U+FFFD as in `tokenizers`). Ids without a token are passed over.
  std::string decode(std::span<const int32_t> ids, bool skip_special = true) const;

  int64_t vocab_size() const;  // greatest id + 1: the least V that a model needs
  std::optional<int32_t> token_to_id(std::string_view token) const;  // as spelled in the file ("Ġthe")
  std::string token_text(int32_t id) const;   // as spelled in the file; "" for an id without a token
  std::string token_bytes(int32_t id) const;  // the bytes it stands for inside a text (" the"); may be half a character
  // Bytes of text that every id stands for, 0 for special tokens: what turns nats per token into bits per byte.
  std::vector<int32_t> bytes_per_token() const;
  bool is_special(int32_t id) const;          // an added token marked special

  // XXH3-128 of the file's canonical content: equal for two files that differ in layout only. Computed when first asked for.
  const std::string& identity() const;
  const std::string& json() const;  // the file as it was read, to be saved beside a model; from_gguf: one that says the same

  // What begins and ends a document: the post-processor's "bos_token" and "eos_token", else what its template puts around a
  // text, else the usual names among the added tokens.
  std::optional<int32_t> bos_id() const;
  std::optional<int32_t> eos_id() const;

  struct Data;

 private:
  friend class StreamDecoder;
  explicit Tokenizer(std::shared_ptr<const Data> data) : data_(std::move(data)) {}
  std::shared_ptr<const Data> data_;
};

class DecoderStream;  // text/decoders.h

// Decodes ids one by one. Never returns part of a character; all that push() and finish() returned, joined, is exactly
// decode() of all the ids; after begin_after(before) it is what they add to decode(before).
class StreamDecoder {
 public:
  explicit StreamDecoder(Tokenizer tokenizer, bool skip_special = true);
  ~StreamDecoder();
  StreamDecoder(StreamDecoder&&) noexcept;
  StreamDecoder& operator=(StreamDecoder&&) noexcept;
  std::string push(int32_t id);  // text that is now certain, often "" inside a character
  std::string finish();          // what was held back; afterwards the decoder is as new
  // A new decoder goes on from a text that its reader has: a decoder that treats the beginning of a text apart (Strip,
  // Metaspace, the joining space) must not take the first new id for one. Costs two decodes of `before`.
  void begin_after(std::span<const int32_t> before);

 private:
  std::string without_known(std::string out);
  Tokenizer tokenizer_;
  bool skip_special_;
  std::unique_ptr<DecoderStream> stream_;
  std::string known_;  // the end of decode(before) that the stream still holds back: the reader has it
};

}  // namespace fathom::text
