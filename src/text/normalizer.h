// The normalizer of a tokenizer.json: what is done to a text before it is cut into words.
#pragma once
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "text/pattern.h"
#include "text/unicode.h"

namespace fathom::text {

class Normalizer {
 public:
  Normalizer() = default;  // none
  // `json` may be null. Throws UserError.
  Normalizer(const Json& json, const std::string& where, const std::string& path);

  bool empty() const { return steps_.empty(); }

  // `text` is UTF-8. Returns `text` where nothing changed, else one of the two buffers. `lead`, when given, is that of `text`
  // and becomes that of the result: how many bytes at its start stem from the first character of the whole input, as
  // `tokenizers` aligns them. Metaspace's "first" puts its character in front of a part that begins among them, and of no
  // other: not where Strip took the input's first character away, but before every part of what Prepend put there.
  std::string_view apply(std::string_view text, std::string (&buffers)[2], PatternScratch& scratch, size_t* lead = nullptr) const;

 private:
  enum class Kind { normal_form, lowercase, prepend, replace, strip, strip_accents, nmt, byte_level };
  struct Step {
    Kind kind;
    NormalForm form = NormalForm::nfc;
    std::string content;              // prepend, replace
    std::optional<Pattern> pattern;   // replace
    bool left = false, right = false;  // strip
  };
  void add(const Json& json, const std::string& where, const std::string& path, int depth);
  std::string_view run(const Step& step, std::string_view text, std::string& out, PatternScratch& scratch) const;
  // `text` became `result`.
  size_t lead_after(const Step& step, std::string_view text, std::string_view result, size_t lead, PatternScratch& scratch) const;

  std::vector<Step> steps_;
};

}  // namespace fathom::text
