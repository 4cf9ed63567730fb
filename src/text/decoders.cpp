#include "text/decoders.h"

#include <algorithm>

#include "core/utf8.h"
#include "text/byte_alphabet.h"
#include "text/component.h"

namespace fathom::text {
namespace {

// "<0x0A>" as tokenizers reads it: six bytes, two hex digits in either case. -1 otherwise.
int byte_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  int value = 0;
  for (const char c : token.substr(token[3] == '+' ? 4 : 3, token[3] == '+' ? 1 : 2)) {  // "+A" is a number in Rust
    const char l = static_cast<char>(c | 0x20);
    if (c >= '0' && c <= '9') value = value * 16 + (c - '0');
    else if (l >= 'a' && l <= 'f') value = value * 16 + (l - 'a' + 10);
    else return -1;
  }
  return value;
}

// Pattern state for decoders, which run outside of any encode.
PatternScratch& scratch() {
  thread_local PatternScratch s;
  return s;
}

std::string strip_piece(std::string_view piece, const std::string& content, int64_t start, int64_t stop) {
  for (; start > 0 && piece.starts_with(content); --start) piece.remove_prefix(content.size());
  for (; stop > 0 && piece.ends_with(content); --stop) piece.remove_suffix(content.size());
  return std::string(piece);
}

std::string replace_char(std::string_view piece, const std::string& from, const char* to) {
  std::string out;
  while (!piece.empty()) {
    if (piece.starts_with(from)) {
      out += to;
      piece.remove_prefix(from.size());
    } else {
      out += piece[0];
      piece.remove_prefix(1);
    }
  }
  return out;
}

}  // namespace

Decoder::Decoder(const Json& json, const std::string& where, const std::string& path) {
  if (json.is_null()) return;
  joined_by_spaces_ = false;
  add(json, where, path, 0);
}

void Decoder::add(const Json& json, const std::string& where, const std::string& path, int depth) {
  const Component c(json, where, path, "decoder");
  const std::string& type = c.type();
  if (static_cast<int64_t>(steps_.size()) >= limits::kTokenizerStages)
    throw UserError({where, path, "too many decoders", str("at most ", limits::kTokenizerStages), ""});
  Step s{};
  if (type == "Sequence") {
    if (depth > 8) throw UserError({where, path, "Sequences nested deeper than 8", "fewer", ""});
    for (const auto& member : c.members("decoders")) add(member.json(), where, member.place(), depth + 1);
    return c.done();
  }
  const auto character = [&](const std::string& key) {
    const std::string text = c.string(key);
    if (text.empty() || utf8_length(text) != text.size()) c.wrong(key, "\"" + printable(text) + "\"", "one character");
    return text;
  };
  if (type == "ByteLevel") {
    for (const char* key : {"add_prefix_space", "trim_offsets", "use_regex"}) c.ignore(key);
    s.kind = Kind::byte_level;
  } else if (type == "ByteFallback") {
    s.kind = Kind::byte_fallback;
  } else if (type == "Fuse") {
    s.kind = Kind::fuse;
  } else if (type == "Replace") {
    s.kind = Kind::replace;
    const auto p = c.pattern("pattern");
    if (p.text.empty()) c.wrong("pattern", "an empty pattern", "a text to replace");
    s.pattern = p.regex ? Pattern::regex(p.text, where, p.field) : Pattern::literal(p.text);
    s.content = c.string("content");
  } else if (type == "Strip") {
    s.kind = Kind::strip;
    s.content = character("content");
    s.start = c.integer("start", 0, limits::kTokenBytes);
    s.stop = c.integer("stop", 0, limits::kTokenBytes);
  } else if (type == "Metaspace") {
    s.kind = Kind::metaspace;
    s.content = character("replacement");
    const std::string scheme = c.string("prepend_scheme", "always");
    if (scheme != "always" && scheme != "first" && scheme != "never") c.wrong("prepend_scheme", "\"" + printable(scheme) + "\"", "always, first or never");
    s.drop_first = scheme != "never" && c.boolean("add_prefix_space", true);
    for (const char* key : {"add_prefix_space", "split", "str_rep"}) c.ignore(key);
  } else {
    c.unknown("Sequence, ByteLevel, ByteFallback, Fuse, Replace, Strip, Metaspace");
  }
  c.done();
  steps_.push_back(std::move(s));
}

std::string Decoder::token_bytes(std::string_view token) const {
  std::string bytes(token);
  for (const Step& s : steps_) {
    std::string next;
    switch (s.kind) {
      case Kind::byte_level:
        if (letters_to_bytes(bytes, next)) bytes = next;
        break;
      case Kind::byte_fallback:
        if (const int b = byte_token(bytes); b >= 0) return std::string(1, static_cast<char>(b));
        break;
      case Kind::replace: bytes = s.pattern->replace(bytes, s.content, scratch()); break;
      case Kind::metaspace: bytes = replace_char(bytes, s.content, " "); break;
      case Kind::fuse: case Kind::strip: case Kind::join: break;  // what they take away belongs to the text's ends
    }
  }
  return bytes;
}

std::unique_ptr<DecoderStream> Decoder::stream() const { return std::make_unique<DecoderStream>(*this); }

// A filter gets whole pieces; behind a filter that joins everything (Fuse, ByteLevel) it gets parts of the one piece.
class DecoderStream::Filter {
 public:
  virtual ~Filter() = default;
  virtual void push(std::string piece) = 0;
  virtual void finish() = 0;  // passes on the rest and starts anew; does not call the next filter's finish
  Filter* next = nullptr;
  std::string* out = nullptr;  // of the last filter

