#include "load/chat_template.h"

#include <algorithm>
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

// What Qwen3's template says and its neighbours (Qwen2.5, SmolLM3, Qwen3's instruct-only and always-thinking
// releases) do not all say: thoughts hidden before the last question, and an empty think block when they are
// off.
constexpr std::string_view kQwen3Statements[] = {
    "{{'<|im_start|>system\n'+messages[0].content+'<|im_end|>\n'}}", "{%ifloop.index0>ns.last_query_index%}",
    "{%ifenable_thinkingisdefinedandenable_thinkingisfalse%}{{'<think>\n\n</think>\n\n'}}"};

bool IsQwen3(std::string_view canonical) {
  return std::ranges::all_of(kQwen3Statements, [&](std::string_view statement) {
    return canonical.find(statement) != std::string_view::npos;
  });
}

std::string_view TrimNewlines(std::string_view text) {
  const size_t first = text.find_first_not_of('\n');
  return first == std::string_view::npos ? std::string_view()
                                         : text.substr(first, text.find_last_not_of('\n') - first + 1);
}

std::string_view SkipNewlines(std::string_view text) {
  return text.substr(std::min(text.find_first_not_of('\n'), text.size()));
}

constexpr std::string_view kThink = "<think>", kThinkEnd = "</think>";

// A Qwen3 assistant's text as the template shows it: the answer, and where `show_thoughts` a think block
// before it, unless there are none and the turn is not the `last`.
std::string Qwen3Answer(std::string_view content, bool show_thoughts, bool last) {
  std::string_view thoughts, answer = content;
  if (const size_t end = content.find(kThinkEnd); end != std::string_view::npos) {
    thoughts = content.substr(0, end);
    if (const size_t begin = thoughts.rfind(kThink); begin != std::string_view::npos)
      thoughts.remove_prefix(begin + kThink.size());
    thoughts = TrimNewlines(thoughts);
    answer = SkipNewlines(content.substr(content.rfind(kThinkEnd) + kThinkEnd.size()));
  }
  if (!show_thoughts || (thoughts.empty() && !last)) return std::string(answer);
  return fmt::format("<think>\n{}\n</think>\n\n{}", thoughts, SkipNewlines(answer));
}

// Tool results stand in for user messages in Qwen3's history but ask nothing.
bool IsQuestion(const ChatMessage& m) {
  return m.role == "user" &&
         !(m.content.starts_with("<tool_response>") && m.content.ends_with("</tool_response>"));
}

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
  if (IsQwen3(text)) return ChatFormat::kQwen3;
  return MakeError(
      "the model's chat template (\"{}\") is none of those dspark renders (ChatML, SmolLM2, Qwen3); use --raw"
      " and write the turns into the prompt yourself",
      Printable(jinja_template, 60));
}

std::string RenderChat(ChatFormat format, const std::vector<ChatMessage>& messages,
                       bool add_generation_prompt, bool enable_thinking) {
  std::string text;
  const auto turn = [&](std::string_view role, std::string_view content) {
    text += fmt::format("<|im_start|>{}\n{}<|im_end|>\n", role, content);
  };
  if (format == ChatFormat::kSmolLm2 && !messages.empty() && messages[0].role != "system")
    turn("system", kSmolLm2System);
  const bool qwen3 = format == ChatFormat::kQwen3;
  const auto last_question = std::find_if(messages.rbegin(), messages.rend(), IsQuestion).base();
  for (auto m = messages.begin(); m != messages.end(); ++m) {
    // Where nobody asked, the template takes the last message for the question.
    const bool after = last_question != messages.begin() && m >= last_question;
    if (qwen3 && m->role == "assistant")
      turn(m->role, Qwen3Answer(m->content, after, m + 1 == messages.end()));
    else
      turn(m->role, m->content);
  }
  if (add_generation_prompt) text += "<|im_start|>assistant\n";
  if (add_generation_prompt && qwen3 && !enable_thinking) text += "<think>\n\n</think>\n\n";
  return text;
}

}  // namespace dspark
