#include "model/chat_format.h"

#include <ctime>
#include <filesystem>

#include "core/file.h"
#include "core/json.h"
#include "core/limits.h"

namespace fathom::model {
namespace {

constexpr const char *kSettings = "tokenizer_config.json", *kTemplate = "chat_template.jinja";

// "bos_token" is a text, an object with "content", or null.
std::optional<std::string> token_of(const Json& settings, const char* field, const std::string& where) {
  const auto it = settings.find(field);
  if (it == settings.end() || it->is_null()) return {};
  if (it->is_string()) return it->get<std::string>();
  if (it->is_object() && it->contains("content") && (*it)["content"].is_string()) return (*it)["content"].get<std::string>();
  throw UserError({where, field, it->type_name(), "a text, an object with a text \"content\", or null", ""});
}

std::optional<std::string> template_of(const Json& settings, const std::string& where) {
  const auto it = settings.find("chat_template");
  if (it == settings.end() || it->is_null()) return {};
  if (it->is_string()) return it->get<std::string>();
  const auto bad = [&] { return UserError({where, "chat_template", it->type_name(), "a text, or a list of {\"name\", \"template\"} with one named \"default\"", ""}); };
  if (!it->is_array()) throw bad();
  for (const Json& each : *it) {
    if (!each.is_object() || !each.contains("name") || !each["name"].is_string() || !each.contains("template") || !each["template"].is_string()) throw bad();
    if (each["name"] == "default") return each["template"].get<std::string>();
  }
  throw bad();
}

// tokenizer_config.json, empty where there is none.
Json settings_of(const std::string& path) {
  if (!exists(path)) return Json::object();
  Json settings = read_json(path);
  if (!settings.is_object()) throw UserError({path, "", settings.type_name(), "an object", ""});
  return settings;
}

}  // namespace

std::optional<bool> folder_adds_bos(const std::string& folder) {
  const std::string path = join_path(folder, kSettings);
  const Json settings = settings_of(path);
  const auto it = settings.find("add_bos_token");
  if (it == settings.end() || it->is_null()) return {};
  if (!it->is_boolean()) throw UserError({path, "add_bos_token", it->type_name(), "true or false", ""});
  return it->get<bool>();
}

std::string ChatFormat::render(std::span<const text::ChatMessage> messages) const {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  ::localtime_r(&now, &local);
  return chat_template.render(messages, {.bos_token = bos_token, .eos_token = eos_token, .variables = {}, .now = local});
}

std::string ChatFormat::render_to_keep(std::span<const text::ChatMessage> messages, bool answer_follows) const {
  std::tm day{};
  day.tm_mday = 26, day.tm_mon = 6, day.tm_year = 124, day.tm_wday = 5, day.tm_yday = 207;
  return chat_template.render(messages, {.add_generation_prompt = answer_follows, .bos_token = bos_token, .eos_token = eos_token, .variables = {}, .now = day});
}

std::optional<text::ConversationFormat> whole_conversations(const std::function<std::optional<ChatFormat>()>& load) {
  using Messages = std::span<const text::ChatMessage>;
  try {
    const std::optional<ChatFormat> format = load();
    if (!format) return {};
    return text::ConversationFormat{.render = [format](Messages messages) { return format->render_to_keep(messages, false); }, .source = format->chat_template.source()};
  } catch (const UserError& error) {
    return text::ConversationFormat{.render = [error](Messages) -> std::string { throw error; }, .source = ""};
  }
}

std::optional<text::ConversationFormat> conversations_beside(const std::string& tokenizer) {
  const std::filesystem::path path = tokenizer;
  return whole_conversations([&] { return folder_chat_format((std::filesystem::is_directory(path) ? path : path.parent_path()).string()); });
}

std::optional<ChatFormat> folder_chat_format(const std::string& folder) {
  const std::string settings_path = join_path(folder, kSettings), template_path = join_path(folder, kTemplate);
  const Json settings = settings_of(settings_path);
  std::optional<text::ChatTemplate> parsed;
  if (exists(template_path)) parsed.emplace(read_file(template_path, limits::kChatTemplateBytes), template_path);
  else if (const auto source = template_of(settings, settings_path)) parsed.emplace(*source, settings_path + ": chat_template");
  if (!parsed) return {};
  return ChatFormat{.chat_template = *parsed, .bos_token = token_of(settings, "bos_token", settings_path), .eos_token = token_of(settings, "eos_token", settings_path)};
}

void write_chat_format(const std::string& folder, const ChatFormat& format) {
  Json settings = {{"tokenizer_class", "PreTrainedTokenizerFast"}};  // what transformers calls a tokenizer.json without a class of its own
  for (const auto& [field, token] : {std::pair("bos_token", format.bos_token), std::pair("eos_token", format.eos_token)})
    if (token) settings[field] = *token;
  atomic_write(join_path(folder, kSettings), settings.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
  atomic_write(join_path(folder, kTemplate), format.chat_template.source());
}

std::optional<ChatFormat> gguf_chat_format(const formats::GgufFile& file) {
  const formats::GgufMetadata& m = file.metadata();
  if (!m.has("tokenizer.chat_template")) return {};
  const auto token = [&](const char* key) -> std::optional<std::string> {
    if (!m.has(key)) return {};
    const std::vector<std::string_view>& tokens = m.strings("tokenizer.ggml.tokens");
    return std::string(tokens[static_cast<size_t>(m.integer(key, 0, std::ssize(tokens) - 1))]);
  };
  return ChatFormat{.chat_template = text::ChatTemplate(m.string("tokenizer.chat_template"), file.where() + ": tokenizer.chat_template"),
                    .bos_token = token("tokenizer.ggml.bos_token_id"), .eos_token = token("tokenizer.ggml.eos_token_id")};
}

}  // namespace fathom::model
