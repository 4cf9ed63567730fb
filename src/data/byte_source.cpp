#include "data/byte_source.h"

#include <fcntl.h>
#include <unistd.h>
#include <zstd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "core/error.h"
#include "core/limits.h"

namespace fathom::data {

struct ByteSource::State {
  std::string path;
  int fd = -1;
  int64_t on_disk = 0;
  bool ended = false;
  // Only for .zst
  ZSTD_DStream* stream = nullptr;
  std::vector<char> compressed;
  ZSTD_inBuffer input{nullptr, 0, 0};
  bool inside_frame = true;  // an empty file is no frame either

  ~State() {
    if (stream) ZSTD_freeDStream(stream);
    if (fd >= 0) ::close(fd);
  }

  size_t read_file(char* out, size_t capacity) {
    const ssize_t n = ::read(fd, out, capacity);
    // Only a pipe or a terminal that has nothing to say yet is interrupted; waiting on would swallow a Ctrl-C.
    if (n < 0 && errno == EINTR) throw Interrupted(str("interrupted while waiting for ", path));
    if (n < 0) throw UserError({path, str("cannot read: ", std::strerror(errno)), "", "", ""});
    on_disk += n;
    return static_cast<size_t>(n);
  }

  size_t decompress(char* out, size_t capacity) {
    ZSTD_outBuffer output{out, capacity, 0};
    while (output.pos < capacity) {
      if (input.pos == input.size && !ended) {
        input = {compressed.data(), read_file(compressed.data(), compressed.size()), 0};
        ended = input.size == 0;
      }
      const size_t before = output.pos;
      if (ended && !inside_frame) break;
      const int64_t at = on_disk - static_cast<int64_t>(input.size - input.pos);
      const size_t hint = ZSTD_decompressStream(stream, &output, &input);
      if (ZSTD_isError(hint))
        throw UserError({path, str("compressed byte ", at), ZSTD_getErrorName(hint), "zstd data (window up to 128 MiB)",
                         "the file is damaged or not a .zst file"});
      inside_frame = hint != 0;
      if (ended && inside_frame && output.pos == before)
        throw UserError({path, str("compressed byte ", on_disk), "the end of the file", "the rest of a zstd frame",
                         "the file is cut off"});
    }
    return output.pos;
  }
};

ByteSource::ByteSource(const std::string& path) : state_(std::make_unique<State>()) {
  state_->path = path;
  state_->fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (state_->fd < 0 && errno == EINTR) throw Interrupted(str("interrupted while waiting for ", path));
  if (state_->fd < 0) throw UserError({path, str("cannot open: ", std::strerror(errno)), "", "", errno == ENOENT ? "check the path" : ""});
  if (!path.ends_with(".zst")) return;
  state_->stream = ZSTD_createDStream();
  FATHOM_ASSERT(state_->stream, "out of memory");
  ZSTD_DCtx_setParameter(state_->stream, ZSTD_d_windowLogMax, limits::kZstdWindowLog);
  state_->compressed.resize(ZSTD_DStreamInSize());
}

ByteSource::~ByteSource() = default;

size_t ByteSource::read(char* out, size_t capacity) {
  if (state_->stream) return state_->decompress(out, capacity);
  size_t done = 0;
  while (done < capacity && !state_->ended) {
    const size_t n = state_->read_file(out + done, capacity - done);
    state_->ended = n == 0;
    done += n;
  }
  return done;
}

int64_t ByteSource::bytes_on_disk() const { return state_->on_disk; }

}  // namespace fathom::data
