// Added tokens: texts that become one id wherever they stand, found before (or after) normalisation, leftmost and longest
// first.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace fathom::text {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool single_word = false;  // not inside a word
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // and after it
  bool normalized = false;   // looked for in the normalised text, in its own normalised form
  bool special = false;
};

// Finds one set of them.
class AddedTokenFinder {
 public:
  // `pattern`: how the token looks in the text to be searched; not empty.
  void add(const AddedToken& token, const std::string& pattern);
  bool empty() const { return tokens_.empty(); }

  // Calls text(begin, end) for stretches without tokens (never empty) and token(id) for tokens, in order.
  template <class Text, class Token>
  void split(std::string_view input, bool allow_special, Text&& on_text, Token&& on_token) const {
    size_t done = 0, from = 0;
    Found f;
    SpaceRun spaces;
    while (find(input, from, f)) {
      from = f.end;
      // A token whose white space an earlier one took is nothing any more (that it may lie inside is `tokenizers`' way).
      if (!accept(input, allow_special, done, spaces, f) || f.begin >= f.end) continue;
      if (done < f.begin) on_text(done, f.begin);
      on_token(f.token->id);
      done = f.end;
    }
    if (done < input.size()) on_text(done, input.size());
  }

 private:
  struct Node {
    int32_t token = -1;
    std::vector<std::pair<uint8_t, int32_t>> next;  // sorted by byte
  };
  struct Found {
    size_t begin, end;
    const AddedToken* token;
  };
  // White space that was walked over already: a token of white space is found at each of its characters anew.
  struct SpaceRun {
    size_t begin = 0, end = 0;
  };
  bool find(std::string_view input, size_t from, Found& found) const;
  // Whether the match counts; stretches it over white space, but not before `done`.
  bool accept(std::string_view input, bool allow_special, size_t done, SpaceRun& spaces, Found& found) const;

  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_ = std::vector<Node>(1);
  int32_t first_[256] = {};  // node after the first byte, 0 = none
  int only_first_ = -1;      // the byte, if all tokens begin with the same one; -2: several
};

}  // namespace fathom::text
