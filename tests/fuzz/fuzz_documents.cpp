// A document source: the first byte chooses its kind, the rest is the file. Documents are UTF-8 and not blank, but
// for pieces of a long one; a stream that skips to a position goes on as the first one did; compressed text gives what the text gives.
#include <zstd.h>

#include <cstdlib>
#include <filesystem>

#include "core/error.h"
#include "core/file.h"
#include "core/utf8.h"
#include "data/documents.h"
#include "fuzz/memory_file.h"

using namespace fathom;
using namespace fathom::data;

namespace {

// Names with the right endings, linked to one memory file each.
struct Names {
  MemoryFile plain, packed;
  TemporaryFolder folder;
  std::string link(const std::string& name, const MemoryFile& to) const {
    std::filesystem::create_symlink(to.path(), join_path(folder.path(), name));
    return join_path(folder.path(), name);
  }
  std::string text = link("a.txt", plain), jsonl = link("a.jsonl", plain), raw = link("raw.txt.zst", plain);
  std::string text_zst = link("p.txt.zst", packed), jsonl_zst = link("p.jsonl.zst", packed);
};

struct Outcome {
  std::vector<std::string> documents;
  bool refused = false;
};

Outcome read(const std::string& path, const DocumentOptions& options, size_t skip = 0) {
  Outcome out;
  try {
    DocumentStream first({path}, options), stream({path}, options);
    std::string text;
    for (size_t i = 0; i < skip; ++i) first.next(text);
    stream.skip_to(first.position());
    const auto piece = static_cast<size_t>(options.piece_bytes);
    size_t before = skip > 0 ? text.size() : 0;
    while (stream.next(text)) {
      const bool blank = text.find_first_not_of(" \t\n\v\f\r") == std::string::npos;
      if (!is_utf8(text) || (blank && text.size() < piece && before < piece)) std::abort();
      before = text.size();
      out.documents.push_back(text);
    }
  } catch (const UserError&) {
    out.refused = true;
  }
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  static Names names;
  const std::string bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const DocumentOptions options{.invalid_utf8 = data[0] & 4 ? InvalidUtf8::repair : InvalidUtf8::error, .piece_bytes = data[0] & 8 ? 16 : 1 << 17, .max_line_bytes = 1 << 18};
  names.plain.set(bytes);
  if ((data[0] & 3) == 2) {
    read(names.raw, options);
    return 0;
  }
  const bool jsonl = data[0] & 1;
  const Outcome whole = read(jsonl ? names.jsonl : names.text, options);
  std::string packed(ZSTD_compressBound(bytes.size()), '\0');
  packed.resize(ZSTD_compress(packed.data(), packed.size(), bytes.data(), bytes.size(), 1));
  names.packed.set(packed);
  const Outcome unpacked = read(jsonl ? names.jsonl_zst : names.text_zst, options);
  // A plain file that begins like a packed one is refused by that name; the unpacked text need not be.
  if (!whole.refused && (unpacked.refused || unpacked.documents != whole.documents)) std::abort();
  if (!whole.refused && !whole.documents.empty()) {
    const size_t skip = data[0] / 8 % whole.documents.size();
    const Outcome rest = read(jsonl ? names.jsonl : names.text, options, skip);
    if (rest.refused || !std::equal(rest.documents.begin(), rest.documents.end(), whole.documents.begin() + static_cast<long>(skip), whole.documents.end())) std::abort();
  }
  return 0;
}
