#include "text/post_processor.h"

#include "text/component.h"

namespace fathom::text {
namespace {

class Reader {
 public:
  Reader(const std::vector<bool>& known, PostProcessor& out) : known_(known), out_(out) {}

  void read(const Json& json, const std::string& where, const std::string& path, int depth) {
    const Component c(json, where, path, "post-processor");
    const std::string& type = c.type();
    if (type == "Sequence") {
      if (depth > 8) throw UserError({where, path, "Sequences nested deeper than 8", "fewer", ""});
      for (const auto& member : c.members("processors")) read(member.json(), where, member.place(), depth + 1);
    } else if (type == "ByteLevel") {  // works on offsets, which we do not have
      for (const char* key : {"add_prefix_space", "trim_offsets", "use_regex"}) c.ignore(key);
    } else if (type == "TemplateProcessing") {
      once(c);
      read_template(c);
    } else if (type == "BertProcessing" || type == "RobertaProcessing") {
      once(c);
      for (const char* key : {"add_prefix_space", "trim_offsets"}) c.ignore(key);
      out_.before.push_back(pair(c, "cls"));
      out_.after.push_back(pair(c, "sep"));
    } else {
      c.unknown("Sequence, TemplateProcessing, ByteLevel, BertProcessing, RobertaProcessing");
    }
    c.done();
  }

 private:
  void once(const Component& c) {
    if (seen_) throw UserError({c.where(), c.place(), "a second template", "one", ""});
    seen_ = true;
  }

  int32_t checked(const Fields& fields, const std::string& key, int64_t id) const {
    if (id >= static_cast<int64_t>(known_.size()) || !known_[static_cast<size_t>(id)])
      fields.wrong(key, str("the id ", id), "the id of a token");
    return static_cast<int32_t>(id);
  }

  // ["</s>", 2]
  int32_t pair(const Component& c, const std::string& key) const {
    const Json& v = c.raw(key);
    if (!v.is_array() || v.size() != 2 || !v[0].is_string() || !v[1].is_number_unsigned()) c.wrong(key, describe(v), "[\"token\", id]");
    const auto id = v[1].get<uint64_t>();
    return checked(c, key, id > static_cast<uint64_t>(limits::kVocabulary) ? limits::kVocabulary : static_cast<int64_t>(id));
  }

  void read_template(const Component& c) {
    c.ignore("pair");
    const Json& single = c.raw("single");
    if (!single.is_array() || static_cast<int64_t>(single.size()) > limits::kTemplateTokens)
      c.wrong("single", describe(single), str("an array of at most ", limits::kTemplateTokens, " pieces"));
    const bool has_tokens = c.has("special_tokens");
    bool text = false;
    for (size_t i = 0; i < single.size(); ++i) {
      const std::string place = str("single[", i, "]");
      const Fields piece(single[i], c.where(), c.path(place));
      if (piece.has("Sequence")) {
        const Fields sequence = piece.object("Sequence");
        if (sequence.string("id") != "A") sequence.wrong("id", "\"" + printable(sequence.string("id")) + "\"", "\"A\", the one text");
        sequence.ignore("type_id");
        sequence.done();
        if (text) throw UserError({c.where(), c.path(place), "the text twice", "once", ""});
        text = true;
      } else {
        const Fields token = piece.object("SpecialToken");
        token.ignore("type_id");
        const std::string name = token.string("id");
        token.done();
        if (!has_tokens) c.missing("special_tokens", "the ids of \"" + printable(name) + "\"");
        const Fields all = c.object("special_tokens");
        const Fields entry = all.object(name);
        const auto ids = entry.integers("ids", 0, limits::kVocabulary);
        for (const int64_t id : ids) (text ? out_.after : out_.before).push_back(checked(entry, "ids", id));
      }
      piece.done();
    }
    if (has_tokens) {
      const Fields all = c.object("special_tokens");
      read_end(all, "bos_token", out_.bos);
      read_end(all, "eos_token", out_.eos);
    }
    if (!text) c.wrong("single", "no place for the text", "one {\"Sequence\": {\"id\": \"A\"}}");
    if (static_cast<int64_t>(out_.before.size() + out_.after.size()) > limits::kTemplateTokens)
      c.wrong("single", str(out_.before.size() + out_.after.size(), " tokens"), str("at most ", limits::kTemplateTokens));
  }

  void read_end(const Fields& all, const char* role, PostProcessor::End& end) const {
    if (!all.has(role)) return;
    const Fields entry = all.object(role);
    const auto ids = entry.integers("ids", 0, limits::kVocabulary);
    if (ids.size() > 1) return;  // a token of that name in a template of its own kind
    end.said = true;
    if (!ids.empty()) end.id = checked(entry, "ids", ids[0]);
  }

  const std::vector<bool>& known_;
  PostProcessor& out_;
  bool seen_ = false;
};

}  // namespace

PostProcessor read_post_processor(const Json& json, const std::string& where, const std::string& path, const std::vector<bool>& known_ids) {
  PostProcessor out;
  if (!json.is_null()) Reader(known_ids, out).read(json, where, path, 0);
  return out;
}

}  // namespace fathom::text
