#include "grammar/pattern.h"

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "grammar/code_points.h"
#include "load/printable.h"

namespace dspark {
namespace {

using Node = GrammarBuilder::Node;

constexpr int kMaxTimes = 1000, kMaxDepth = 50;

const CodePointSet kDigits = {{'0', '9'}};
const CodePointSet kWord = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
const CodePointSet kSpace = {{'\t', '\r'},     {' ', ' '},       {0xa0, 0xa0},     {0x1680, 0x1680},
                             {0x2000, 0x200a}, {0x2028, 0x2029}, {0x202f, 0x202f}, {0x205f, 0x205f},
                             {0x3000, 0x3000}, {0xfeff, 0xfeff}};
const CodePointSet kLineEnds = {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};

std::optional<CodePointSet> NamedSet(char32_t letter) {
  switch (letter) {
    case 'd':
      return kDigits;
    case 'D':
      return kDigits.Complement();
    case 'w':
      return kWord;
    case 'W':
      return kWord.Complement();
    case 's':
      return kSpace;
    case 'S':
      return kSpace.Complement();
    default:
      return {};
  }
}

class PatternParser {
 public:
  PatternParser(GrammarBuilder& builder, std::string_view pattern)
      : builder_(builder), pattern_(pattern), text_(DecodeUtf8(pattern)) {}

  Result<Node> Parse() {
    const Node any = builder_.Repeat(JsonStringChar(builder_, CodePointSet::All()), 0);
    std::vector<Node> alternatives;
    do {
      const bool begins = Take('^');
      const Node body = Sequence();
      const bool ends = Take('$');
      if (!AtEnd() && Peek() != '|' && !error_)
        Fail(Peek() == ')' ? "has no opening parenthesis" : kMisplaced);
      alternatives.push_back(
          builder_.Sequence({begins ? builder_.Empty() : any, body, ends ? builder_.Empty() : any}));
    } while (!error_ && Take('|'));
    if (error_) return *error_;
    return builder_.Choice(std::move(alternatives));
  }

 private:
  static constexpr std::string_view kMisplaced = "is supported only at the beginning or end of the pattern";

  bool AtEnd() const { return at_ >= text_.size(); }
  char32_t Peek(size_t ahead = 0) const { return at_ + ahead < text_.size() ? text_[at_ + ahead] : 0; }
  bool Take(char32_t c) {
    const bool is = !AtEnd() && text_[at_] == c;
    at_ += is;
    return is;
  }
  Node Fail(std::string_view what) {
    if (!error_) {
      error_ =
          MakeError("pattern \"{}\": what stands at character {} {}", Printable(pattern_, 60), at_ + 1, what);
    }
    at_ = text_.size();
    return builder_.Empty();
  }

  // Alternatives inside a group.
  Node Alternatives() {
    std::vector<Node> alternatives;
    do alternatives.push_back(Sequence());
    while (Take('|'));
    return builder_.Choice(std::move(alternatives));
  }

  // Up to a bar, a closing parenthesis, an anchor or the end.
  Node Sequence() {
    std::vector<Node> parts;
    while (!AtEnd() && Peek() != '|' && Peek() != ')' && Peek() != '$' && Peek() != '^')
      parts.push_back(Quantified(Atom()));
    if (depth_ > 0 && (Peek() == '$' || Peek() == '^')) Fail(kMisplaced);
    return builder_.Sequence(std::move(parts));
  }

  Node Atom() {
    if (builder_.full()) return Fail("makes it too large");
    switch (Peek()) {
      case '(':
        return Group();
      case '[':
        return JsonStringChar(builder_, Class());
      case '.':
        ++at_;
        return JsonStringChar(builder_, kLineEnds.Complement());
      case '*':
      case '+':
      case '?':
      case '{':
        return Fail("repeats nothing");
      case '\\':
        return JsonStringChar(builder_, Escape());
      default: {
        const char32_t c = text_[at_++];
        return JsonStringChar(builder_, {{c, c}});
      }
    }
  }

  Node Group() {
    if (++depth_ > kMaxDepth) return Fail("is nested too deep");
    if (Peek(1) == '?' && Peek(2) != ':') return Fail("is a group of a kind that is not supported");
    at_ += Peek(1) == '?' ? 3 : 1;
    const Node inner = Alternatives();
    if (!Take(')')) return Fail("lacks the closing parenthesis");
    --depth_;
    return inner;
  }

