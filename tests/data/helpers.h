// Shared by the tests of data: files in a temporary folder, zstd and bzip2, error messages, a small tokenizer.
#pragma once
#include <bzlib.h>
#include <zstd.h>

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/file.h"
#include "core/json.h"
#include "core/utf8.h"
#include "data/documents.h"
#include "in_memory.h"
#include "text/tokenizer.h"

namespace fathom::data {

inline std::string message(const std::function<void()>& body) {
  try {
    body();
  } catch (const UserError& e) {
    return e.what();
  }
  return "no error";
}

inline std::string zstd(const std::string& text, int window_log = 0) {
  ZSTD_CCtx* c = ZSTD_createCCtx();
  if (window_log) ZSTD_CCtx_setParameter(c, ZSTD_c_enableLongDistanceMatching, 1);
  if (window_log) ZSTD_CCtx_setParameter(c, ZSTD_c_windowLog, window_log);
  std::string out(ZSTD_compressBound(text.size()), '\0');
  out.resize(ZSTD_compress2(c, out.data(), out.size(), text.data(), text.size()));
  ZSTD_freeCCtx(c);
  return out;
}

inline std::string bzip2(std::string text) {
  unsigned size = static_cast<unsigned>(text.size() + text.size() / 50 + 1000);
  std::string out(size, '\0');
  FATHOM_ASSERT(BZ2_bzBuffToBuffCompress(out.data(), &size, text.data(), static_cast<unsigned>(text.size()), 9, 0, 0) == BZ_OK, "bzip2");
  out.resize(size);
  return out;
}

class Files {
 public:
  std::string operator()(const std::string& name) const { return join_path(folder_.path(), name); }
  std::string put(const std::string& name, std::string_view content) const {
    const std::string path = (*this)(name);
    make_folders(path.substr(0, path.rfind('/')));
    atomic_write(path, content);
    return path;
  }
  const std::string& path() const { return folder_.path(); }

 private:
  TemporaryFolder folder_;
};

inline std::vector<std::string> all_documents(DocumentStream& stream) {
  std::vector<std::string> out;
  std::string text;
  while (stream.next(text)) out.push_back(text);
  return out;
}

inline std::vector<std::string> documents_of(const std::vector<std::string>& inputs, const DocumentOptions& options = {}) {
  DocumentStream stream(inputs, options);
  return all_documents(stream);
}

// "<s>role: content<|endoftext|>" for every message.
inline text::ConversationFormat small_format() {
  return {.render = [](std::span<const text::ChatMessage> messages) {
            std::string out;
            for (const text::ChatMessage& m : messages) {
              if (m.role == "nobody") throw UserError({"template", "", "nobody", "somebody", ""});
              out += "<s>" + m.role + ": " + m.content + "<|endoftext|>";
            }
            return out;
          },
          .source = "small"};
}

// Byte-level BPE of 256 bytes, a few merges, <s> and <|endoftext|>; `variant` makes another identity.
inline text::Tokenizer small_tokenizer(int variant = 0) {
  Json vocab = Json::object(), merges = Json::array(), added = Json::array();
  int id = 0;
  for (const char* special : {"<|endoftext|>", "<s>"}) {
    added.push_back({{"id", id}, {"content", special}, {"single_word", false}, {"lstrip", false}, {"rstrip", false}, {"normalized", false}, {"special", true}});
    vocab[special] = id++;
  }
  char32_t other = 0x100;  // GPT-2's alphabet: printable bytes stand for themselves, the rest from U+0100
  for (int b = 0; b < 256; ++b) {
    const bool self = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    std::string token;
    utf8_append(token, self ? static_cast<char32_t>(b) : other++);
    vocab[token] = id++;
  }
  for (const auto& [left, right] : {std::pair<const char*, const char*>{"\u0120", "w"}, {"\u0120w", "1"}, {"w", "2"}}) {
    merges.push_back({left, right});
    vocab[std::string(left) + right] = id++;
  }
  while (variant-- > 0) vocab[str("unused", variant)] = id++;
  const Json json = {{"version", "1.0"},
                     {"added_tokens", added},
                     {"normalizer", nullptr},
                     {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}}},
                     {"post_processor", nullptr},
                     {"decoder", {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}}},
                     {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", merges}}}};
  return text::Tokenizer::from_json(json.dump(), "test");
}

}  // namespace fathom::data
