#include "data/documents.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "core/error.h"
#include "core/limits.h"
#include "core/utf8.h"
#include "data/byte_source.h"
#include "data/decoders.h"
#include "data/jsonl.h"

namespace fathom::data {
namespace {

constexpr size_t kChunk = 256 * 1024;
constexpr std::string_view kBom = "\xef\xbb\xbf";

bool is_blank(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c == ' ' || (c >= '\t' && c <= '\r'); });
}

// A NUL, or more than a tenth of bytes that text does not have.
bool looks_binary(std::string_view head) {
  head = head.substr(0, head.size() - utf8_incomplete_tail(head));
  size_t odd = 0;
  for (size_t i = 0; i < head.size();) {
    const size_t n = utf8_length(head.substr(i));
    const unsigned char c = static_cast<unsigned char>(head[i]);
    if (c == 0) return true;
    odd += n == 0 || c == 0x7f || (c < 0x20 && !(c >= 8 && c <= 13) && c != 0x1b);
    i += std::max<size_t>(n, 1);
  }
  return odd * 10 > head.size();
}

// What a packed file begins with, for a better message than the first byte that is not UTF-8.
const char* packed_kind(std::string_view head) {
  if (head.starts_with("\x1f\x8b")) return "gzip data";
  if (head.starts_with("\xfd" "7zXZ")) return "xz data";
  if (head.starts_with("\x28\xb5\x2f\xfd")) return "zstd data in a file not named .zst";
  if (head.starts_with("PK\x03\x04")) return "a zip archive";
  if (head.starts_with("BZh") && head.size() > 10 && head.substr(4, 6) == "1AY&SY") return "bzip2 data in a file not named .bz2";
  return nullptr;
}

bool is_jsonl(std::string_view path) { return unpacked_name(path).ends_with(".jsonl"); }

}  // namespace

struct DocumentStream::State {
  std::vector<SourceFile> sources;
  DocumentOptions options;
  DocumentCounts counts;
  Position position;
  int64_t bytes_before = 0, total_bytes = 0;

  // The file at hand
  std::optional<ByteSource> source;
  bool jsonl = false, ended = false;
  std::string chunk;
  size_t at = 0;            // in chunk
  int64_t offset = 0;       // of chunk[at] in the text (decompressed)
  int64_t line_number = 0;  // of the line read last
  bool in_line = false;     // the last piece of text ended inside a line
  bool in_text = false;     // the last piece of text is not the end of its document
  bool is_piece = false;    // nor a whole one
  bool is_conversation = false;  // the document handed out last
  std::string carry;        // what it left of a character at its end

  const SourceFile& file() const { return sources[static_cast<size_t>(position.file)]; }

  void fill() {
    chunk.resize(kChunk);
    chunk.resize(source->read(chunk.data(), kChunk));
    at = 0;
    ended = chunk.empty();
  }

  void close_file() {
    source.reset();
    bytes_before += file().bytes;
    ++position.file;
    position.document = 0;
  }

  bool open_file() {  // false: passed over
    source.emplace(file().path);
    jsonl = is_jsonl(file().path);
    offset = line_number = 0;
    in_line = in_text = is_piece = false;
    carry.clear();
    fill();
    if (!file().given && looks_binary(chunk)) {
      if (counts.binary_files++ == 0) counts.first_binary = file().name;
      close_file();
      return false;
    }
    if (const char* kind = file().given ? packed_kind(chunk) : nullptr)
      throw UserError({file().path, "byte 0", kind, "UTF-8 text, .jsonl, or either as .zst or .bz2", "unpack it, or pack it with zstd"});
    if (chunk.starts_with(kBom)) at = kBom.size(), offset = kBom.size();
    return true;
  }

  // Appends the next line with its line feed, or what is left of it, until `out` has `max_bytes`. False where nothing is left.
  bool append_line(std::string& out, size_t max_bytes) {
    const size_t begin = out.size();
    while (out.size() < max_bytes) {
      if (at == chunk.size()) {
        if (!ended) fill();
        if (ended) break;
      }
      const char* p = chunk.data() + at;
      const size_t room = std::min(chunk.size() - at, max_bytes - out.size());
      const char* feed = static_cast<const char*>(std::memchr(p, '\n', room));
      const size_t n = feed ? static_cast<size_t>(feed - p) + 1 : room;
      out.append(p, n);
      at += n;
      offset += static_cast<int64_t>(n);
      if (feed) break;
    }
    if (out.size() == begin) return false;
    ++line_number;
    return true;
  }

  // What stands between separators (lines of their own), byte for byte, or the next piece of it; false at the end of the file.
  bool next_text(std::string& text) {
    const auto piece = static_cast<size_t>(options.piece_bytes);
    text = std::exchange(carry, "");
    is_piece = in_text;
    while (true) {
      const size_t begin = text.size();
      const bool whole_line = !std::exchange(in_line, false);
      if (!append_line(text, 2 * piece)) return !text.empty();
      if (whole_line && !options.separator.empty()) {
        std::string_view line = std::string_view(text).substr(begin);
        if (line.ends_with('\n')) line.remove_suffix(1);
        if (line.ends_with('\r')) line.remove_suffix(1);
        if (line == options.separator) {
          text.resize(begin);
          if (!std::exchange(in_text, false) || begin > 0) return true;
          is_piece = false;  // the document before ended with its last piece
          continue;
        }
      }
      if (text.size() < piece) continue;
      in_text = is_piece = true;
      if (!text.ends_with('\n') && text.size() == 2 * piece) {
        in_line = true;
        const size_t rest = utf8_incomplete_tail(text);
        carry = text.substr(text.size() - rest);
        text.resize(text.size() - rest);
      }
      return true;
    }
  }

