// Normal forms from utf8proc's tables. utf8proc's own utf8proc_map sorts combining marks by exchanging neighbours,
// which takes minutes on a megabyte of them; here they are sorted in n log n, and text that cannot change is not touched.
#include <utf8proc.h>

#include <algorithm>
#include <vector>

#include "core/error.h"
#include "core/utf8.h"
#include "text/unicode.h"

namespace fathom::text {
namespace {

constexpr char32_t kCodePoints = 0x110000;

// NFC leaves alone every character that is a starter, does not decompose and never joins the one before it.
class NfcStarters {
 public:
  NfcStarters() : stable_(kCodePoints / 8) {
    for (char32_t c = 0; c < kCodePoints; ++c) {
      const auto* p = utf8proc_get_property(static_cast<utf8proc_int32_t>(c));
      // Hangul syllables decompose by rule, not by table; alone they stand, before a final they may join.
      if (p->combining_class == 0 && (p->decomp_seqindex == UINT16_MAX || p->decomp_type != 0)) set(c, true);
    }
    // What stands second in some composition may join the character before it.
    for (char32_t c = 0; c < kCodePoints; ++c) {
      const auto* p = utf8proc_get_property(static_cast<utf8proc_int32_t>(c));
      if (p->decomp_seqindex == UINT16_MAX || p->decomp_type != 0) continue;
      utf8proc_int32_t parts[64];
      int boundary = 0;
      const auto n = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), parts, 64, UTF8PROC_DECOMPOSE, &boundary);
      for (utf8proc_ssize_t i = 1; i < n && i < 64; ++i) set(static_cast<char32_t>(parts[i]), false);
    }
    for (char32_t c = 0x1161; c <= 0x1175; ++c) set(c, false);
    for (char32_t c = 0x11a8; c <= 0x11c2; ++c) set(c, false);
  }
  bool stable(char32_t c) const { return stable_[c >> 3] >> (c & 7) & 1; }

 private:
  void set(char32_t c, bool value) {
    if (value) stable_[c >> 3] |= static_cast<uint8_t>(1 << (c & 7));
    else stable_[c >> 3] &= static_cast<uint8_t>(~(1 << (c & 7)));
  }
  std::vector<uint8_t> stable_;
};

bool is_stable(char32_t c, NormalForm form) {
  if (c < 0x80) return true;
  if (form != NormalForm::nfc) return false;
  if (c < 0x300) return true;  // Latin-1 and the precomposed Latin letters
  static const NfcStarters starters;
  return starters.stable(c);
}

void normalize_segment(std::string_view segment, NormalForm form, std::vector<utf8proc_int32_t>& buffer, std::string& out) {
  const bool compatible = form == NormalForm::nfkc || form == NormalForm::nfkd;
  const bool compose = form == NormalForm::nfc || form == NormalForm::nfkc;
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | (compatible ? UTF8PROC_COMPAT : 0) |
                                                      (compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE));
  buffer.clear();
  while (!segment.empty()) {
    char32_t c = 0;
    const size_t length = utf8_decode(segment, c);
    FATHOM_ASSERT(length > 0, "normalize needs UTF-8");
    segment.remove_prefix(length);
    utf8proc_int32_t parts[64];  // the longest decomposition has 18
    int boundary = 0;
    const auto n = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), parts, 64, options, &boundary);
    FATHOM_ASSERT(n >= 0 && n <= 64, "utf8proc: ", utf8proc_errmsg(n));
    buffer.insert(buffer.end(), parts, parts + n);
  }
  const auto combining_class = [](utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; };
  for (size_t i = 0; i < buffer.size();) {
    if (combining_class(buffer[i]) == 0) {
      ++i;
      continue;
    }
    size_t end = i + 1;
    while (end < buffer.size() && combining_class(buffer[end]) != 0) ++end;
    std::stable_sort(buffer.begin() + static_cast<ptrdiff_t>(i), buffer.begin() + static_cast<ptrdiff_t>(end),
                     [&](auto a, auto b) { return combining_class(a) < combining_class(b); });
    i = end;
  }
  auto size = static_cast<utf8proc_ssize_t>(buffer.size());
  if (compose) size = utf8proc_normalize_utf32(buffer.data(), size, options);
  FATHOM_ASSERT(size >= 0, "utf8proc: ", utf8proc_errmsg(size));
  for (utf8proc_ssize_t i = 0; i < size; ++i) utf8_append(out, static_cast<char32_t>(buffer[static_cast<size_t>(i)]));
}

}  // namespace

std::string_view normalize(std::string_view text, NormalForm form, std::string& storage) {
  std::vector<utf8proc_int32_t> buffer;
  size_t done = 0;        // text before it is in `storage`, once anything is
  size_t last = 0;        // start of the last character seen: a stable one may still join an unstable one after it
  bool changed = false;
  size_t i = 0;
  const auto step = [&](size_t at, char32_t& c) { return utf8_decode(text.substr(at), c); };
  while (i < text.size()) {
    if (const size_t ascii = ascii_prefix(text.substr(i)); ascii > 0) {
      i += ascii;
      last = i - 1;
      continue;
    }
    char32_t c = 0;
    size_t length = step(i, c);
    FATHOM_ASSERT(length > 0, "normalize needs UTF-8");
    if (is_stable(c, form)) {
      last = i;
      i += length;
      continue;
    }
    size_t end = i + length;
    while (end < text.size()) {
      length = step(end, c);
      FATHOM_ASSERT(length > 0, "normalize needs UTF-8");
      if (is_stable(c, form)) break;
      end += length;
    }
    if (!changed) storage.clear(), changed = true;
    const size_t begin = i > done ? last : i;
    storage.append(text.substr(done, begin - done));
    normalize_segment(text.substr(begin, end - begin), form, buffer, storage);
    done = last = i = end;
  }
  if (!changed) return text;
  storage.append(text.substr(done));
  return storage;
}

}  // namespace fathom::text
