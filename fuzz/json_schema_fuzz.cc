// Any bytes as a schema: it compiles or is refused, soon, and texts of it are JSON. The same bytes as a
// pattern and as a reply with tool calls.
#include <cstdint>
#include <cstdlib>

#include "core/check.h"
#include "grammar/json_schema.h"
#include "grammar/matcher.h"
#include "grammar/pattern.h"
#include "grammar/tool_text.h"

namespace dspark {
namespace {

// Follows a grammar by the input's own bytes: the first that is allowed from each on.
void Walk(std::shared_ptr<const ByteGrammar> grammar, std::string_view choices, bool json) {
  constexpr size_t kMaxText = 300;
  Matcher matcher(std::move(grammar));
  Matcher::State state = matcher.start();
  std::string text;
  for (size_t i = 0; !matcher.Complete(state) && text.size() < kMaxText; ++i) {
    auto byte = uint8_t(choices[i % choices.size()]);
    int tried = 0;
    for (; matcher.Step(state, byte) == Matcher::kDead; ++byte) DSPARK_CHECK(++tried < 256);
    text += char(byte);
    state = matcher.Step(state, byte);
    DSPARK_CHECK(!json || !matcher.Whole(state) || nlohmann::json::accept(text));
  }
}

void Parse(std::string_view reply) {
  ToolCallParser whole, parts;
  const ToolCallParser::Piece at_once = whole.Add(reply);
  size_t calls = 0;
  std::string content;
  for (const char c : reply) {
    const ToolCallParser::Piece piece = parts.Add({&c, 1});
    content += piece.content;
    calls += piece.calls.size();
  }
  DSPARK_CHECK(calls == at_once.calls.size());
  DSPARK_CHECK(content + parts.Finish().content == at_once.content + whole.Finish().content);
}

}  // namespace
}  // namespace dspark

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace dspark;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (text.empty()) return 0;
  if (size < 2000) Parse(text);
  const ByteSet all = ByteSet().set();
  GrammarBuilder patterns(all);
  if (const auto node = PatternString(patterns, text); node.ok()) {
    if (const auto grammar = patterns.Finish(*node); grammar.ok()) Walk(*grammar, text, false);
  }
  const auto schema = nlohmann::ordered_json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (schema.is_discarded()) return 0;
  GrammarBuilder builder(all);
  JsonGrammar json(builder);
  const auto node = CompileSchema(json, schema);
  if (!node) return 0;
  if (const auto grammar = builder.Finish(*node); grammar.ok()) Walk(*grammar, text, true);
  return 0;
}
