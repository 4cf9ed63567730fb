#include "formats/safetensors_header.h"

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "core/json.h"
#include "core/limits.h"
#include "core/utf8.h"

namespace fathom::formats {
namespace {

// Builds the tensors straight from the parser's events: a hostile header of 100 MB must not become a tree of gigabytes.
class HeaderReader final : public nlohmann::json_sax<Json> {
 public:
  SafetensorsHeader out;

  explicit HeaderReader(const std::string& where) : where_(where) {}

  bool null() override { wrong_value("null"); }
  bool boolean(bool b) override { wrong_value(b ? "true" : "false"); }
  bool number_integer(number_integer_t n) override { wrong_value(str("the number ", n)); }
  bool number_float(number_float_t, const string_t& s) override { wrong_value("the number " + printable(s)); }
  bool binary(binary_t&) override { wrong_value("binary data"); }

  bool number_unsigned(number_unsigned_t n) override {
    if (state_ == State::shape) {
      if (current().view.shape.size() == limits::kTensorRank)
        fail("shape", str("more than ", limits::kTensorRank, " dimensions"), str("at most ", limits::kTensorRank));
      if (n > static_cast<uint64_t>(INT64_MAX)) fail("shape", str("the dimension ", n), str("at most ", INT64_MAX));
      current().view.shape.push_back(static_cast<int64_t>(n));
    } else if (state_ == State::offsets) {
      if (offsets_ == 2) fail("data_offsets", "more than two numbers", "[begin, end]");
      (offsets_++ == 0 ? current().begin : current().end) = n;
    } else {
      wrong_value(str("the number ", n));
    }
    return true;
  }

  bool string(string_t& s) override {
    if (state_ == State::metadata && !key_.empty()) {
      metadata_bytes_ += s.size();
      if (metadata_bytes_ > static_cast<size_t>(limits::kTensorMetadataBytes))
        fail("__metadata__", "more text", str("at most ", limits::kTensorMetadataBytes, " bytes in all"));
      out.metadata[std::exchange(key_, "")] = std::move(s);
      return true;
    }
    if (state_ != State::tensor || key_ != "dtype") wrong_value("the string \"" + printable(s) + "\"");
    const auto dtype = dtype_from_name(s);
    if (!dtype) fail("dtype", "\"" + printable(s) + "\"", "one of " + dtype_names());
    current().view.dtype = *dtype;
    key_.clear();
    return true;
  }

  bool start_object(std::size_t) override {
    if (state_ == State::outside) {
      state_ = State::top;
    } else if (state_ == State::top && key_ == "__metadata__") {
      state_ = State::metadata;
      key_.clear();
    } else if (state_ == State::top && !key_.empty()) {
      if (static_cast<int64_t>(out.tensors.size()) == limits::kTensorCount)
        throw UserError({where_, "header", str("more than ", limits::kTensorCount, " tensors"), "fewer", ""});
      out.tensors.emplace_back();
      current().view.name = std::move(key_);
      state_ = State::tensor;
      key_.clear();
      seen_ = offsets_ = 0;
    } else {
      wrong_value("an object");
    }
    return true;
  }

  bool key(string_t& k) override {
    key_ = k;
    if (state_ == State::top) {
      if (k == "__metadata__") {
        if (std::exchange(metadata_seen_, true)) throw UserError({where_, "__metadata__", "the key twice", "once", ""});
        return true;
      }
      if (k.empty()) throw UserError({where_, "header", "a tensor without a name", "a name", ""});
      if (static_cast<int64_t>(k.size()) > limits::kTensorNameBytes)
        throw UserError({where_, printable(k), str("a tensor name of ", k.size(), " bytes"),
                         str("at most ", limits::kTensorNameBytes), ""});
      if (has_control_character(k)) throw UserError({where_, printable(k), "a control character in a tensor name", "none", ""});
    } else if (state_ == State::metadata) {
      metadata_bytes_ += k.size();
      if (k.empty()) fail("__metadata__", "an empty key", "a name");
      if (out.metadata.count(k)) fail("__metadata__." + printable(k), "the key twice", "once");
      if (static_cast<int64_t>(out.metadata.size()) == limits::kTensorMetadataEntries)
        fail("__metadata__", "more entries", str("at most ", limits::kTensorMetadataEntries));
    } else {
      const unsigned bit = k == "dtype" ? 1 : k == "shape" ? 2 : k == "data_offsets" ? 4 : 0;
      if (!bit) fail(printable(k), "an unknown key", "dtype, shape and data_offsets");
      if (seen_ & bit) fail(k, "the key twice", "once");
      seen_ |= bit;
    }
    return true;
  }

  bool end_object() override {
    if (state_ == State::tensor) {
      for (const auto& [bit, name] : {std::pair<unsigned, const char*>{1, "dtype"}, {2, "shape"}, {4, "data_offsets"}})
        if (!(seen_ & bit)) fail(name, "no such key", "dtype, shape and data_offsets");
    }
    state_ = state_ == State::top ? State::outside : State::top;
    return true;
  }

  bool start_array(std::size_t) override {
    if (state_ != State::tensor || key_ == "dtype" || key_.empty()) wrong_value("an array");
    state_ = key_ == "shape" ? State::shape : State::offsets;
    key_.clear();
    return true;
  }

  bool end_array() override {
    if (state_ == State::offsets && offsets_ != 2) fail("data_offsets", str(offsets_, " numbers"), "[begin, end]");
    state_ = State::tensor;
    return true;
  }

  bool parse_error(std::size_t byte, const std::string&, const nlohmann::detail::exception& e) override {
    throw UserError({where_, str("header byte ", byte), printable(e.what(), 200), "valid JSON", "the file is damaged"});
  }

 private:
  enum class State { outside, top, metadata, tensor, shape, offsets };

  SafetensorsHeader::Tensor& current() { return out.tensors.back(); }

  [[noreturn]] void fail(const std::string& field, const std::string& found, const std::string& expected) {
    const bool in_tensor = state_ == State::tensor || state_ == State::shape || state_ == State::offsets;
    throw UserError({where_, in_tensor ? printable(current().view.name) + "." + field : field, found, expected, ""});
  }

  [[noreturn]] void wrong_value(const std::string& found) {
    switch (state_) {
      case State::outside: throw UserError({where_, "header", found, "a JSON object", ""});
      case State::top: throw UserError({where_, printable(key_), found, "an object with dtype, shape and data_offsets", ""});
      case State::metadata: fail("__metadata__." + printable(key_), found, "a string");
      case State::shape: fail("shape", found, "whole numbers from 0");
      case State::offsets: fail("data_offsets", found, "whole numbers from 0");
      default: fail(printable(key_), found, key_ == "dtype" ? "a string" : "an array of whole numbers");
    }
  }

  const std::string& where_;
  State state_ = State::outside;
  std::string key_;
  unsigned seen_ = 0;     // keys of the tensor at hand, as bits
  int offsets_ = 0;
  bool metadata_seen_ = false;
  size_t metadata_bytes_ = 0;
};

}  // namespace

SafetensorsHeader read_safetensors_header(std::string_view json, const std::string& where) {
  HeaderReader reader(where);
  Json::sax_parse(json.begin(), json.end(), &reader);
  return std::move(reader.out);
}

}  // namespace fathom::formats
