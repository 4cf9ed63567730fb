// Documents out of files and folders, one by one, in an order that depends on names only. A file is UTF-8 text (the
// whole file is one document, unless lines `<|endoftext|>` separate several), or .jsonl (one object a line, its text in
// one field, or a conversation at "messages"), or either as .zst or .bz2. A document of a text file that is longer than a piece comes as several, cut at ends of
// lines, so that a file of any size takes the memory of one piece. Folders are walked in sorted order; hidden names are
// passed over, binary files are passed over and counted, links to folders are followed once.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/limits.h"
#include "text/chat_template.h"

namespace fathom::data {

enum class InvalidUtf8 {
  error,   // UserError with file and byte offset
  repair,  // each maximal ill-formed part becomes U+FFFD, and is counted
};

struct DocumentOptions {
  std::string field = "text";                    // of a .jsonl line
  std::optional<text::ConversationFormat> conversations = {};  // without it a line that holds one is refused
  std::string separator = "<|endoftext|>";       // a line of its own between documents of a text file; "" = none
  InvalidUtf8 invalid_utf8 = InvalidUtf8::error;
  int64_t piece_bytes = 4 << 20;                 // a piece of text ends with the line that reaches this; at twice this inside a line
  int64_t max_line_bytes = limits::kLineBytes;   // of a .jsonl; UserError beyond
};

struct SourceFile {
  std::string path;       // to open it
  std::string name;       // the file's own, or its path in the folder that the user gave
  int64_t bytes = 0;      // on disk
  int64_t modified = 0;   // nanoseconds since the epoch
  bool given = false;     // named by the user: never passed over as binary
  bool regular = true;    // a file; else a pipe or a terminal, which can be read once
};

// The files that `inputs` (files and folders, in this order) stand for. UserError for a missing path, for a folder
// without files and for more than limits::kSourceFiles.
std::vector<SourceFile> find_sources(const std::vector<std::string>& inputs);

// UserError for a source that can be read only once, where `why` (a clause) asks for more; `hint` says what to do.
void require_files(const std::vector<SourceFile>& sources, const std::string& why, const std::string& hint);

struct DocumentCounts {
  int64_t documents = 0;     // handed out; the pieces of a long one count each
  int64_t bytes = 0;         // their UTF-8 bytes
  int64_t empty = 0;         // passed over: nothing but white space
  int64_t repaired = 0;      // ill-formed parts replaced
  int64_t binary_files = 0;  // passed over
  std::string first_binary;  // the first of them
};

class DocumentStream {
 public:
  DocumentStream(std::vector<SourceFile> sources, DocumentOptions options = {});
  explicit DocumentStream(const std::vector<std::string>& inputs, DocumentOptions options = {})
      : DocumentStream(find_sources(inputs), std::move(options)) {}
  ~DocumentStream();
  DocumentStream(DocumentStream&&) noexcept;

  bool next(std::string& text);  // false at the end
  // Whether that was a conversation: its special tokens are such, and it is whole, with no begin or end token to be put around it.
  bool is_conversation() const;

  // Where the stream stands: files finished or passed over, and documents handed out of the file at hand. Skipping to
  // a position that an equal stream reported makes it go on from there (whole files are not read again).
  struct Position {
    int64_t file = 0;
    int64_t document = 0;
    bool operator==(const Position&) const = default;
  };
  Position position() const;
  void skip_to(Position position);  // before the first next(); counts only what comes after

  const std::vector<SourceFile>& sources() const;
  const DocumentCounts& counts() const;
  int64_t total_bytes() const;  // of all files, on disk
  int64_t bytes_read() const;   // of them, so far (compressed bytes of a packed file): for progress bars

 private:
  struct State;
  std::unique_ptr<State> state_;
};

enum class Split { train, validation };

// The split of a document by a hash of its content: the same document goes the same way whatever stands around it, so
// a copy never sits on both sides. `share` of documents goes to validation.
Split split_by_hash(std::string_view text, double share);

// For a single long document: where its validation tail of about `share` of its bytes begins (at the start of a line,
// else of a character). text.size() when nothing is left for the tail.
size_t split_tail(std::string_view text, double share);

}  // namespace fathom::data
