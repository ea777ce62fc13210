#include "eval/serving_profile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "temp_dir.h"

namespace dspark::test {
namespace {

using testing::HasSubstr;

TEST(CostCurve, IsLinearBetweenPoints) {
  const CostCurve curve{{{2, 10.0}, {4, 20.0}}};
  EXPECT_EQ(curve.At(0), 0);
  EXPECT_EQ(curve.At(1), 10);
  EXPECT_EQ(curve.At(3), 15);
  EXPECT_EQ(curve.At(4), 20);
  EXPECT_EQ(curve.At(8), 40);
  EXPECT_EQ(CostCurve{}.At(5), 0);
}

// Steps of 4 rows took 12 ms where the start's table said 10, those of 8 rows 24: so are widths never seen.
TEST(ProfileRecorder, MeansOfServiceAndTheTablesShapeBeyond) {
  ProfileRecorder recorder;
  for (const double off : {-1.0, 0.0, 1.0}) {
    recorder.AddStep({.rows = 4, .committing = 4, .pass_ms = 12 + off, .drafter_ms = 1}, 15 + off);
    recorder.AddStep(
        {.rows = 8, .committing = 4, .drafting = 2, .pass_ms = 30 + off, .drafter_ms = 3, .depth_ms = 6}, 0);
  }
  recorder.AddStep({.rows = 2, .committing = 2, .pass_ms = 999}, 0);  // once: not believed
  recorder.AddStep({.rows = 24, .prompt_rows = 20, .committing = 4, .pass_ms = 52}, 60);
  const CostTable table({{1, 5}, {4, 10}, {8, 20}, {16, 40}}, 0.25);
  const ServingProfile profile = recorder.Profile(table);
  EXPECT_DOUBLE_EQ(profile.costs.Ms(4), 12);
  EXPECT_DOUBLE_EQ(profile.costs.Ms(8), 24);
  EXPECT_DOUBLE_EQ(profile.costs.Ms(1), 5 * 1.2);
  EXPECT_DOUBLE_EQ(profile.costs.Ms(16), 40 * 1.2);
  EXPECT_EQ(profile.costs.ms_per_row_position(), 0.25);
  EXPECT_DOUBLE_EQ(profile.prompt_ms_per_row, (52 - 12) / 20.0);
  EXPECT_DOUBLE_EQ(profile.draft_ms.At(2), 3);
  EXPECT_DOUBLE_EQ(profile.overhead_ms.At(4), 2);
}

TEST(RoundRecorder, KeepsRepliesApartAndOnlySoMany) {
  RoundRecorder recorder(2);
  const std::vector<float> confidence{0.5f, 0.25f, 0.125f};
  recorder.OnRound({.sequence = 5, .drafted = 2, .accepted = 1, .committed = 2, .confidence = confidence});
  recorder.OnRound({.sequence = 6, .drafted = 0, .accepted = 0, .committed = 1, .confidence = {}});
  recorder.OnRound({.sequence = 7, .drafted = 0, .accepted = 0, .committed = 1, .confidence = {}});
  recorder.OnRound(
      {.sequence = 5, .drafted = 3, .accepted = 0, .committed = 1, .match_length = 9, .confidence = {}});
  const std::vector<RecordedReply> replies = recorder.Take();
  ASSERT_EQ(replies.size(), 2u);
  ASSERT_EQ(replies[0].size(), 2u);
  EXPECT_EQ(replies[0][0].confidence, (std::vector<float>{0.5f, 0.25f}));
  EXPECT_EQ(replies[0][1].match_length, 9);
  EXPECT_EQ(replies[1].size(), 1u);
  EXPECT_TRUE(recorder.Take().empty());
}

class ProfileFile : public testing::Test {
 protected:
  std::string Write(const nlohmann::json& json) {
    const std::string path = dir_.path() + "/p.json";
    std::ofstream(path) << json.dump();
    return path;
  }
  // Of a sound profile in which `key` is `value`.
  std::string ErrorWith(const char* key, const nlohmann::json& value) {
    nlohmann::json json = ToJson(sound_);
    json[key] = value;
    const auto read = ReadProfile(Write(json));
    return read ? "none" : read.error().text;
  }
  TempDir dir_;
  const ServingProfile sound_{.costs = CostTable({{1, 2.0}, {8, 5.0}}, 0.01),
                              .prompt_ms_per_row = 0.5,
                              .draft_ms = {{{1, 1.0}, {4, 2.0}}},
                              .overhead_ms = {{{1, 0.1}}},
                              .logit_rows = 128,
                              .prefill_rows = 64,
                              .replies = {{{2, 1, 3, 2, {}}, {1, 1, 0, 2, {0.5f}}}, {}},
                              .shapes = {{7, 9}}};
};

TEST_F(ProfileFile, ComesBackAsItWas) {
  for (const bool inside : {false, true}) {
    const nlohmann::json json = ToJson(sound_);
    const auto read = ReadProfile(Write(inside ? nlohmann::json{{"profile", json}} : json));
    ASSERT_TRUE(read.ok()) << read.error().text;
    EXPECT_EQ(ToJson(*read), json);
  }
}

TEST_F(ProfileFile, ErrorsSayWhatIsWrong) {
  EXPECT_THAT(ReadProfile(dir_.path() + "/none").error().text, HasSubstr("cannot be read"));
  EXPECT_THAT(ReadProfile(Write(3)).error().text, HasSubstr("not a profile"));
  EXPECT_THAT(ErrorWith("ms_by_rows", nlohmann::json::array()), HasSubstr("ms_by_rows is empty"));
  EXPECT_THAT(ErrorWith("ms_by_rows", {{8, 1.0}, {4, 1.0}}), HasSubstr("by increasing number"));
  EXPECT_THAT(ErrorWith("ms_by_rows", {{1, 0.0}, {4, 1.0}}), HasSubstr("takes no time"));
  EXPECT_THAT(ErrorWith("prompt_ms_per_row", -1), HasSubstr("prompt_ms_per_row"));
  EXPECT_THAT(ErrorWith("logit_rows", 0), HasSubstr("logit_rows is 0"));
  EXPECT_THAT(ErrorWith("draft_ms_by_sequences", "x"), HasSubstr("draft_ms_by_sequences is no list"));
  EXPECT_THAT(ErrorWith("replies", {{{1, 2, 0, 1}}}), HasSubstr("a round is"));  // kept more than drafted
  EXPECT_THAT(ErrorWith("replies", {{{1, 1, 0, 3}}}), HasSubstr("a round is"));
  EXPECT_THAT(ErrorWith("replies", {{{1, 1, 0, 2, {"x"}}}}), HasSubstr("a round is"));
  EXPECT_THAT(ErrorWith("shapes", {{1}}), HasSubstr("a shape is"));
  EXPECT_THAT(ErrorWith("shapes", {{0, 5}}), HasSubstr("a shape is"));
}

}  // namespace
}  // namespace dspark::test
