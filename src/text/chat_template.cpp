#include "text/chat_template.h"

#include "core/utf8.h"
#include "text/jinja_render.h"

namespace fathom::text {

struct ChatTemplate::Parsed {
  std::string where, source;
  jinja::Body body;
};

ChatTemplate::ChatTemplate(std::string_view source, std::string where) {
  auto parsed = std::make_shared<Parsed>();
  parsed->where = std::move(where);
  parsed->source = source;
  parsed->body = jinja::parse(jinja::tokenize(source, parsed->where), parsed->where);
  parsed_ = std::move(parsed);
}

const std::string& ChatTemplate::source() const { return parsed_->source; }

std::string ChatTemplate::render(std::span<const ChatMessage> messages, const ChatOptions& options) const {
  jinja::Context context{parsed_->where, options.now ? &*options.now : nullptr};
  const auto text = [](const std::string& s) { return jinja::text_value(is_utf8(s) ? s : utf8_repair(s)); };

  std::vector<jinja::Value> list;
  list.reserve(messages.size());
  for (const ChatMessage& m : messages) list.push_back(jinja::make_dict(context, {{"role", text(m.role)}, {"content", text(m.content)}}));

  jinja::Variables globals;
  globals.emplace_back("messages", jinja::make_list(context, std::move(list)));
  globals.emplace_back("add_generation_prompt", jinja::boolean(options.add_generation_prompt));
  // `transformers` passes both, as none when there are none.
  globals.emplace_back("tools", jinja::Value{jinja::None{}});
  globals.emplace_back("documents", jinja::Value{jinja::None{}});
  if (options.bos_token) globals.emplace_back("bos_token", text(*options.bos_token));
  if (options.eos_token) globals.emplace_back("eos_token", text(*options.eos_token));
  for (const auto& [name, v] : options.variables) {
    jinja::Value value;
    if (const auto* s = std::get_if<std::string>(&v)) value = text(*s);
    else if (const auto* n = std::get_if<int64_t>(&v)) value = jinja::integer(*n);
    else value = jinja::boolean(std::get<bool>(v));
    bool known = false;
    for (auto& [old, slot] : globals)
      if (old == name) slot = value, known = true;
    if (!known) globals.emplace_back(name, std::move(value));
  }
  return jinja::render(parsed_->body, std::move(globals), context);
}

}  // namespace fathom::text
