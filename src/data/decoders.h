// Decompression of one file in pieces: zstd and bzip2, told apart by the name's ending.
#pragma once
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace fathom::data {

// What is left to read of one piece of memory, and what is left to write of another.
struct Input {
  const char* at;
  size_t left;
};
struct Output {
  char* at;
  size_t left;
};

class Decoder {
 public:
  virtual ~Decoder() = default;

  // Takes what it can of `in` and gives what it can to `out`, moving both; `in` is empty at the end of the file alone, for what is still held back. False where a
  // frame is whole and no other has begun. A format's own name for a fault is thrown as Fault.
  struct Fault {
    std::string what;
  };
  virtual bool step(Input& in, Output& out) = 0;

  virtual const char* expected() const = 0;  // "zstd data (window up to 128 MiB)"
  virtual const char* name() const = 0;      // "zstd"
};

// The endings that read() unpacks: ".zst", ".bz2".
inline constexpr std::string_view kPackedEndings[] = {".zst", ".bz2"};

// `path` without such an ending.
std::string_view unpacked_name(std::string_view path);

// Null for a file that is not packed, by its name.
std::unique_ptr<Decoder> make_decoder(std::string_view path);

}  // namespace fathom::data
