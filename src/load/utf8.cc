#include "load/utf8.h"

#include <algorithm>
#include <cstring>

#include "core/check.h"

namespace dspark {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// Lead byte → length of the character, 0 for bytes that start none.
int LengthOf(uint8_t lead) {
  if (lead < 0x80) return 1;
  if (lead < 0xC2 || lead > 0xF4) return 0;
  return lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

// Overlong forms, surrogates and values above U+10FFFF are excluded by the range of the second byte alone.
bool IsSecondByte(uint8_t lead, uint8_t byte) {
  const uint8_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const uint8_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  return byte >= low && byte <= high;
}

size_t AsciiPrefix(std::string_view text) {
  size_t i = 0;
  for (; i + 8 <= text.size(); i += 8) {
    uint64_t eight;
    std::memcpy(&eight, text.data() + i, 8);
    if (eight & 0x8080808080808080) break;
  }
  while (i < text.size() && uint8_t(text[i]) < 0x80) ++i;
  return i;
}

}  // namespace

Utf8Char FirstUtf8Char(std::string_view text) {
  const auto byte = [&](size_t i) { return uint8_t(text[i]); };
  const int length = LengthOf(byte(0));
  if (length <= 1) return {1, length == 1, false};
  const int available = int(std::min<size_t>(length, text.size()));
  int i = 1;
  if (i < available && IsSecondByte(byte(0), byte(1))) {
    for (i = 2; i < available && (byte(i) & 0xC0) == 0x80;) ++i;
  }
  return {i, i == length, i < length && i == available};
}

char32_t DecodeUtf8(const char* bytes, int length) {
  const auto byte = [&](int i) { return char32_t(uint8_t(bytes[i])); };
  switch (length) {
    case 1:
      return byte(0);
    case 2:
      return (byte(0) & 0x1F) << 6 | (byte(1) & 0x3F);
    case 3:
      return (byte(0) & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
    default:
      DSPARK_CHECK_EQ(length, 4);
  }
  return (byte(0) & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F);
}

void AppendUtf8(char32_t code_point, std::string* text) {
  const auto put = [&](char32_t byte) { text->push_back(char(byte)); };
  const auto continuation = [&](int shift) { put(0x80 | ((code_point >> shift) & 0x3F)); };
  if (code_point < 0x80) {
    put(code_point);
  } else if (code_point < 0x800) {
    put(0xC0 | code_point >> 6), continuation(0);
  } else if (code_point < 0x10000) {
    put(0xE0 | code_point >> 12), continuation(6), continuation(0);
  } else {
    put(0xF0 | code_point >> 18), continuation(12), continuation(6), continuation(0);
  }
}

size_t ValidUtf8Prefix(std::string_view text) {
  size_t i = 0;
  while ((i += AsciiPrefix(text.substr(i))) < text.size()) {
    const Utf8Char c = FirstUtf8Char(text.substr(i));
    if (!c.whole) break;
    i += c.length;
  }
  return i;
}

std::string ReplaceInvalidUtf8(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  while (true) {
    const size_t valid = ValidUtf8Prefix(text);
    result += text.substr(0, valid);
    text.remove_prefix(valid);
    if (text.empty()) return result;
    result += kReplacement;
    text.remove_prefix(FirstUtf8Char(text).length);
  }
}

size_t UnfinishedUtf8Suffix(std::string_view text) {
  for (size_t n = 1; n <= std::min<size_t>(3, text.size()); ++n) {
    const std::string_view suffix = text.substr(text.size() - n);
    if ((suffix[0] & 0xC0) == 0x80) continue;
    const Utf8Char c = FirstUtf8Char(suffix);
    return c.truncated ? n : 0;
  }
  return 0;
}

}  // namespace dspark
