#include "load/chat_template.h"

#include <gtest/gtest.h>

namespace dspark {
namespace {

const std::string kChatMl =
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + "
    "'\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

std::string Detect(const std::string& jinja) {
  const auto format = DetectChatFormat(jinja);
  if (!format) return format.error().text;
  return *format == ChatFormat::kChatMl ? "chatml" : "smollm2";
}

TEST(ChatTemplateTest, LayoutDoesNotMatter) {
  EXPECT_EQ(Detect(kChatMl), "chatml");
  EXPECT_EQ(
      Detect(
          "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}" +
          kChatMl),
      "chatml");
  EXPECT_EQ(Detect(R"({%- for message in messages -%}
                        {{ "<|im_start|>" + message["role"] + "\n" + message["content"] + "<|im_end|>\n" }}
                      {%- endfor -%}
                      {%- if add_generation_prompt -%}
                        {{- "<|im_start|>assistant\n" -}}
                      {%- endif -%})"),
            "chatml");
  EXPECT_EQ(
      Detect("{% for message in messages %}\n  {% if loop.first and messages[0]['role'] != 'system' %}"
             "{{ '<|im_start|>system\\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
             "<|im_end|>\\n' }}{% endif %}\n" +
             kChatMl.substr(kChatMl.find("{{"))),
      "smollm2");
}

TEST(ChatTemplateTest, AnyOtherTemplateIsAnErrorThatNamesTheWayOut) {
  std::vector<std::string> cases = {"{{",  "'",     "\x1b[31m\n", "",      "-%}",
                                    "{%-", kChatMl, kChatMl,      kChatMl, kChatMl};
  std::string* const other = &cases[6];
  other[0].replace(other[0].find("im_end"), 6, "im_End");
  other[1].insert(other[1].find("{% endfor"), 1, ' ');  // printed: it follows a value, not a line break
  other[2].push_back('x');
  other[3].resize(kChatMl.size() / 2);
  for (const std::string& jinja : cases) {
    const std::string error = Detect(jinja);
    EXPECT_NE(error.find("--raw"), std::string::npos) << jinja << ": " << error;
    EXPECT_EQ(error.find_first_of("\n\x1b"), std::string::npos) << error;
  }
}

TEST(ChatTemplateTest, Renders) {
  const std::vector<ChatMessage> user = {{"user", " Hi\n"}};
  EXPECT_EQ(RenderChat(ChatFormat::kChatMl, user, true),
            "<|im_start|>user\n Hi\n<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(
      RenderChat(ChatFormat::kSmolLm2, user, false),
      "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
      "<|im_start|>user\n Hi\n<|im_end|>\n");
  EXPECT_EQ(RenderChat(ChatFormat::kSmolLm2, {{"system", "S"}}, false), "<|im_start|>system\nS<|im_end|>\n");
  EXPECT_EQ(RenderChat(ChatFormat::kSmolLm2, {}, true), "<|im_start|>assistant\n");
}

}  // namespace
}  // namespace dspark
