#include "data/jsonl.h"

#include "core/json.h"

namespace fathom::data {
namespace {

constexpr const char* kMessages = "messages";

class FieldReader final : public nlohmann::json_sax<Json> {
 public:
  std::string text;
  bool found = false, conversation = false;
  std::string other_keys;

  FieldReader(const std::string& field, const std::string& path, int64_t line) : field_(field), path_(path), line_(line) {}

  bool null() override { return value("null"); }
  bool boolean(bool b) override { return value(b ? "true" : "false"); }
  bool number_integer(number_integer_t n) override { return value(str("the number ", n)); }
  bool number_unsigned(number_unsigned_t n) override { return value(str("the number ", n)); }
  bool number_float(number_float_t, const string_t& s) override { return value("the number " + printable(s)); }
  bool binary(binary_t&) override { return value("binary data"); }
  bool string(string_t& s) override {
    if (!wanted_) return value("the string \"" + printable(s) + "\"");
    text = std::move(s);
    found = true;
    wanted_ = false;
    return true;
  }
  bool start_object(std::size_t) override { return depth_ == 0 ? enter() : (value("an object"), enter()); }
  bool start_array(std::size_t) override { return value("an array"), enter(); }
  bool end_object() override { return --depth_, true; }
  bool end_array() override { return --depth_, true; }
  bool key(string_t& k) override {
    if (depth_ != 1) return true;
    wanted_ = k == field_;
    conversation = conversation || k == kMessages;
    if (wanted_ && found) fail(field_, "the key twice", "once");
    if (!wanted_ && other_keys.size() < 120) other_keys += (other_keys.empty() ? "" : ", ") + printable(k);
    return true;
  }
  bool parse_error(std::size_t byte, const std::string&, const nlohmann::detail::exception& e) override {
    const std::string what = e.what();
    const size_t colon = what.find("syntax error");
    throw UserError({path_, str("line ", line_, ", byte ", byte), printable(colon == std::string::npos ? what : what.substr(colon), 160),
                     "one JSON object", ""});
  }
  [[noreturn]] void fail(const std::string& field, const std::string& what, const std::string& expected, const std::string& hint = "") {
    throw UserError({path_, str("line ", line_, field.empty() ? "" : ", " + printable(field)), what, expected, hint});
  }

 private:
  bool value(const std::string& what) {
    if (depth_ == 0) fail("", what, "a JSON object");
    if (wanted_) fail(field_, what, "a string");
    return true;
  }
  bool enter() {
    if (++depth_ > limits::kJsonDepth) fail("", str("nesting deeper than ", limits::kJsonDepth), str("at most ", limits::kJsonDepth, " levels"));
    return true;
  }
  const std::string& field_;
  const std::string& path_;
  int64_t line_;
  int depth_ = 0;
  bool wanted_ = false;  // the next value is the field's
};

std::vector<text::ChatMessage> messages_of(std::string_view line, const std::string& path, int64_t line_number) {
  const std::string place = str("line ", line_number, ", ", kMessages);
  const Json whole = parse_json(line, str(path, ": line ", line_number), {.max_bytes = std::ssize(line)});
  const Json& list = whole.at(kMessages);
  if (!list.is_array() || list.empty()) throw UserError({path, place, list.is_array() ? "an empty array" : describe(list), "an array of messages, each with \"role\" and \"content\"", ""});
  std::vector<text::ChatMessage> out;
  for (size_t i = 0; i < list.size(); ++i) {
    const Fields message(list[i], path, str(place, "[", i, "]"));
    out.push_back({message.string("role"), message.string("content")});
  }
  return out;
}

}  // namespace

Line jsonl_line(std::string_view line, const std::string& field, const std::string& path, int64_t line_number) {
  FieldReader reader(field, path, line_number);
  Json::sax_parse(line.begin(), line.end(), &reader);
  if (!reader.found && reader.conversation) return messages_of(line, path, line_number);
  if (!reader.found)
    reader.fail(field, "no such key", "the document's text",
                reader.other_keys.empty() ? "" : "name the field with --field; here are: " + reader.other_keys);
  return std::move(reader.text);
}

}  // namespace fathom::data
