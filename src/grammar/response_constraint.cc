#include "grammar/response_constraint.h"

#include <algorithm>
#include <utility>

#include "grammar/code_points.h"
#include "grammar/grammar_constraint.h"
#include "grammar/json_grammar.h"
#include "grammar/json_schema.h"
#include "load/printable.h"

namespace dspark {
namespace {

using Json = nlohmann::ordered_json;
using Node = GrammarBuilder::Node;

constexpr size_t kMaxTools = 128;
constexpr int kMaxCalls = 16;

class ReplyGrammar {
 public:
  ReplyGrammar(const ReplyForm& form, const ByteSet& available, std::string* param)
      : form_(form), param_(param), b_(available), json_(b_) {}

  Result<std::shared_ptr<const ByteGrammar>> Make() {
    const bool calls = form_.calls != ReplyForm::Calls::kNone;
    Node root = b_.Never();
    if (form_.calls != ReplyForm::Calls::kRequired && form_.content != ReplyForm::Content::kText) {
      DSPARK_ASSIGN_OR_RETURN(root, Content());
    }
    if (calls) {
      DSPARK_ASSIGN_OR_RETURN(const Node behind_tag, CallsBehindTag());
      const bool text = form_.calls == ReplyForm::Calls::kAuto && form_.content == ReplyForm::Content::kText;
      root = text ? TextThen(behind_tag) : b_.Choice({root, b_.Sequence({b_.Text(kCallTag), behind_tag})});
    }
    auto grammar = b_.Finish(root);
    if (!grammar) return MakeError("the schema {}", grammar.error().text);
    return grammar;
  }

 private:
  Result<Node> Content() {
    if (form_.content == ReplyForm::Content::kJsonObject) return json_.Object();
    *param_ = "response_format.json_schema.schema";
    return CompileSchema(json_, form_.schema);
  }

  // A call, and where they are allowed some more, all behind the first's tag.
  Result<Node> CallsBehindTag() {
    *param_ = "tools";
    if (form_.tools.size() > kMaxTools)
      return MakeError("there are {} tools; at most {} are supported", form_.tools.size(), kMaxTools);
    std::vector<Node> calls;
    for (size_t i = 0; i < form_.tools.size(); ++i) {
      const ToolFunction& tool = form_.tools[i];
      if (!form_.function.empty() && tool.name != form_.function) continue;
      *param_ = fmt::format("tools[{}].function.parameters", i);
      Node arguments = json_.ObjectOf({}, b_.Never());
      if (!tool.parameters.is_null()) {
        Json schema = tool.parameters;
        if (schema.is_object()) schema.emplace("type", "object");
        DSPARK_ASSIGN_OR_RETURN(arguments, CompileSchema(json_, schema));
      }
      const std::string head = fmt::format("\n{{\"name\": \"{}\", \"arguments\": ", JsonEscaped(tool.name));
      calls.push_back(b_.Sequence({b_.Text(head), arguments, b_.Text("}\n"), b_.Text(kCallEndTag)}));
    }
    if (calls.empty()) {
      *param_ = "tool_choice";
      return MakeError("no tool has the name \"{}\"", Printable(form_.function));
    }
    const Node call = b_.Choice(std::move(calls));
    if (!form_.parallel_calls || !form_.function.empty()) return call;
    const Node more = b_.Sequence({b_.Text("\n"), b_.Text(kCallTag), call});
    return b_.Sequence({call, b_.Repeat(more, 0, kMaxCalls - 1)});
  }

  // Any text up to a tag, where `behind_tag` follows. States count the bytes of the tag that have come; the
  // tag's first byte is nowhere else in it.
  Node TextThen(Node behind_tag) {
    std::vector<Node> states(kCallTag.size());
    for (Node& state : states) state = b_.Declare();
    for (size_t i = 0; i < states.size(); ++i) {
      const auto next = char32_t(kCallTag[i]), first = char32_t(kCallTag[0]);
      const CodePointSet others = CodePointSet::All().Minus({{next, next}, {first, first}});
      const Node match =
          b_.Sequence({b_.Text(kCallTag.substr(i, 1)), i + 1 < states.size() ? states[i + 1] : behind_tag});
      const Node again = i > 0 ? b_.Sequence({b_.Text(kCallTag.substr(0, 1)), states[1]}) : b_.Never();
      b_.Define(states[i],
                b_.Choice({match, again, b_.Sequence({Utf8CharOf(b_, others), states[0]}), b_.Empty()}));
    }
    return states[0];
  }

  const ReplyForm& form_;
  std::string* param_;
  GrammarBuilder b_;
  JsonGrammar json_;
};

}  // namespace

Result<std::shared_ptr<const ByteGrammar>> MakeReplyGrammar(const ReplyForm& form, const ByteSet& available,
                                                            std::string* param) {
  if (form.content == ReplyForm::Content::kText && form.calls == ReplyForm::Calls::kNone)
    return std::shared_ptr<const ByteGrammar>();
  *param = "response_format";
  return ReplyGrammar(form, available, param).Make();
}

Result<std::shared_ptr<const Constraint>> MakeResponseConstraint(const ReplyForm& form,
                                                                 std::shared_ptr<const TokenTrie> trie,
                                                                 std::string* param) {
  DSPARK_ASSIGN_OR_RETURN(const auto grammar, MakeReplyGrammar(form, trie->single_bytes(), param));
  if (!grammar) return std::shared_ptr<const Constraint>();
  return std::shared_ptr<const Constraint>(std::make_shared<GrammarConstraint>(grammar, std::move(trie)));
}

}  // namespace dspark