 protected:
  void pass(std::string piece) {
    if (next) next->push(std::move(piece));
    else out->append(piece);
  }
};

class DecoderStream::Filters {
 public:
  using Kind = Decoder::Kind;
  using Step = Decoder::Step;

  // One piece in, one piece out.
  class Map final : public Filter {
   public:
    explicit Map(const Step& s) : s_(s) {}
    void push(std::string piece) override {
      switch (s_.kind) {
        case Kind::replace: pass(s_.pattern->replace(piece, s_.content, scratch())); break;
        case Kind::strip: pass(strip_piece(piece, s_.content, s_.start, s_.stop)); break;
        case Kind::metaspace: pass(replace_char(piece, s_.content, first_ && s_.drop_first ? "" : " ")); break;
        case Kind::join: pass((first_ ? "" : " ") + piece); break;
        default: pass(std::move(piece));
      }
      first_ = false;
    }
    void finish() override { first_ = true; }

   private:
    const Step& s_;
    bool first_ = true;
  };

  // Bytes of all pieces as one text, broken characters as U+FFFD. Holds back the beginning of a character.
  class ByteLevel final : public Filter {
   public:
    void push(std::string piece) override {
      if (!letters_to_bytes(piece, held_)) held_ += piece;
      const size_t tail = utf8_incomplete_tail(held_);
      if (tail == held_.size()) return;
      const std::string_view whole = std::string_view(held_).substr(0, held_.size() - tail);
      pass(utf8_repair(whole));
      held_.erase(0, whole.size());
    }
    void finish() override {
      if (!held_.empty()) pass(utf8_repair(held_));
      held_.clear();
    }

   private:
    std::string held_;
  };

  // A run of byte tokens is a text if it is UTF-8, else one U+FFFD for each; so a run is held back to its end.
  class ByteFallback final : public Filter {
   public:
    void push(std::string piece) override {
      if (const int b = byte_token(piece); b >= 0) {
        run_ += static_cast<char>(b);
        return;
      }
      finish();
      pass(std::move(piece));
    }
    void finish() override {
      if (run_.empty()) return;
      if (is_utf8(run_)) pass(run_);
      else
        for (size_t i = 0; i < run_.size(); ++i) pass("\xef\xbf\xbd");
      run_.clear();
    }

   private:
    std::string run_;
  };

  // Strip on the one piece: takes at most `start` characters from its beginning, holds back as many as the end may lose.
  class StripWhole final : public Filter {
   public:
    explicit StripWhole(const Step& s) : s_(s), left_(s.start) {}
    void push(std::string part) override {
      std::string_view rest = part;
      while (left_ > 0 && rest.starts_with(s_.content)) rest.remove_prefix(s_.content.size()), --left_;
      if (!rest.empty()) left_ = 0;
      held_ += rest;
      size_t keep = held_.size();
      for (int64_t i = 0; i < s_.stop && std::string_view(held_).substr(0, keep).ends_with(s_.content); ++i) keep -= s_.content.size();
      if (keep > 0) pass(held_.substr(0, keep));
      held_.erase(0, keep);
    }
    void finish() override { held_.clear(), left_ = s_.start; }

   private:
    const Step& s_;
    int64_t left_;
    std::string held_;
  };

  // Any other filter on the one piece needs all of it.
  class Whole final : public Filter {
   public:
    explicit Whole(std::unique_ptr<Filter> inner) : inner_(std::move(inner)) {}
    void push(std::string part) override { held_ += part, any_ = true; }
    void finish() override {
      if (!any_) return;
      inner_->next = next, inner_->out = out;
      inner_->push(std::move(held_));
      inner_->finish();
      held_.clear(), any_ = false;
    }

   private:
    std::unique_ptr<Filter> inner_;
    std::string held_;
    bool any_ = false;
  };
};

DecoderStream::DecoderStream(const Decoder& decoder) {
  static const Decoder::Step kJoin{Decoder::Kind::join, {}, {}, 0, 0, false};
  if (decoder.joined_by_spaces_) filters_.push_back(std::make_unique<Filters::Map>(kJoin));
  bool one_piece = false;
  for (const auto& s : decoder.steps_) {
    using Kind = Decoder::Kind;
    if (s.kind == Kind::fuse) {
      one_piece = true;
      continue;
    }
    if (one_piece && s.kind == Kind::strip) {
      filters_.push_back(std::make_unique<Filters::StripWhole>(s));
      continue;
    }
    std::unique_ptr<Filter> f;
    if (s.kind == Kind::byte_level) f = std::make_unique<Filters::ByteLevel>();
    else if (s.kind == Kind::byte_fallback) f = std::make_unique<Filters::ByteFallback>();
    else f = std::make_unique<Filters::Map>(s);
    if (one_piece) f = std::make_unique<Filters::Whole>(std::move(f));
    if (s.kind == Kind::byte_level) one_piece = true;
    filters_.push_back(std::move(f));
  }
  for (size_t i = 0; i + 1 < filters_.size(); ++i) filters_[i]->next = filters_[i + 1].get();
}

DecoderStream::~DecoderStream() = default;

void DecoderStream::push(std::string_view token, std::string& out) {
  if (filters_.empty()) {
    out += token;
    return;
  }
  filters_.back()->out = &out;
  filters_.front()->push(std::string(token));
}

void DecoderStream::finish(std::string& out) {
  if (filters_.empty()) return;
  filters_.back()->out = &out;
  for (auto& f : filters_) f->finish();
}

}  // namespace fathom::text
