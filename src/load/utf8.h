// UTF-8 of text that may be broken (Unicode 15, table 3-7 and "U+FFFD substitution of maximal subparts").
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace dspark {

// What stands at the start of a byte string.
struct Utf8Char {
  int length;      // bytes: the whole character, or the longest prefix of one (at least 1)
  bool whole;      // it is a character
  bool truncated;  // the string ends inside what could become a character
};

// `text` is not empty.
Utf8Char FirstUtf8Char(std::string_view text);

// The code point of a whole character of `length` bytes.
char32_t DecodeUtf8(const char* bytes, int length);
void AppendUtf8(char32_t code_point, std::string* text);

// Length of the longest valid prefix of `text`.
size_t ValidUtf8Prefix(std::string_view text);
inline bool IsValidUtf8(std::string_view text) { return ValidUtf8Prefix(text) == text.size(); }

// Each maximal subpart of a broken character becomes one U+FFFD, as Python's errors="replace" does.
std::string ReplaceInvalidUtf8(std::string_view text);

// How many bytes at the end of `text` (0 to 3) are the start of a character that is not whole yet.
size_t UnfinishedUtf8Suffix(std::string_view text);

}  // namespace dspark