  Node Quantified(Node atom) {
    int min = 1, max = 1;
    if (Take('*')) {
      min = 0, max = -1;
    } else if (Take('+')) {
      max = -1;
    } else if (Take('?')) {
      min = 0;
    } else if (Take('{')) {
      min = max = Number();
      if (Take(',')) max = Peek() == '}' ? -1 : Number();
      if (!Take('}') || (max >= 0 && max < min)) return Fail("is no count of repetitions");
    } else {
      return atom;
    }
    Take('?');  // which match is found first makes no difference
    return error_ ? atom : builder_.Repeat(atom, min, max);
  }

  int Number() {
    int value = 0;
    const size_t begin = at_;
    for (; Peek() >= '0' && Peek() <= '9' && value <= kMaxTimes; ++at_)
      value = 10 * value + int(Peek() - '0');
    if (at_ == begin) Fail("is no count of repetitions");
    if (value > kMaxTimes) Fail("is more than the 1000 repetitions that are supported");
    return value;
  }

  // Behind a backslash that is still to be read.
  CodePointSet Escape() {
    ++at_;
    const char32_t c = Peek();
    if (const auto named = NamedSet(c)) {
      ++at_;
      return *named;
    }
    constexpr std::u32string_view kLetters = U"tnrfv0", kMeanings = std::u32string_view(U"\t\n\r\f\v\0", 6);
    if (const size_t i = kLetters.find(c); !AtEnd() && i != std::u32string_view::npos) {
      ++at_;
      return {{kMeanings[i], kMeanings[i]}};
    }
    if (c == 'x' || c == 'u') return HexEscape(c == 'x' ? 2 : 4);
    const bool word = c >= 0x80 || c == 0 || std::ranges::any_of(kWord.ranges(), [&](const auto& r) {
                        return c >= r.first && c <= r.second;
                      });
    if (word) {
      Fail("is an escape that is not supported");
      return {};
    }
    ++at_;
    return {{c, c}};
  }

  CodePointSet HexEscape(int digits) {
    ++at_;
    char32_t value = 0;
    for (int i = 0; i < digits; ++i, ++at_) {
      const char32_t c = Peek(), lower = c | 0x20;
      const bool digit = c >= '0' && c <= '9', letter = lower >= 'a' && lower <= 'f';
      if (!digit && !letter) {
        Fail("is no hexadecimal digit");
        return {};
      }
      value = 16 * value + (digit ? c - '0' : lower - 'a' + 10);
    }
    if (value >= 0xd800 && value <= 0xdfff) Fail("ends half of a surrogate pair; write the character itself");
    return {{value, value}};
  }

  CodePointSet Class() {
    ++at_;
    const bool negated = Take('^');
    CodePointSet set;
    while (!AtEnd() && Peek() != ']') {
      const CodePointSet first = ClassAtom();
      const bool range = Peek() == '-' && Peek(1) != ']' && Peek(1) != 0;
      if (!range) {
        set.Add(first);
        continue;
      }
      ++at_;
      const CodePointSet last = ClassAtom();
      if (!Single(first) || !Single(last) || last.ranges()[0].first < first.ranges()[0].first) {
        Fail("ends no range of characters");
        return {};
      }
      set.Add(first.ranges()[0].first, last.ranges()[0].first);
    }
    if (!Take(']')) Fail("lacks the closing bracket");
    return negated ? set.Complement() : set;
  }

  static bool Single(const CodePointSet& set) {
    return set.ranges().size() == 1 && set.ranges()[0].first == set.ranges()[0].second;
  }

  CodePointSet ClassAtom() {
    if (Peek() == '\\' && Peek(1) == 'b') {
      at_ += 2;
      return {{'\b', '\b'}};
    }
    if (Peek() == '\\' && Peek(1) == '-') {
      at_ += 2;
      return {{'-', '-'}};
    }
    if (Peek() == '\\') return Escape();
    const char32_t c = text_[at_++];
    return {{c, c}};
  }

  GrammarBuilder& builder_;
  const std::string_view pattern_;
  const std::u32string text_;
  size_t at_ = 0;
  int depth_ = 0;
  std::optional<Error> error_;
};

}  // namespace

Result<Node> PatternString(GrammarBuilder& builder, std::string_view pattern) {
  return PatternParser(builder, pattern).Parse();
}

}  // namespace dspark
