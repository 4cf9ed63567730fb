// What a Tokenizer holds, for the files of this room that build and use it.
#pragma once
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/decoders.h"
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

  std::string json;
  std::string identity;
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

// Reads a tokenizer.json. `where` names it in errors.
std::shared_ptr<const Tokenizer::Data> read_tokenizer_json(std::string_view bytes, const std::string& where);

}  // namespace fathom::text
