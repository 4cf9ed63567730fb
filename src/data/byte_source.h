// The bytes of a file in one pass, decompressed when its name ends in .zst or .bz2, in constant memory.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace fathom::data {

class ByteSource {
 public:
  explicit ByteSource(const std::string& path);
  ~ByteSource();
  ByteSource(const ByteSource&) = delete;
  ByteSource& operator=(const ByteSource&) = delete;

  size_t read(char* out, size_t capacity);  // fills as much as it can; 0 only at the end
  int64_t bytes_on_disk() const;            // read so far, compressed bytes of a packed file

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace fathom::data
