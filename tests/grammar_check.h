// Grammars in tests: what they accept, and random texts of them.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <string>

#include "grammar/matcher.h"

namespace dspark::test {

inline ByteSet AllBytes() { return ByteSet().set(); }

inline bool Accepts(Matcher& matcher, std::string_view text) {
  return matcher.Whole(matcher.Step(matcher.start(), text));
}

// A text of the grammar: random bytes that are allowed, and the end where it may end, more likely the longer
// the text is. Empty where it became longer than `most`.
inline std::string RandomText(Matcher& matcher, std::mt19937& random, size_t most) {
  std::string text;
  for (Matcher::State state = matcher.start(); !matcher.Complete(state) && text.size() < most;) {
    if (matcher.Whole(state) && random() % 3 == 0) return text;
    // A closing byte is tried more often than others, so that texts end.
    constexpr std::string_view kClosing = "\"}],";
    uint8_t byte = 0;
    do {
      byte = random() % 4 == 0 ? uint8_t(kClosing[random() % kClosing.size()]) : uint8_t(random() % 256);
    } while (matcher.Step(state, byte) == Matcher::kDead);
    text += char(byte);
    state = matcher.Step(state, byte);
  }
  return matcher.Whole(matcher.Step(matcher.start(), text)) ? text : std::string();
}

}  // namespace dspark::test
