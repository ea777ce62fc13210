#include "load/added_tokens.h"

#include <utf8proc.h>

#include <algorithm>

#include "core/check.h"
#include "load/utf8.h"

namespace dspark {
namespace {

bool IsContinuation(char byte) { return (byte & 0xC0) == 0x80; }

// Circled and squared letters are symbols by category, yet alphabetic.
bool IsEnclosedLetter(char32_t c) {
  return (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) || (c >= 0x1F150 && c <= 0x1F169) ||
         (c >= 0x1F170 && c <= 0x1F189);
}

// What regular expressions call \w.
bool IsWordCharacter(char32_t c) {
  const utf8proc_category_t category = utf8proc_category(utf8proc_int32_t(c));
  const bool letter_mark_or_digit = category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_NL;
  return letter_mark_or_digit || category == UTF8PROC_CATEGORY_PC || IsEnclosedLetter(c) || c == 0x200C ||
         c == 0x200D;
}

bool IsWhiteSpace(char32_t c) {
  const utf8proc_category_t category = utf8proc_category(utf8proc_int32_t(c));
  const bool separator = category >= UTF8PROC_CATEGORY_ZS && category <= UTF8PROC_CATEGORY_ZP;
  return separator || (c >= '\t' && c <= '\r') || c == 0x85;
}

char32_t CharacterAt(std::string_view text, size_t at) {
  return DecodeUtf8(text.data() + at, FirstUtf8Char(text.substr(at)).length);
}

size_t StartOfCharacterBefore(std::string_view text, size_t at) {
  do --at;
  while (IsContinuation(text[at]));
  return at;
}

bool IsSingleWord(std::string_view text, size_t begin, size_t end) {
  return (begin == 0 || !IsWordCharacter(CharacterAt(text, StartOfCharacterBefore(text, begin)))) &&
         (end == text.size() || !IsWordCharacter(CharacterAt(text, end)));
}

}  // namespace

AddedTokenMatcher::AddedTokenMatcher(const std::vector<const TokenizerSpec::Added*>& tokens)
    : tokens_(tokens) {
  const auto first = [](const TokenizerSpec::Added* t) { return uint8_t(t->text[0]); };
  std::stable_sort(tokens_.begin(), tokens_.end(), [&](const auto* a, const auto* b) {
    return first(a) != first(b) ? first(a) < first(b) : a->text.size() > b->text.size();
  });
  for (const auto* token : tokens_) {
    DSPARK_CHECK(!token->text.empty());
    ++first_[first(token) + 1];
  }
  for (int b = 0; b < 256; ++b) first_[b + 1] += first_[b];
}

const TokenizerSpec::Added* AddedTokenMatcher::LongestAt(std::string_view text, size_t at) const {
  const uint8_t byte = uint8_t(text[at]);
  for (uint32_t i = first_[byte]; i < first_[byte + 1]; ++i) {
    if (text.substr(at).starts_with(tokens_[i]->text)) return tokens_[i];
  }
  return nullptr;
}

std::optional<AddedTokenMatcher::Match> AddedTokenMatcher::Find(std::string_view text, size_t from) const {
  if (empty()) return std::nullopt;
  for (size_t at = from; at < text.size(); ++at) {
    const TokenizerSpec::Added* token = LongestAt(text, at);
    if (!token) continue;
    size_t begin = at, end = at + token->text.size();
    if (token->single_word && !IsSingleWord(text, begin, end)) {
      at = end - 1;
      continue;
    }
    while (token->strip_left && begin > from) {
      const size_t before = StartOfCharacterBefore(text, begin);
      if (!IsWhiteSpace(CharacterAt(text, before))) break;
      begin = before;
    }
    while (token->strip_right && end < text.size() && IsWhiteSpace(CharacterAt(text, end)))
      end += FirstUtf8Char(text.substr(end)).length;
    return Match{begin, end, token->id};
  }
  return std::nullopt;
}

}  // namespace dspark