  void check_utf8(std::string& text, int64_t begin) {
    const size_t good = utf8_valid_length(text);
    if (good == text.size()) return;
    if (options.invalid_utf8 == InvalidUtf8::repair) {
      text = utf8_repair(text, &counts.repaired);
      return;
    }
    const int64_t byte = begin + static_cast<int64_t>(good);
    const bool utf16 = byte == 0 && (text.starts_with("\xff\xfe") || text.starts_with("\xfe\xff"));
    throw UserError({file().path, str("byte ", byte), "\"" + printable(std::string_view(text).substr(good), 12) + "\"", "UTF-8 text",
                     utf16 ? "this is UTF-16: convert it, for example with iconv" : "convert the file, or ask for repair (--repair-utf8)"});
  }

  std::string read_line(const std::string& line) {
    Line read = jsonl_line(line, options.field, file().path, line_number);
    is_conversation = std::holds_alternative<std::vector<text::ChatMessage>>(read);
    if (!is_conversation) return std::move(std::get<std::string>(read));
    if (!options.conversations)
      throw UserError({file().path, str("line ", line_number, ", messages"), "a conversation", "a text", "conversations need a model's chat template: a folder with tokenizer_config.json or chat_template.jinja"});
    try {
      return options.conversations->render(std::get<std::vector<text::ChatMessage>>(read));
    } catch (const UserError& error) {
      throw UserError({file().path, str("line ", line_number, ", messages"), "a conversation that the chat template refuses", "one that it takes", error.what()});
    }
  }

  // The next document of the file at hand, not blank, or piece of one; false at its end.
  bool next_in_file(std::string& text) {
    while (true) {
      text.clear();
      is_conversation = false;
      const int64_t begin = offset - static_cast<int64_t>(carry.size());
      if (jsonl) {
        std::string line;
        if (!append_line(line, static_cast<size_t>(options.max_line_bytes) + 1)) return false;
        if (static_cast<int64_t>(line.size()) > options.max_line_bytes)
          throw UserError({file().path, str("line ", line_number), str("more than ", options.max_line_bytes, " bytes"), str("at most ", options.max_line_bytes),
                           "split its text over several lines"});
        if (is_blank(line)) continue;
        check_utf8(line, begin);
        text = read_line(line);
      } else {
        if (!next_text(text)) return false;
        check_utf8(text, begin);
      }
      if (is_piece || !is_blank(text)) return true;
      ++counts.empty;
    }
  }

  bool next(std::string& text) {
    while (position.file < static_cast<int64_t>(sources.size())) {
      if (!source && !open_file()) continue;
      if (next_in_file(text)) {
        ++position.document;
        ++counts.documents;
        counts.bytes += static_cast<int64_t>(text.size());
        return true;
      }
      close_file();
    }
    text.clear();
    return false;
  }
};

DocumentStream::DocumentStream(std::vector<SourceFile> sources, DocumentOptions options) : state_(std::make_unique<State>()) {
  FATHOM_ASSERT(options.piece_bytes >= 16, options.piece_bytes);
  state_->sources = std::move(sources);
  state_->options = std::move(options);
  for (const SourceFile& s : state_->sources) state_->total_bytes += s.bytes;
}
DocumentStream::~DocumentStream() = default;
DocumentStream::DocumentStream(DocumentStream&&) noexcept = default;

bool DocumentStream::next(std::string& text) { return state_->next(text); }
bool DocumentStream::is_conversation() const { return state_->is_conversation; }

DocumentStream::Position DocumentStream::position() const { return state_->position; }

void DocumentStream::skip_to(Position target) {
  State& s = *state_;
  FATHOM_ASSERT(s.position == Position{} && !s.source, "skip_to comes before next()");
  FATHOM_ASSERT(target.file <= static_cast<int64_t>(s.sources.size()), target.file);
  for (; s.position.file < target.file; ++s.position.file) s.bytes_before += s.file().bytes;
  std::string text;
  while (s.position.document < target.document && s.position.file == target.file && s.next(text)) {
  }
  if (!(s.position == target))
    throw UserError({target.file < static_cast<int64_t>(s.sources.size()) ? s.sources[static_cast<size_t>(target.file)].path : "the sources", "",
                     "fewer documents than before", str("at least ", target.document), "the file has changed: start over"});
  s.counts = {};
}

const std::vector<SourceFile>& DocumentStream::sources() const { return state_->sources; }
const DocumentCounts& DocumentStream::counts() const { return state_->counts; }
int64_t DocumentStream::total_bytes() const { return state_->total_bytes; }
int64_t DocumentStream::bytes_read() const {
  return state_->bytes_before + (state_->source ? state_->source->bytes_on_disk() : 0);
}

}  // namespace fathom::data
