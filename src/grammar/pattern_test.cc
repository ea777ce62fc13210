#include "grammar/pattern.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <regex>

#include "grammar/code_points.h"
#include "grammar_check.h"
#include "load/utf8.h"

namespace dspark {
namespace {

using test::AllBytes;

Result<std::shared_ptr<const ByteGrammar>> Compile(std::string_view pattern) {
  GrammarBuilder b(AllBytes());
  DSPARK_ASSIGN_OR_RETURN(const GrammarBuilder::Node node, PatternString(b, pattern));
  return b.Finish(node);
}

// All texts of up to four characters against std::regex, which reads the same language.
TEST(Pattern, AgreesWithStdRegex) {
  constexpr std::string_view kAlphabet = "ab1-\"\n";
  std::vector<std::string> texts = {""};
  for (size_t i = 0; i < texts.size() && texts[i].size() < 4; ++i) {
    for (const char c : kAlphabet) texts.push_back(texts[i] + c);
  }
  for (const char* pattern : {"a",
                              "^a",
                              "a$",
                              "^a$",
                              "^(a|b1)*$",
                              "^[^a]+$",
                              "^a?b{2}$",
                              "^a{2,}",
                              "^a{1,2}?b$",
                              "a|^b$",
                              "^$",
                              "",
                              "^\\d+$",
                              "\\D\\w",
                              "^.\\W",
                              "^[a-b-]{2,3}$",
                              "^(?:a|(b|-))+1$",
                              "\\s",
                              "^a.b$",
                              "^\\x61\\u0062$",
                              "^[\\d-]+$",
                              "^(a*)*$",
                              "^(a|)(b|){2}$",
                              "^(|a){3}b",
                              "-|\"",
                              "^[^]$"}) {
    auto grammar = Compile(pattern);
    ASSERT_TRUE(grammar.ok()) << pattern << ": " << grammar.error().text;
    Matcher matcher(*grammar);
    const std::regex regex(pattern);
    for (const std::string& text : texts)
      ASSERT_EQ(test::Accepts(matcher, JsonEscaped(text)), std::regex_search(text, regex))
          << pattern << " on " << text;
  }
}

TEST(Pattern, IsAboutCharactersNotBytes) {
  Matcher one(std::move(Compile("^.$")).value()), latin(std::move(Compile("^[à-ý]+$")).value());
  for (const char* text : {"é", "€", "😀", "a"}) EXPECT_TRUE(test::Accepts(one, text));
  EXPECT_FALSE(test::Accepts(one, "éé"));
  EXPECT_FALSE(test::Accepts(one, "\xc3"));
  EXPECT_TRUE(test::Accepts(latin, "éüà"));
  EXPECT_FALSE(test::Accepts(latin, "éß"));
}

// Every character and no other byte string, by ranges that are cut anywhere.
TEST(CodePointSet, IsWrittenInUtf8) {
  for (const auto& [first, last] : std::vector<std::pair<char32_t, char32_t>>{{0, 0x10ffff},
                                                                              {0x70, 0x810},
                                                                              {0x7ff, 0x801},
                                                                              {0xd000, 0xe005},
                                                                              {0xfffe, 0x10001},
                                                                              {0x1f000, 0x10fff0},
                                                                              {0x41, 0x41}}) {
    GrammarBuilder b(AllBytes());
    Matcher matcher(std::move(b.Finish(Utf8CharOf(b, {{first, last}}))).value());
    for (char32_t c = 0; c <= 0x10ffff; c += c < 0x1100 || (c > 0xcff0 && c < 0x10100) ? 1 : 97) {
      std::string text;
      AppendUtf8(c, &text);
      const bool surrogate = c >= 0xd800 && c <= 0xdfff;
      ASSERT_EQ(test::Accepts(matcher, text), c >= first && c <= last && !surrogate) << uint32_t(c);
    }
    for (const char* broken :
         {"\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\x80", "\xf8\x88\x80\x80\x80", "\xe0\x80\x80"})
      EXPECT_FALSE(test::Accepts(matcher, broken));
  }
}

TEST(Pattern, SaysWhatItDoesNotSupport) {
  const auto error_of = [](std::string_view pattern) {
    const auto grammar = Compile(pattern);
    return grammar.ok() ? std::string() : grammar.error().text;
  };
  for (const char* pattern : {"(?=a)", "(?<n>a)", "a(?!b)", "\\1", "\\bword", "\\p{L}", "a^b",     "(^a)",
                              "a$b",   "(a",      "a)",     "[a",  "*a",      "a{2,1}", "a{1001}", "a{",
                              "[b-a]", "[\\d-z]", "\\u12",  "\\",  "[\\",     "a**",    "\\ud800"}) {
    EXPECT_THAT(error_of(pattern), testing::StartsWith("pattern \"")) << pattern;
  }
  EXPECT_THAT(error_of(std::string(2000, '(')), testing::HasSubstr("nested too deep"));
  EXPECT_THAT(error_of("(((a{1000}){1000}b){999}c)"), testing::IsEmpty());
  EXPECT_EQ(error_of("(?=a)"),
            "pattern \"(?=a)\": what stands at character 1 is a group of a kind that is not supported");
}

}  // namespace
}  // namespace dspark
