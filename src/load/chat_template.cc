#include "load/chat_template.h"

#include <string_view>

#include "load/printable.h"

namespace dspark {
namespace {

constexpr std::string_view kSmolLm2System =
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face";

bool IsSpace(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

void TrimRight(std::string* text) {
  while (!text->empty() && IsSpace(text->back())) text->pop_back();
}

// Blanks between the start of a line of the source and a block tag are not printed (lstrip_blocks).
void TrimIndentation(std::string_view source_before, std::string* text) {
  const size_t line_start = source_before.find_last_not_of(" \t") + 1;
  if (line_start > 0 && source_before[line_start - 1] != '\n') return;
  while (!text->empty() && (text->back() == ' ' || text->back() == '\t')) text->pop_back();
}

// One spelling for templates that differ only in layout: no blanks between the words of a tag, single quotes,
// line breaks in strings as such, adjacent strings joined, and the blanks around tags that transformers does
// not print (trim_blocks, lstrip_blocks, "-") gone.
std::string Canonical(std::string_view jinja) {
  std::string result;
  char quote = 0;
  bool in_tag = false;
  for (size_t i = 0; i < jinja.size(); ++i) {
    const char c = jinja[i];
    const std::string_view two = jinja.substr(i, 2);
    if (quote) {
      if (c == quote) quote = 0;
      if (two == "\\n") ++i;
      result += !quote ? '\'' : two == "\\n" ? '\n' : c;
    } else if (!in_tag && (two == "{%" || two == "{{")) {
      in_tag = true;
      const bool trims = i + 2 < jinja.size() && jinja[i + 2] == '-';
      if (trims)
        TrimRight(&result);
      else if (two == "{%")
        TrimIndentation(jinja.substr(0, i), &result);
      result += two;
      i += trims ? 2 : 1;
    } else if (in_tag && (two == "%}" || two == "}}")) {
      in_tag = false;
      const bool trims = result.back() == '-';
      if (trims) result.pop_back();
      result += two;
      ++i;
      while (trims && i + 1 < jinja.size() && IsSpace(jinja[i + 1])) ++i;
      if (two == "%}" && i + 1 < jinja.size() && jinja[i + 1] == '\n') ++i;
    } else if (in_tag && (c == '\'' || c == '"')) {
      quote = c;
      if (result.ends_with("'+"))
        result.resize(result.size() - 2);
      else
        result += '\'';
    } else if (!in_tag || !IsSpace(c)) {
      result += c;
    }
  }
  return result;
}

constexpr std::string_view kNoPromptByDefault =
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}";
constexpr std::string_view kLoop = "{% for message in messages %}";
constexpr std::string_view kIfNoSystem = "{% if loop.first and messages[0]['role'] != 'system' %}";
constexpr std::string_view kTurns =
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

}  // namespace

Result<ChatFormat> DetectChatFormat(const std::string& jinja_template) {
  if (jinja_template.empty())
    return MakeError("the model has no chat template; use --raw to give it the prompt as it is");
  std::string text = Canonical(jinja_template);
  if (const std::string prefix = Canonical(kNoPromptByDefault); text.starts_with(prefix))
    text.erase(0, prefix.size());
  if (text == Canonical(fmt::format("{}{}", kLoop, kTurns))) return ChatFormat::kChatMl;
  const std::string default_system = fmt::format(
      "{}{{{{ '<|im_start|>system\n{}<|im_end|>\n' }}}}{{% endif %}}", kIfNoSystem, kSmolLm2System);
  if (text == Canonical(fmt::format("{}{}{}", kLoop, default_system, kTurns))) return ChatFormat::kSmolLm2;
  return MakeError(
      "the model's chat template (\"{}\") is none of those dspark renders (ChatML, SmolLM2); use --raw"
      " and write the turns into the prompt yourself",
      Printable(jinja_template, 60));
}

std::string RenderChat(ChatFormat format, const std::vector<ChatMessage>& messages,
                       bool add_generation_prompt) {
  std::string text;
  const auto turn = [&](std::string_view role, std::string_view content) {
    text += fmt::format("<|im_start|>{}\n{}<|im_end|>\n", role, content);
  };
  if (format == ChatFormat::kSmolLm2 && !messages.empty() && messages[0].role != "system")
    turn("system", kSmolLm2System);
  for (const ChatMessage& m : messages) turn(m.role, m.content);
  if (add_generation_prompt) text += "<|im_start|>assistant\n";
  return text;
}

}  // namespace dspark
