#include "load/nfc.h"

#include <utf8proc.h>

#include <algorithm>
#include <vector>

#include "core/check.h"
#include "load/utf8.h"

namespace dspark {
namespace {

// Characters below U+0300 are starters that NFC keeps and that never join what stands before them. Their
// first bytes, and only theirs, are below 0xCC (continuation bytes follow a first byte).
bool IsPlain(char first_byte) { return uint8_t(first_byte) < 0xCC; }
bool IsContinuation(char byte) { return (byte & 0xC0) == 0x80; }

int CombiningClass(utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; }

// Decomposes, orders the marks and composes. utf8proc's own ordering is a bubble sort: quadratic on long runs
// of marks.
void AppendNfc(std::string_view text, std::string* result) {
  std::vector<utf8proc_int32_t> points;
  points.reserve(text.size());
  while (!text.empty()) {
    const int length = FirstUtf8Char(text).length;
    utf8proc_int32_t parts[32];
    int last_boundclass = 0;
    const auto n = utf8proc_decompose_char(utf8proc_int32_t(DecodeUtf8(text.data(), length)), parts, 32,
                                           UTF8PROC_DECOMPOSE, &last_boundclass);
    DSPARK_CHECK(n >= 0 && n <= 32);
    points.insert(points.end(), parts, parts + n);
    text.remove_prefix(length);
  }
  for (auto i = points.begin(); i != points.end();) {
    const auto end = std::find_if(i, points.end(), [](auto c) { return CombiningClass(c) == 0; });
    std::stable_sort(i, end, [](auto a, auto b) { return CombiningClass(a) < CombiningClass(b); });
    i = end == points.end() ? end : end + 1;
  }
  const auto n = utf8proc_normalize_utf32(points.data(), utf8proc_ssize_t(points.size()),
                                          utf8proc_option_t(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
  DSPARK_CHECK(n >= 0);
  for (utf8proc_ssize_t i = 0; i < n; ++i) AppendUtf8(char32_t(points[i]), result);
}

}  // namespace

bool IsPlainNfc(std::string_view text) { return std::all_of(text.begin(), text.end(), IsPlain); }

std::string Nfc(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  size_t copied = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (IsPlain(text[i])) continue;
    // From the character before, which may take up marks, to the next plain character.
    size_t begin = i, end = i;
    if (begin > copied) --begin;
    while (begin > copied && IsContinuation(text[begin])) --begin;
    while (end < text.size() && (!IsPlain(text[end]) || IsContinuation(text[end]))) ++end;
    result += text.substr(copied, begin - copied);
    AppendNfc(text.substr(begin, end - begin), &result);
    copied = end;
    i = end - 1;
  }
  return result += text.substr(copied);
}

}  // namespace dspark
