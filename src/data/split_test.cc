#include "data/split.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <fstream>
#include <set>

#include "data/conversation.h"
#include "data/line_reader.h"
#include "temp_dir.h"

namespace dspark {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::string> Lines(const std::string& path) {
  auto reader = LineReader::Open(path);
  EXPECT_TRUE(reader.ok()) << path;
  std::vector<std::string> lines;
  for (std::string line; reader.ok() && reader->Next(&line).value();) lines.push_back(line);
  return lines;
}

class SplitTest : public testing::Test {
 protected:
  std::string Path(const std::string& name) const { return dir_.path() + "/" + name; }
  std::string Write(const std::string& name, const std::string& text) const {
    std::ofstream(Path(name), std::ios::binary) << text;
    return Path(name);
  }
  SplitOptions Options(const std::string& in) const {
    SplitOptions options;
    options.inputs = {in};
    options.out = Path("out");
    return options;
  }
  test::TempDir dir_;
};

std::string Row(int id, const std::string& more = "") {
  return fmt::format(
      R"({{"id":{},"conversations":[{{"from":"human","value":"q{}"}},{{"from":"gpt","value":"a"}}]{}}})"
      "\n",
      id, id, more);
}

TEST_F(SplitTest, WritesBothFilesInTheirForms) {
  const std::string in = Write("in.jsonl", Row(7, R"(,"domain":"math","answer":72)") +
                                               R"({"messages":[{"role":"system","content":"s"},)"
                                               R"({"role":"user","content":"ü"},{"role":"tool","content":1},)"
                                               R"({"role":"assistant","content":"b"}]})");
  SplitOptions options = Options(in);
  options.held_out = 0;
  ASSERT_TRUE(Split(options).ok());
  EXPECT_THAT(Lines(Path("out/train.jsonl")),
              ElementsAre(R"({"id":7,"conversations":[{"role":"user","content":"q7"},)"
                          R"({"role":"assistant","content":"a"}],"domain":"math","answer":72})",
                          R"({"id":1,"conversations":[{"role":"user","content":"ü"},)"
                          R"({"role":"assistant","content":"b"}]})"));
  EXPECT_TRUE(Lines(Path("out/held_out.jsonl")).empty());

  const auto again = Split(options);
  ASSERT_FALSE(again.ok());
  EXPECT_THAT(again.error().text, HasSubstr("--force"));
  options.force = options.keep_system = true;
  ASSERT_TRUE(Split(options).ok());
  EXPECT_THAT(Lines(Path("out/train.jsonl"))[1], HasSubstr(R"([{"role":"system","content":"s"})"));
  options.held_out = 1;
  ASSERT_TRUE(Split(options).ok());
  EXPECT_THAT(Lines(Path("out/held_out.jsonl")),
              ElementsAre(R"({"turns":["q7"],"id":7,"domain":"math"})", R"({"turns":["ü"],"id":1})"));
}

TEST_F(SplitTest, MembershipStaysWhenRowsComeAndMove) {
  std::string up, down;
  for (int i = 0; i < 1000; ++i) up += Row(i);
  for (int i = 1999; i >= 0; --i) down += Row(i);
  const auto held_out = [&](const std::string& in, uint64_t seed) {
    SplitOptions options = Options(Write("in.jsonl", in));
    options.force = true;
    options.seed = seed;
    EXPECT_TRUE(Split(options).ok());
    std::set<std::string> rows;
    for (const std::string& line : Lines(Path("out/held_out.jsonl"))) rows.insert(line);
    return rows;
  };
  const auto first = held_out(up, 42), more = held_out(down, 42);
  EXPECT_GT(first.size(), 25u);  // of 1000 at 5 %: 50 ± 7
  EXPECT_LT(first.size(), 75u);
  for (int i = 0; i < 1000; ++i) {
    const std::string row = fmt::format(R"({{"turns":["q{}"],"id":{}}})", i, i);
    EXPECT_EQ(first.contains(row), more.contains(row)) << i;
  }
  EXPECT_NE(first, held_out(up, 43));
}

TEST_F(SplitTest, BadRowsAreListedAndNotFatal) {
  const std::string in = Write("in.jsonl", "{\n" + Row(1) +
                                               R"({"id":2,"conversations":[]})"
                                               "\n" +
                                               R"({"id":3,"messages":[{"role":"assistant","content":"a"}]})"
                                               "\n\n" +
                                               R"({"id":4,"messages":[{"role":"user","content":""}]})"
                                               "\n" +
                                               Row(1) + "[1]\n" + R"({"id":5,"messages":3})");
  SplitOptions options = Options(in);
  options.held_out = 0;
  const auto summary = Split(options);
  ASSERT_TRUE(summary.ok()) << summary.error().text;
  EXPECT_EQ(summary->train, 1);
  EXPECT_EQ(summary->rejected, 7);
  EXPECT_THAT(summary->first_rejected,
              ElementsAre(in + ":1: not JSON", in + ":3: no message of a user",
                          in + ":4: the first message is not from the user",
                          in + ":6: \"content\" of message 1 is empty", in + ":7: id 1 was in a row before"));
  const auto rejected = Lines(Path("out/split_rejected.jsonl"));
  ASSERT_EQ(rejected.size(), 7u);
  EXPECT_THAT(rejected[0], HasSubstr(R"("reason":"not JSON","row":"{")"));
}

TEST_F(SplitTest, IdsAreTextsOrWholeNumbers) {
  std::string rows;
  const auto row = [](const std::string& id) {
    return fmt::format(R"({{"id":{},"messages":[{{"role":"user","content":"q"}}]}})"
                       "\n",
                       id);
  };
  for (const char* id : {"-1", "18446744073709551615", "\"x\"", "1.5", "{\"a\":1}", "12345678901234567890123",
                         "12345678901234567890124", "null"})
    rows += row(id);
  SplitOptions options = Options(Write("in.jsonl", rows));
  options.held_out = 0;
  options.force = true;
  const auto summary = Split(options);
  ASSERT_TRUE(summary.ok());
  EXPECT_EQ(summary->train, 4) << "the last gets its index";
  EXPECT_EQ(summary->rejected, 4);
  EXPECT_THAT(summary->first_rejected[0],
              HasSubstr("in.jsonl:4: id 1.5 is neither a text nor a whole number of 64 bits"));
  EXPECT_THAT(Lines(Path("out/train.jsonl"))[3], HasSubstr("{\"id\":7,"));
  // An id that is another row's index ends the run, whichever comes first: no row is dropped for it.
  for (const std::string& clash : {row("1") + row("null"), row("null") + row("0")}) {
    Write("in.jsonl", clash);
    const auto refused = Split(options);
    ASSERT_FALSE(refused.ok());
    EXPECT_THAT(refused.error().text, HasSubstr("in.jsonl:2: id "));
    EXPECT_THAT(refused.error().text, HasSubstr("give every row an id"));
  }
}

TEST_F(SplitTest, SystemMessagesInTheMiddleAreLeftOutAndPartsJoined) {
  const std::string in =
      Write("in.jsonl", R"({"messages":[{"role":"user","content":[{"type":"text","text":"a"},)"
                        R"({"type":"text","text":"b"}]},{"role":"system","content":"s"},)"
                        R"({"role":"assistant","content":"c"}]})"
                        "\n"
                        R"({"messages":[{"role":"user","content":[{"type":"text","text":"a"},)"
                        R"({"type":"image_url","image_url":{"url":"x"}}]}]})"
                        "\n"
                        R"({"messages":[{"role":"user","content":["a"]}]})");
  SplitOptions options = Options(in);
  options.held_out = 0;
  options.keep_system = true;
  const auto summary = Split(options);
  ASSERT_TRUE(summary.ok());
  EXPECT_THAT(Lines(Path("out/train.jsonl")),
              ElementsAre(R"({"id":0,"conversations":[{"role":"user","content":"a\nb"},)"
                          R"({"role":"assistant","content":"c"}]})"));
  EXPECT_THAT(summary->first_rejected,
              ElementsAre(in + R"(:2: part 2 of "content" of message 1 is image_url, not text)",
                          in + R"(:3: part 1 of "content" of message 1 is malformed, not text)"));
}

TEST_F(SplitTest, SpoilsNoInputAndLeavesNoOldRejects) {
  SplitOptions options = Options(Write("in.jsonl", Row(1) + "no row\n"));
  options.held_out = 0;
  ASSERT_TRUE(Split(options).ok());
  options.force = true;
  options.inputs = {Path("out/train.jsonl")};
  const std::vector<std::string> before = Lines(options.inputs[0]);
  const auto refused = Split(options);
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(refused.error().text, HasSubstr("out/train.jsonl: would be replaced while it is read"));
  EXPECT_EQ(Lines(options.inputs[0]), before);
  EXPECT_TRUE(std::filesystem::exists(Path("out/split_rejected.jsonl")));
  options.inputs = {Write("in.jsonl", Row(1))};
  ASSERT_TRUE(Split(options).ok());
  EXPECT_FALSE(std::filesystem::exists(Path("out/split_rejected.jsonl")));
}

TEST_F(SplitTest, Filters) {
  SplitOptions options =
      Options(Write("in.jsonl", Row(1, R"(,"domain":"math","license":"MIT")") +
                                    Row(2, R"(,"domain":"code","license":"MIT")") +
                                    Row(3, R"(,"domain":"math","license":"CC-BY-NC-4.0")") + Row(4)));
  options.held_out = 0;
  options.domains = {"math"};
  options.without_licenses = {"NC", "SA"};
  auto summary = Split(options);
  ASSERT_TRUE(summary.ok());
  EXPECT_EQ(summary->train, 1);
  EXPECT_EQ(summary->filtered, 3);
  options.domains = options.without_licenses = {};
  options.max_samples = 2;
  options.force = true;
  EXPECT_EQ(Split(options)->train, 2);
}

TEST_F(SplitTest, ReadsGzipAndSaysWhenItIsCut) {
  const std::string text = Row(1) + Row(2);
  gzFile gz = gzopen(Path("in.jsonl.gz").c_str(), "wb");
  gzwrite(gz, text.data(), unsigned(text.size()));
  gzclose(gz);
  EXPECT_EQ(Lines(Path("in.jsonl.gz")).size(), 2u);
  std::filesystem::resize_file(Path("in.jsonl.gz"), std::filesystem::file_size(Path("in.jsonl.gz")) - 12);
  const auto cut = Split(Options(Path("in.jsonl.gz")));
  ASSERT_FALSE(cut.ok());
  EXPECT_THAT(cut.error().text, HasSubstr("in.jsonl.gz: cannot be read"));
  EXPECT_FALSE(std::filesystem::exists(Path("out/train.jsonl")));
  EXPECT_THAT(Split(Options(Path("nothing"))).error().text, HasSubstr("No such file"));
  EXPECT_THAT(Split(Options(dir_.path())).error().text, HasSubstr("is a directory"));
}

TEST_F(SplitTest, LinesLongerThanTheBuffer) {
  const std::string longest(1 << 20, 'x');
  EXPECT_THAT(Lines(Write("long", "a\n\n" + longest + "\nb")), ElementsAre("a", longest, "b"));
}

}  // namespace
}  // namespace dspark
