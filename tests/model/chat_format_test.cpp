// Where a model says how it wants a conversation.
#include "model/chat_format.h"

#include <gtest/gtest.h>

#include "../formats/gguf_builder.h"
#include "core/error.h"
#include "core/file.h"
#include "core/json.h"

namespace fathom::model {
namespace {

constexpr const char* kTemplate = "{{ bos_token }}{% for m in messages %}{{ m.role }}:{{ m.content }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}>{% endif %}";
const std::vector<text::ChatMessage> kMessages = {{"user", "hi"}};

struct Folder {
  TemporaryFolder made;
  const std::string& path = made.path();
  void write(const char* name, const std::string& bytes) { atomic_write(join_path(path, name), bytes); }
  std::string rendered() { return folder_chat_format(path).value().render(kMessages); }
};

TEST(ChatFormat, IsFoundInAFolder) {
  Folder f;
  EXPECT_FALSE(folder_chat_format(f.path));
  f.write("tokenizer_config.json", "{}");
  EXPECT_FALSE(folder_chat_format(f.path));
  const auto settings = [&](Json chat_template, Json bos, Json eos) {
    f.write("tokenizer_config.json", Json{{"chat_template", std::move(chat_template)}, {"bos_token", std::move(bos)}, {"eos_token", std::move(eos)}}.dump());
  };
  settings(kTemplate, "<s>", {{"content", "</s>"}, {"special", true}});
  EXPECT_EQ(f.rendered(), "<s>user:hi</s>>");
  settings(kTemplate, nullptr, nullptr);  // undefined in the template, which prints nothing
  EXPECT_EQ(f.rendered(), "user:hi>");
  settings(Json::array({{{"name", "rag"}, {"template", "no"}}, {{"name", "default"}, {"template", "yes"}}}), "<s>", "</s>");
  EXPECT_EQ(f.rendered(), "yes");
  f.write("chat_template.jinja", "of its own {{ eos_token }}");
  EXPECT_EQ(f.rendered(), "of its own </s>");
}

TEST(ChatFormat, RendersWholeConversations) {
  EXPECT_FALSE(whole_conversations([] { return std::optional<ChatFormat>(); }));
  Folder f;
  f.write("chat_template.jinja", kTemplate);
  f.write("tokenizer_config.json", "{\"eos_token\": \"</s>\"}");
  const auto load = [&] { return folder_chat_format(f.path); };
  const auto format = whole_conversations(load);
  EXPECT_EQ(format.value().render(kMessages), "user:hi</s>");
  EXPECT_EQ(format.value().source, kTemplate);
  EXPECT_EQ(conversations_beside(f.path).value().render(kMessages), "user:hi</s>");
  EXPECT_EQ(conversations_beside(join_path(f.path, "tokenizer.json")).value().render(kMessages), "user:hi</s>");
  EXPECT_EQ(folder_chat_format(f.path).value().render_to_keep(kMessages, true), "user:hi</s>>");
  f.write("chat_template.jinja", "{{ strftime_now('%A %d %b %Y') }}");
  EXPECT_EQ(whole_conversations(load).value().render(kMessages), "Friday 26 Jul 2024") << "the same on every day";
  f.write("chat_template.jinja", "{% for %}");
  const auto broken = whole_conversations(load);
  ASSERT_TRUE(broken) << "text without conversations does without it";
  EXPECT_THROW(broken.value().render(kMessages), UserError);
}

TEST(ChatFormat, NamesWhatIsWrong) {
  Folder f;
  const auto refused = [&](const std::string& bytes, const std::string& field) {
    f.write("tokenizer_config.json", bytes);
    try {
      folder_chat_format(f.path);
      ADD_FAILURE() << bytes << " was accepted";
    } catch (const UserError& e) {
      EXPECT_NE(std::string(e.what()).find("tokenizer_config.json"), std::string::npos) << e.what();
      EXPECT_NE(std::string(e.what()).find(field), std::string::npos) << e.what();
    }
  };
  refused("[1]", "an object");
  refused("{\"chat_template\": 3}", "chat_template");
  refused("{\"chat_template\": []}", "default");
  refused("{\"chat_template\": [{\"name\": \"default\"}]}", "chat_template");
  refused("{\"chat_template\": \"{% for %}\"}", "chat_template");
  refused("{\"chat_template\": \"x\", \"bos_token\": 7}", "bos_token");
  refused("{\"chat_template\": \"x\", \"eos_token\": {\"text\": \"a\"}}", "eos_token");
}

TEST(ChatFormat, IsFoundInAGguf) {
  using formats::GgufBuilder;
  using formats::GgufType;
  TemporaryFolder folder;
  const std::string path = join_path(folder.path(), "model.gguf");
  const auto read = [&](bool has, uint32_t bos) {
    GgufBuilder b;
    b.string("general.architecture", "llama");
    b.strings("tokenizer.ggml.tokens", {"<unk>", "<s>", "</s>"});
    if (has) b.string("tokenizer.chat_template", kTemplate);
    b.number("tokenizer.ggml.bos_token_id", GgufType::u32, bos);
    b.number("tokenizer.ggml.eos_token_id", GgufType::u32, uint32_t{2});
    atomic_write(path, b.bytes());
    return gguf_chat_format(formats::GgufFile(path));
  };
  EXPECT_FALSE(read(false, 1));
  EXPECT_EQ(read(true, 1).value().render(kMessages), "<s>user:hi</s>>");
  EXPECT_THROW(read(true, 3), UserError);
}

}  // namespace
}  // namespace fathom::model
