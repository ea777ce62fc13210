#include "eval/suites.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include "eval/python_shuffle.h"
#include "tiny_model.h"

namespace dspark::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// What `import random; r = random.Random(SEED); l = list(range(N)); r.shuffle(l)` leaves in l.
TEST(PythonShuffle, IsCPythons) {
  EXPECT_THAT(PythonShuffle(10, 980406), ElementsAre(2, 0, 1, 5, 4, 8, 7, 6, 9, 3));
  const std::vector<int> gsm8k = PythonShuffle(1319, 980406), some = PythonShuffle(700, 980406);
  EXPECT_THAT(std::vector(gsm8k.begin(), gsm8k.begin() + 12),
              ElementsAre(435, 902, 303, 1168, 403, 611, 608, 977, 229, 1263, 566, 1191));
  EXPECT_THAT(std::vector(gsm8k.end() - 3, gsm8k.end()), ElementsAre(1260, 405, 487));
  EXPECT_THAT(std::vector(some.begin(), some.begin() + 12),
              ElementsAre(464, 100, 684, 614, 370, 112, 239, 238, 582, 357, 315, 38));
  EXPECT_THAT(PythonShuffle(20, 12345678901234567890u),
              ElementsAre(15, 18, 19, 6, 13, 0, 4, 12, 1, 2, 5, 7, 9, 3, 8, 11, 10, 14, 17, 16));
  EXPECT_THAT(PythonShuffle(1, 0), ElementsAre(0));
  EXPECT_TRUE(PythonShuffle(0, 0).empty());
}

class Suites : public testing::Test {
 protected:
  std::string File(const std::string& name, const std::string& text) {
    return WriteFile(dir_.path() + "/" + name, text);
  }
  std::string ErrorOf(const std::string& text) {
    const auto suite = ReadSuite(File("bad.jsonl", text), {});
    return suite ? "no error" : suite.error().text;
  }
  TempDir dir_;
};

TEST_F(Suites, TurnsAndMessages) {
  const std::string path = File(
      "mixed.jsonl",
      "{\"turns\": [\"one\", \"two\"], \"id\": 7}\n\n"
      "{\"messages\": [{\"role\": \"system\", \"content\": \"be brief\"}, {\"role\": \"user\", \"content\": "
      "\"a\"}, {\"role\": \"assistant\", \"content\": \"left out\"}, {\"role\": \"user\", \"content\": "
      "\"b\"}]}");
  const Suite suite = ReadSuite(path, {}).value();
  EXPECT_EQ(suite.name, "mixed");
  EXPECT_EQ(suite.domain, "mixed");
  ASSERT_EQ(suite.prompts.size(), 2u);
  EXPECT_THAT(suite.prompts[0].turns, ElementsAre("one", "two"));
  EXPECT_EQ(suite.prompts[0].system, "");
  EXPECT_THAT(suite.prompts[1].turns, ElementsAre("a", "b"));
  EXPECT_EQ(suite.prompts[1].system, "be brief");
  EXPECT_THAT(ReadSuite(path, {.max_turns = 1})->prompts[0].turns, ElementsAre("one"));
}

TEST_F(Suites, SubsamplesAreDeepSpecs) {
  std::string lines;
  for (int i = 0; i < 40; ++i) lines += "{\"turns\": [\"" + std::to_string(i) + "\"]}\n";
  const auto first = [](const Suite& suite) {
    std::vector<std::string> turns;
    turns.reserve(suite.prompts.size());
    for (const EvalPrompt& prompt : suite.prompts) turns.push_back(prompt.turns[0]);
    return turns;
  };
  const std::vector<int> order = PythonShuffle(40, 980406);
  std::vector<std::string> expected;
  expected.reserve(30);
  for (size_t i = 0; i < 30; ++i) expected.push_back(std::to_string(order[i]));
  const Suite aime = ReadSuite(File("aime25.jsonl", lines), {}).value();
  EXPECT_EQ(aime.domain, "math");
  EXPECT_EQ(first(aime), expected);
  expected.resize(2);
  EXPECT_EQ(first(ReadSuite(File("own.jsonl", lines), {.max_prompts = 2}).value()), expected);
  EXPECT_EQ(first(ReadSuite(File("own.jsonl", lines), {}).value())[1], "1");
}

