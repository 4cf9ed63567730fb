// The pre-tokenizer of a tokenizer.json: cuts a normalised text into the words that BPE merges inside. A pipeline of
// stages; each word of one stage goes through the next at once, so nothing is collected.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "text/pattern.h"
#include "text/word_patterns.h"

namespace fathom::text {

class WordSink {
 public:
  // `readable_end` >= the word's end: bytes up to it may be loaded.
  virtual void word(std::string_view word, const char* readable_end) = 0;

 protected:
  ~WordSink() = default;
};

enum class SplitBehavior : uint8_t { removed, isolated, merged_with_previous, merged_with_next, contiguous };

class PreTokenizer {
 public:
  PreTokenizer() = default;  // a text is one word
  // `json` may be null. Throws UserError.
  PreTokenizer(const Json& json, const std::string& where, const std::string& path);

  // The last stage is ByteLevel: words are handed over as bytes, to be spelled in GPT-2's alphabet.
  bool byte_level() const { return byte_level_; }
  // Whether a text is always one word.
  bool whole() const { return stages_.empty(); }

  // Buffers of one thread.
  struct Scratch {
    struct Span {
      size_t begin, end;
      bool match;
    };
    struct Stage {
      std::string text;
      std::vector<Span> spans;
    };
    std::vector<Stage> stages;
    PatternScratch* patterns = nullptr;
  };

  // Whether run() looks at `lead` (text/normalizer.h): a Metaspace of the scheme "first".
  bool needs_lead() const;
  // `lead`: bytes at the text's start that stem from the input's first character; 0 where none do, or needs_lead() is false.
  void run(std::string_view text, size_t lead, Scratch& scratch, WordSink& sink) const;

 private:
  enum class Kind : uint8_t {
    word_rule,     // text/word_patterns.h, isolated
    split,         // pattern with a behaviour
    chars,         // characters of a class with a behaviour
    words,         // \w+|[^\w\s]+
    prefix_space,  // ByteLevel's add_prefix_space
    letters,       // ByteLevel that is not the last stage
    metaspace,     // spaces become its character, one in front
    fixed_length,
  };
  enum class Chars : uint8_t { space, number, punctuation, one };
  enum class Prepend : uint8_t { always, never, first };
  struct Stage {
    Kind kind;
    WordRule rule = WordRule::gpt2;
    std::optional<Pattern> pattern;
    SplitBehavior behavior = SplitBehavior::isolated;
    bool invert = false;
    Chars chars = Chars::space;
    char32_t one = 0;         // the character of Chars::one
    std::string replacement;  // metaspace
    Prepend prepend = Prepend::never;
    int64_t length = 0;  // fixed_length
  };

  void add(const Json& json, const std::string& where, const std::string& path, int depth);
  void add_split(const std::optional<WordRule>& rule, Pattern pattern, SplitBehavior behavior, bool invert);
  void add_chars(Chars chars, SplitBehavior behavior, char32_t one = 0);
  void stage(size_t k, std::string_view text, size_t lead, const char* readable_end, Scratch& scratch, WordSink& sink) const;
  void spans(const Stage& s, std::string_view text, PatternScratch& patterns, std::vector<Scratch::Span>& out) const;

  std::vector<Stage> stages_;
  bool byte_level_ = false;
};

}  // namespace fathom::text
