// What a Tokenizer holds, for the files of this room that build and use it.
#pragma once
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/json.h"
#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/decoders.h"
#include "text/gguf_vocabulary.h"
#include "text/normalizer.h"
#include "text/post_processor.h"
#include "text/pre_tokenizer.h"
#include "text/tokenizer.h"

namespace fathom::text {

struct Tokenizer::Data {
  struct Token {
    std::string text;       // as spelled in the file
    std::string decoded;    // what the decoder gets, where that differs: an added token in its normalised form
    bool exists = false;
    bool special = false;
    bool added = false;
  };

  struct Merge {
    int32_t left, right, merged;
  };

  std::string where;  // the file, for errors
  // The tokenizer.json as it was read; of a GGUF vocabulary its beginning and its merges, of which json() makes the whole.
  mutable std::string json;
  std::string json_head;
  std::vector<Merge> merges;  // by rank
  mutable std::string identity;
  mutable std::once_flag json_written, identified;

  std::vector<Token> tokens;                            // by id
  std::unordered_map<std::string_view, int32_t> by_text;  // views of tokens[].text
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  AddedTokenFinder raw_added, normalized_added;
  std::unique_ptr<const Bpe> bpe;
  PostProcessor post_processor;
  Decoder decoder;
  std::optional<int32_t> bos, eos;

  // Buffers and word cache of one encode call. A call takes a free set or makes one, and gives it back: as many live as
  // threads ever encoded at once.
  struct Scratch {
    PatternScratch patterns;
    PreTokenizer::Scratch pre_tokenizer;
    BpeScratch bpe;
    std::string normalized[2];
    Scratch() { pre_tokenizer.patterns = &patterns; }
  };
  std::unique_ptr<Scratch> take_scratch() const;
  void give_scratch(std::unique_ptr<Scratch> scratch) const;

  mutable std::mutex mutex;
  mutable std::vector<std::unique_ptr<Scratch>> free_scratch;
};

// Where a tokenizer's parts come from: all but the longest two are in `root`, a tokenizer.json.
struct TokenizerSource {
  Json root;
  // Tokens as spelled, each once, with their ids; `added` is the number of added tokens.
  std::function<std::vector<std::pair<std::string_view, int32_t>>(size_t added)> vocabulary;
  std::function<MergeTable()> merges;  // called when Data::by_text has the vocabulary
};

// Fills `data`, whose `where` names the file, but for what its JSON is.
void build_tokenizer(const TokenizerSource& source, Tokenizer::Data& data);

std::shared_ptr<const Tokenizer::Data> read_tokenizer_json(std::string_view bytes, const std::string& where);
std::shared_ptr<const Tokenizer::Data> read_gguf_vocabulary(const GgufVocabulary& vocabulary, const std::string& where);
std::string gguf_tokenizer_json(const Tokenizer::Data& data);
// Keys sorted, no white space, merges in one spelling.
std::string canonical_json(std::string_view json, const std::string& where);

}  // namespace fathom::text
