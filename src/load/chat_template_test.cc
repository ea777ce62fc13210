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
  return *format == ChatFormat::kChatMl ? "chatml" : *format == ChatFormat::kSmolLm2 ? "smollm2" : "qwen3";
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

// What decides Qwen3's text, in the published templates' words; the tools are left out.
const std::string kQwen3 = R"({%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
{%- endif %}
{%- set ns = namespace(last_query_index=messages|length - 1) %}
{%- for message in messages %}
    {%- if loop.index0 > ns.last_query_index %}{{- 'thoughts' }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %})";

TEST(ChatTemplateTest, Qwen3IsKnownByWhatDecidesItsText) {
  EXPECT_EQ(Detect(kQwen3), "qwen3");
  for (const char* statement : {"ns.last_query_index %}", "is false", "'<|im_end|>"}) {
    std::string other = kQwen3;
    other.insert(other.find(statement), "not ");
    EXPECT_NE(Detect(other).find("--raw"), std::string::npos) << statement;
  }
}

std::string Qwen3(const std::vector<ChatMessage>& messages, bool prompt, bool thinking = true) {
  return RenderChat(ChatFormat::kQwen3, messages, prompt, thinking);
}

TEST(ChatTemplateTest, Qwen3Prompts) {
  const std::string expected =
      "<|im_start|>user\nU1<|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n<|im_start|>user\nU2<|im_end|>\n"
      "<|im_start|>assistant\n";
  EXPECT_EQ(Qwen3({{"user", "U1"}, {"assistant", "A1"}, {"user", "U2"}}, true), expected);
  EXPECT_EQ(Qwen3({{"user", "U1"}, {"assistant", "<think>\nhm\n</think>\n\nA1"}, {"user", "U2"}}, true),
            expected);
  EXPECT_EQ(Qwen3({{"user", "U1"}, {"assistant", "A1"}, {"user", "U2"}}, true, false),
            expected + "<think>\n\n</think>\n\n");
  EXPECT_EQ(Qwen3({{"system", "S"}, {"user", "U"}}, true),
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n");
}

// targets.md §6.2: only turns after the last question show a think block, and the very last one always.
TEST(ChatTemplateTest, Qwen3FinishedConversations) {
  EXPECT_EQ(
      Qwen3({{"user", "U1"}, {"assistant", "A1"}, {"user", "U2"}, {"assistant", "A2"}}, false),
      "<|im_start|>user\nU1<|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n<|im_start|>user\nU2<|im_end|>"
      "\n<|im_start|>assistant\n<think>\n\n</think>\n\nA2<|im_end|>\n");
  const std::string user = "<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n";
  EXPECT_EQ(Qwen3({{"user", "U"}, {"assistant", "<think>\n\nR\n</think>\n\n\nA"}}, false),
            user + "<think>\nR\n</think>\n\nA<|im_end|>\n");
  EXPECT_EQ(Qwen3({{"user", "U"}, {"assistant", "A"}, {"assistant", "B"}}, false),
            user + "A<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\nB<|im_end|>\n");
  EXPECT_EQ(Qwen3({{"assistant", "A"}}, false), "<|im_start|>assistant\nA<|im_end|>\n");
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
