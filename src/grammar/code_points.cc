#include "grammar/code_points.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "load/utf8.h"

namespace dspark {
namespace {

using Node = GrammarBuilder::Node;

constexpr char32_t kLast = 0x10ffff, kFirstSurrogate = 0xd800, kLastSurrogate = 0xdfff;

std::string Encode(char32_t c) {
  std::string bytes;
  AppendUtf8(c, &bytes);
  return bytes;
}

// Characters of the same encoded length: `first` and `last` byte by byte, from byte `at` on.
Node EncodedRange(GrammarBuilder& b, std::string_view first, std::string_view last) {
  const auto lead_first = uint8_t(first[0]), lead_last = uint8_t(last[0]);
  if (first.size() == 1) return b.Range(lead_first, lead_last);
  const std::string lowest(first.size() - 1, char(0x80)), highest(first.size() - 1, char(0xbf));
  const auto rest_first = first.substr(1), rest_last = last.substr(1);
  if (lead_first == lead_last)
    return b.Sequence({b.Range(lead_first, lead_first), EncodedRange(b, rest_first, rest_last)});
  // Leads whose rests are cut at one end, and those between with any rest.
  std::vector<Node> parts;
  int from = lead_first, to = lead_last;
  if (rest_first != lowest) {
    parts.push_back(b.Sequence({b.Range(lead_first, lead_first), EncodedRange(b, rest_first, highest)}));
    ++from;
  }
  if (rest_last != highest) {
    parts.push_back(b.Sequence({b.Range(lead_last, lead_last), EncodedRange(b, lowest, rest_last)}));
    --to;
  }
  if (from <= to)
    parts.push_back(b.Sequence({b.Range(uint8_t(from), uint8_t(to)), EncodedRange(b, lowest, highest)}));
  return b.Choice(std::move(parts));
}

// "\n" for a line feed, "" where the character stands for itself.
std::string EscapeOf(char32_t c) {
  constexpr std::string_view kCharacters = "\"\\\b\f\n\r\t", kLetters = "\"\\bfnrt";
  if (c < 0x80) {
    if (const size_t i = kCharacters.find(char(c)); i != std::string_view::npos) return {'\\', kLetters[i]};
  }
  return c < 0x20 ? fmt::format("\\u{:04x}", uint32_t(c)) : std::string();
}

const CodePointSet kEscaped = {{0, 0x1f}, {'"', '"'}, {'\\', '\\'}};

}  // namespace

CodePointSet::CodePointSet(std::initializer_list<std::pair<char32_t, char32_t>> ranges) {
  for (const auto& [first, last] : ranges) Add(first, last);
}

void CodePointSet::Add(char32_t first, char32_t last) {
  if (first <= kLastSurrogate && last >= kFirstSurrogate) {
    if (first < kFirstSurrogate) Add(first, kFirstSurrogate - 1);
    if (last > kLastSurrogate) Add(kLastSurrogate + 1, last);
    return;
  }
  // Ranges that touch the new one melt into it.
  auto begin = std::ranges::find_if(ranges_, [&](const auto& r) { return r.second + 1 >= first; });
  auto end = begin;
  for (; end != ranges_.end() && end->first <= last + 1; ++end) {
    first = std::min(first, end->first);
    last = std::max(last, end->second);
  }
  ranges_.insert(ranges_.erase(begin, end), {first, last});
}

void CodePointSet::Add(const CodePointSet& other) {
  for (const auto& [first, last] : other.ranges_) Add(first, last);
}

CodePointSet CodePointSet::Complement() const {
  CodePointSet rest;
  char32_t from = 0;
  for (const auto& [first, last] : ranges_) {
    if (first > from) rest.Add(from, first - 1);
    from = last + 1;
  }
  if (from <= kLast) rest.Add(from, kLast);
  return rest;
}

CodePointSet CodePointSet::Minus(const CodePointSet& other) const {
  CodePointSet outside = Complement();
  outside.Add(other);
  return outside.Complement();
}

std::u32string DecodeUtf8(std::string_view text) {
  std::u32string decoded;
  for (size_t at = 0; at < text.size();) {
    const Utf8Char c = FirstUtf8Char(text.substr(at));
    decoded += c.whole ? DecodeUtf8(text.data() + at, c.length) : U'\ufffd';
    at += size_t(c.length);
  }
  return decoded;
}

Node Utf8CharOf(GrammarBuilder& builder, const CodePointSet& set) {
  // Where encodings become longer.
  constexpr char32_t kEnds[] = {0x7f, 0x7ff, 0xffff, kLast};
  ByteSet ascii;
  std::vector<Node> parts;
  for (auto [first, last] : set.ranges()) {
    for (const char32_t end : kEnds) {
      if (first > end) continue;
      const char32_t part_last = std::min(last, end);
      if (end == kEnds[0]) {
        for (char32_t c = first; c <= part_last; ++c) ascii.set(c);
      } else {
        parts.push_back(EncodedRange(builder, Encode(first), Encode(part_last)));
      }
      if (last <= end) break;
      first = end + 1;
    }
  }
  parts.insert(parts.begin(), builder.Bytes(ascii));
  return builder.Choice(std::move(parts));
}

Node JsonStringChar(GrammarBuilder& builder, const CodePointSet& set) {
  std::vector<Node> parts = {Utf8CharOf(builder, set.Minus(kEscaped))};
  for (const auto& [first, last] : set.ranges()) {
    for (char32_t c = first; c <= std::min<char32_t>(last, '\\'); ++c) {
      if (const std::string escape = EscapeOf(c); !escape.empty()) parts.push_back(builder.Text(escape));
    }
  }
  return builder.Choice(std::move(parts));
}

std::string JsonEscaped(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    const std::string escape = uint8_t(c) < 0x80 ? EscapeOf(char32_t(c)) : std::string();
    escape.empty() ? escaped += c : escaped += escape;
  }
  return escaped;
}

}  // namespace dspark
