#include "data/byte_source.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "core/error.h"
#include "data/decoders.h"

namespace fathom::data {
namespace {
constexpr size_t kCompressedChunk = 1 << 17;
}

struct ByteSource::State {
  std::string path;
  int fd = -1;
  int64_t on_disk = 0;
  bool ended = false;
  // Only for a packed file
  std::unique_ptr<Decoder> decoder;
  std::vector<char> compressed;
  Input input{nullptr, 0};
  bool inside_frame = true;  // an empty file is no frame either

  ~State() {
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
    Output output{out, capacity};
    while (output.left > 0) {
      if (input.left == 0 && !ended) {
        input = {compressed.data(), read_file(compressed.data(), compressed.size())};
        ended = input.left == 0;
      }
      const size_t before = output.left;
      if (ended && !inside_frame) break;
      const int64_t at = on_disk - static_cast<int64_t>(input.left);
      try {
        inside_frame = decoder->step(input, output);
      } catch (const Decoder::Fault& fault) {
        throw UserError({path, str("compressed byte ", at), fault.what, decoder->expected(), str("the file is damaged, or no ", decoder->name(), " file")});
      }
      if (ended && inside_frame && output.left == before)
        throw UserError({path, str("compressed byte ", on_disk), "the end of the file", str("the rest of a ", decoder->name(), " frame"), "the file is cut off"});
    }
    return capacity - output.left;
  }
};

ByteSource::ByteSource(const std::string& path) : state_(std::make_unique<State>()) {
  state_->path = path;
  state_->fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (state_->fd < 0 && errno == EINTR) throw Interrupted(str("interrupted while waiting for ", path));
  if (state_->fd < 0) throw UserError({path, str("cannot open: ", std::strerror(errno)), "", "", errno == ENOENT ? "check the path" : ""});
  state_->decoder = make_decoder(path);
  if (state_->decoder) state_->compressed.resize(kCompressedChunk);
}

ByteSource::~ByteSource() = default;

size_t ByteSource::read(char* out, size_t capacity) {
  if (state_->decoder) return state_->decompress(out, capacity);
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
