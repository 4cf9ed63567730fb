// The post-processor of a tokenizer.json: the special tokens around a text.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"

namespace fathom::text {

struct PostProcessor {
  std::vector<int32_t> before, after;
  // What begins and ends a document, said by the special tokens "bos_token" and "eos_token" of a template, which it need not
  // use: one id, or none at all for a model that has no such token.
  struct End {
    bool said = false;
    std::optional<int32_t> id;
  };
  End bos, eos;
};

// `json` may be null. `known_ids[id]`: the tokenizer has a token of that id. Throws UserError.
PostProcessor read_post_processor(const Json& json, const std::string& where, const std::string& path, const std::vector<bool>& known_ids);

}  // namespace fathom::text
