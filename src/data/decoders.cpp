#include "data/decoders.h"

#include <bzlib.h>
#include <zstd.h>

#include <algorithm>
#include <limits>

#include "core/error.h"
#include "core/limits.h"

namespace fathom::data {
namespace {

class Zstd final : public Decoder {
 public:
  Zstd() : stream_(ZSTD_createDStream()) {
    FATHOM_ASSERT(stream_, "out of memory");
    ZSTD_DCtx_setParameter(stream_, ZSTD_d_windowLogMax, limits::kZstdWindowLog);
  }
  ~Zstd() override { ZSTD_freeDStream(stream_); }

  bool step(Input& in, Output& out) override {
    ZSTD_inBuffer input{in.at, in.left, 0};
    ZSTD_outBuffer output{out.at, out.left, 0};
    const size_t hint = ZSTD_decompressStream(stream_, &output, &input);
    in = {in.at + input.pos, in.left - input.pos};
    out = {out.at + output.pos, out.left - output.pos};
    if (ZSTD_isError(hint)) throw Fault{ZSTD_getErrorName(hint)};
    return hint != 0;
  }

  const char* expected() const override { return "zstd data (window up to 128 MiB)"; }
  const char* name() const override { return "zstd"; }

 private:
  ZSTD_DStream* stream_;
};

class Bzip2 final : public Decoder {
 public:
  ~Bzip2() override {
    if (open_) BZ2_bzDecompressEnd(&stream_);
  }

  bool step(Input& in, Output& out) override {
    if (!open_) {
      if (in.left == 0) return true;  // an empty file is no stream
      stream_ = {};
      FATHOM_ASSERT(BZ2_bzDecompressInit(&stream_, 0, 0) == BZ_OK, "out of memory");
      open_ = true;
    }
    constexpr size_t kMost = std::numeric_limits<unsigned>::max();  // of its counters
    const unsigned given = static_cast<unsigned>(std::min(in.left, kMost)), room = static_cast<unsigned>(std::min(out.left, kMost));
    stream_.next_in = const_cast<char*>(in.at);  // it only reads
    stream_.avail_in = given;
    stream_.next_out = out.at;
    stream_.avail_out = room;
    const int status = BZ2_bzDecompress(&stream_);
    const size_t taken = given - stream_.avail_in, gave = room - stream_.avail_out;
    in = {in.at + taken, in.left - taken};
    out = {out.at + gave, out.left - gave};
    if (status == BZ_STREAM_END) {
      BZ2_bzDecompressEnd(&stream_);
      open_ = false;
    } else if (status != BZ_OK) {
      throw Fault{status == BZ_DATA_ERROR_MAGIC ? "no bzip2 header" : status == BZ_DATA_ERROR ? "damaged data (a checksum or a block)" : "a bzip2 fault"};
    }
    return open_;
  }

  const char* expected() const override { return "bzip2 data"; }
  const char* name() const override { return "bzip2"; }

 private:
  bz_stream stream_{};
  bool open_ = false;
};

}  // namespace

std::string_view unpacked_name(std::string_view path) {
  for (const std::string_view ending : kPackedEndings)
    if (path.ends_with(ending)) return path.substr(0, path.size() - ending.size());
  return path;
}

std::unique_ptr<Decoder> make_decoder(std::string_view path) {
  if (path.ends_with(".zst")) return std::make_unique<Zstd>();
  if (path.ends_with(".bz2")) return std::make_unique<Bzip2>();
  return nullptr;
}

}  // namespace fathom::data
