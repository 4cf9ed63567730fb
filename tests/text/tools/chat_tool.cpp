// chat_tool: a server on stdin and stdout for the Python oracle. Each line is a JSON request {"template", "messages",
// "add_generation_prompt", "bos_token", "eos_token", "variables", "now"}; each answer a line {"text": …} or {"error": …}.
#include <iostream>
#include <string>

#include "core/json.h"
#include "text/chat_template.h"

namespace {

using fathom::Json;

std::string render(const Json& request) {
  using namespace fathom::text;
  std::vector<ChatMessage> messages;
  for (const Json& m : request.at("messages")) messages.push_back({m.at("role"), m.at("content")});
  ChatOptions options;
  options.add_generation_prompt = request.at("add_generation_prompt");
  if (request.contains("bos_token")) options.bos_token = request.at("bos_token");
  if (request.contains("eos_token")) options.eos_token = request.at("eos_token");
  if (request.contains("variables"))
    for (const auto& [name, v] : request.at("variables").items()) {
      if (v.is_boolean()) options.variables.emplace_back(name, v.get<bool>());
      else if (v.is_number_integer()) options.variables.emplace_back(name, v.get<int64_t>());
      else options.variables.emplace_back(name, v.get<std::string>());
    }
  if (request.contains("now")) {
    const std::time_t seconds = request.at("now").get<int64_t>();
    std::tm tm{};
    gmtime_r(&seconds, &tm);
    options.now = tm;
  }
  return ChatTemplate(request.at("template").get_ref<const std::string&>(), "template").render(messages, options);
}

}  // namespace

int main() {
  std::string line;
  while (std::getline(std::cin, line)) {
    Json answer;
    try {
      answer["text"] = render(Json::parse(line));
    } catch (const fathom::UserError& e) {
      answer["error"] = e.what();
    }
    std::cout << answer.dump() << std::endl;
  }
}