TEST_F(Suites, TrainingDataArePromptsToo) {
  const Suite suite =
      ReadSuite(
          File("train.jsonl",
               "{\"id\": 3, \"conversations\": [{\"from\": \"human\", \"value\": \"a\"}, {\"from\": \"gpt\", "
               "\"value\": \"b\"}, {\"from\": \"human\", \"value\": \"c\"}]}\n"
               "{\"conversations\": [{\"role\": \"system\", \"content\": \"s\"}, {\"role\": \"user\", "
               "\"content\": \"d\"}]}\n"),
          {})
          .value();
  ASSERT_EQ(suite.prompts.size(), 2u);
  EXPECT_THAT(suite.prompts[0].turns, ElementsAre("a", "c"));
  EXPECT_EQ(suite.prompts[0].system, "");
  EXPECT_THAT(suite.prompts[1].turns, ElementsAre("d"));
  EXPECT_EQ(suite.prompts[1].system, "s");
  EXPECT_THAT(ErrorOf("{\"conversations\": [{\"from\": \"gpt\", \"value\": \"b\"}]}\n"),
              HasSubstr("bad.jsonl:1: the first message is not from the user"));
}

TEST_F(Suites, WhatIsWrongHasALineNumber) {
  EXPECT_THAT(ErrorOf("{\"turns\": [\"x\"]}\nnonsense\n"), HasSubstr("bad.jsonl:2: not a JSON object"));
  EXPECT_THAT(ErrorOf("{\"turns\": [5]}\n"), HasSubstr("bad.jsonl:1: turns must be texts"));
  EXPECT_THAT(ErrorOf("{\"prompt\": \"x\"}\n"), HasSubstr("none of turns, messages and conversations"));
  EXPECT_THAT(ErrorOf("{\"turns\": []}\n"), HasSubstr("nothing is said"));
  EXPECT_THAT(ErrorOf("{\"messages\": [{\"role\": \"tool\", \"content\": \"x\"}]}\n"),
              HasSubstr("a message of role tool"));
  EXPECT_THAT(ErrorOf("{\"messages\": [{\"role\": \"user\", \"content\": 1}]}\n"),
              HasSubstr("bad.jsonl:1: the content of a message of role user is no text"));
  EXPECT_THAT(ErrorOf("{\"messages\": [{\"role\": \"user\"}]}\n"), HasSubstr("needs a role and a content"));
  EXPECT_THAT(ErrorOf(R"({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]})"),
              HasSubstr("part 1 of the content of a message of role user is input_audio, not text"));
  EXPECT_THAT(ErrorOf("\n"), HasSubstr("no prompts"));
  EXPECT_THAT(ReadSuite(dir_.path() + "/none.jsonl", {}).error().text, HasSubstr("cannot open"));
}

TEST_F(Suites, GzipAndTextParts) {
  const std::string text =
      R"({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]})";
  const std::string path = dir_.path() + "/gsm8k.jsonl.gz";
  gzFile gz = gzopen(path.c_str(), "wb");
  gzwrite(gz, text.data(), unsigned(text.size()));
  gzclose(gz);
  EXPECT_THAT(SuiteFiles(dir_.path()).value(), ElementsAre(path));
  const auto suite = ReadSuite(path, {});
  ASSERT_TRUE(suite.ok()) << suite.error().text;
  EXPECT_EQ(suite->name, "gsm8k");
  EXPECT_EQ(suite->domain, "math");
  EXPECT_THAT(suite->prompts[0].turns, ElementsAre("a\nb"));
}

TEST_F(Suites, FilesInThePapersOrder) {
  for (const char* name : {"own.jsonl", "alpaca.jsonl", "gsm8k.jsonl", "mbpp.jsonl", "notes.txt"})
    File(name, "x");
  const std::string d = dir_.path() + "/";
  EXPECT_THAT(SuiteFiles(dir_.path()).value(),
              ElementsAre(d + "gsm8k.jsonl", d + "mbpp.jsonl", d + "alpaca.jsonl", d + "own.jsonl"));
  EXPECT_FALSE(SuiteFiles(d + "none").ok());
}

}  // namespace
}  // namespace dspark::test
