#include "eval/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "eval/svg.h"
#include "xml_check.h"

namespace dspark::test {
namespace {

using testing::HasSubstr;
using testing::Not;

SuiteResult MakeSuite(const std::string& name, const std::string& domain, int block) {
  SuiteResult s;
  s.suite = name;
  s.domain = domain;
  s.prompts = s.answers = 2;
  for (int r = 0; r < 60; ++r) {
    const int accepted = r % (block + 1);
    s.whole.Add(block, accepted, accepted + 1);
    s.served.Add(1, accepted > 0, 1 + (accepted > 0));
    ConfidenceRound& round = s.confidence.emplace_back();
    round.verified = block;
    round.accepted = accepted;
    round.committed = accepted + 1;
    for (int k = 0; k < block; ++k) round.logits.push_back(float(accepted - k) * 0.5f + 1);
  }
  s.plain = {1000, 500};
  s.speculative = {1000, 250};
  s.ratios = {1.5, 2.5, 2};
  return s;
}

DrafterResult MakeDrafter(const std::string& name, int layers, int block) {
  DrafterResult d{.name = name, .path = "x/" + name, .traits = {}, .suites = {}};
  d.traits = {
      .kind = "DSpark (vanilla)", .layers = layers, .block = block, .confidence = true, .temperatures = {}};
  d.suites = {MakeSuite("gsm8k", "math", block), MakeSuite("alpaca", "chat", block)};
  return d;
}

TEST(Figures, OfASuiteAndTheirMean) {
  const Figures f = FiguresOf(MakeSuite("gsm8k", "math", 4));
  EXPECT_DOUBLE_EQ(f.tau, 3);
  EXPECT_DOUBLE_EQ(f.drafts_per_round, 4);
  EXPECT_DOUBLE_EQ(f.verify_rate, 3.0 / 5);
  EXPECT_DOUBLE_EQ(f.speedup, 2);
  EXPECT_DOUBLE_EQ(f.median_speedup, 2);
  EXPECT_DOUBLE_EQ(f.plain_tok_per_s, 2000);
  EXPECT_DOUBLE_EQ(f.unconditional[3], 0.2);
  EXPECT_DOUBLE_EQ(f.conditional[3], 0.5);
  const Figures nothing = FiguresOf({});
  EXPECT_TRUE(std::isnan(nothing.tau) && std::isnan(nothing.speedup) && std::isnan(nothing.median_speedup));
  const Figures mean = MeanFigures({f, FiguresOf(MakeSuite("x", "y", 2)), nothing});
  EXPECT_DOUBLE_EQ(mean.tau, 2.5);
  ASSERT_EQ(mean.conditional.size(), 4u);
  EXPECT_DOUBLE_EQ(mean.conditional[3], 0.5);
}

TEST(SpeedEvidence, OfGroups) {
  const SpeedEvidence six = EvidenceOf({1.2, 1.1, 1.4, 1.3, 1.01, 2});
  EXPECT_NEAR(six.sign_p, 2.0 / 64, 1e-9);
  EXPECT_TRUE(six.certain());
  EXPECT_EQ(six.groups, 6);
  EXPECT_FALSE(EvidenceOf({1.2, 1.1, 1.4, 1.3, 1.01}).certain()) << "too few groups";
  EXPECT_TRUE(EvidenceOf(std::vector<double>(6, 0.9)).certain()) << "surely slower";
  // 2 (C(8,0) + C(8,1)) / 2^8; a group of equal speed says nothing.
  EXPECT_NEAR(EvidenceOf({2, 2, 2, 2, 2, 2, 2, 0.5, 1}).sign_p, 18.0 / 256, 1e-9);
  EXPECT_EQ(EvidenceOf({0.9, 1.1}).sign_p, 1);
  const SpeedEvidence five = EvidenceOf({5, 1, 4, 2, 3});
  EXPECT_DOUBLE_EQ(five.first_quartile, 2);
  EXPECT_DOUBLE_EQ(five.third_quartile, 4);
  EXPECT_TRUE(std::isnan(EvidenceOf({}).first_quartile) && !EvidenceOf({}).certain());
}

TEST(SpeedEvidence, IsShownWithEverySpeedUp) {
  EvalResults r{.model = "m",
                .machine = "x",
                .policy = "adaptive",
                .accept = "block",
                .drafters = {MakeDrafter("d", 1, 4)}};
  EXPECT_THAT(RenderReport(r), AllOf(HasSubstr("2.00× ?"), HasSubstr("A question mark: ")));
  for (SuiteResult& suite : r.drafters[0].suites) suite.ratios = {2, 2, 2, 2, 1.5, 2.5};
  const std::string html = RenderReport(r);
  EXPECT_THAT(html, AllOf(Not(HasSubstr("× ?")), Not(HasSubstr("question mark"))));
  EXPECT_EQ(XmlError(html), "");
  const nlohmann::json json = ToJson(r);
  EXPECT_EQ(json["drafters"][0]["suites"][0]["speedup_certain"], true);
  EXPECT_EQ(json["drafters"][0]["all"]["speedup_groups"], 12);
}

// Rounds that prompt lookup drafted count for τ and not by position.
TEST(Figures, OfADrafterBesideLookup) {
  DrafterResult d = MakeDrafter("d", 1, 4);
  d.traits.with_lookup = true;
  SuiteResult& suite = d.suites[0];
  const auto own = suite.whole.Conditional();
  for (int i = 0; i < 10; ++i) {
    suite.whole.Add(9, 9, 10);
    suite.whole_lookup.Add(9, 9, 10);
  }
  const Figures f = FiguresOf(suite);
  EXPECT_DOUBLE_EQ(f.tau, (60 * 3 + 10 * 10) / 70.0);
  EXPECT_EQ(f.conditional, own);
  const EvalResults r{.model = "m", .machine = "x", .policy = "adaptive", .accept = "block", .drafters = {d}};
  const nlohmann::json json = ToJson(r)["drafters"][0]["suites"][0];
  EXPECT_EQ(json["whole"]["rounds"], 70);
  EXPECT_EQ(json["whole_lookup"]["rounds"], 10);
  EXPECT_EQ(json["whole_own"]["rounds"], 60);
  EXPECT_THAT(RenderReport(r), HasSubstr("free drafts beside it"));
}

// A round cut before its last kept draft gives one token more than the drafts left.
TEST(SweepThresholds, CutsRecordedRounds) {
  const ConfidenceRound round{.logits = {4, 3, -3, 4}, .verified = 4, .accepted = 3, .committed = 4};
  const auto sweep = SweepThresholds({round, round}, {}, {});
  EXPECT_EQ(sweep.front().threshold, 0);
  EXPECT_EQ(sweep.front().stats.drafted, 8);
  EXPECT_EQ(sweep.front().stats.committed, 8);
  EXPECT_EQ(sweep[10].threshold, 0.5);
  EXPECT_EQ(sweep[10].stats.drafted, 4);
  EXPECT_EQ(sweep[10].stats.committed, 6);
  EXPECT_DOUBLE_EQ(sweep[10].stats.VerifyRate(), 1);
  // Temperatures move what a threshold cuts.
  EXPECT_EQ(SweepThresholds({round}, {}, {1, 1, 100, 1})[9].stats.drafted, 4);
}

// At threshold 0 it is Table 1: rounds without drafts count.
TEST(SweepThresholds, StartsWithAllRounds) {
  const ConfidenceRound round{.logits = {1, 1}, .verified = 2, .accepted = 2, .committed = 3};
  AcceptanceStats without, all;
  without.Add(0, 0, 1);
  all.Add(0, 0, 1);
  all.Add(2, 2, 3);
  const auto sweep = SweepThresholds({round}, without, {});
  EXPECT_DOUBLE_EQ(sweep.front().stats.Tau(), all.Tau());
  EXPECT_DOUBLE_EQ(sweep.front().stats.VerifyRate(), all.VerifyRate());
}

EvalResults MakeResults() {
  EvalResults r{.model = "a <model> & \"more\"",
                .machine = "m",
                .policy = "adaptive",
                .max_tokens = 8,
                .max_turns = 3,
                .accept = "block",
                .seed = 77,
                .drafters = {}};
  r.drafters = {MakeDrafter("two layers", 2, 4), MakeDrafter("five layers", 5, 4), MakeDrafter("long", 2, 8)};
  r.drafters[0].traits.temperatures = {1.5, 1, 1, 0.75};
  return r;
}

TEST(Report, HasAllFiguresForDraftersThatDiffer) {
  const std::string html = RenderReport(MakeResults());
  EXPECT_EQ(XmlError(html), "");
  EXPECT_THAT(html, Not(HasSubstr("Left out")));
  for (const char* text :
       {"Table 1", "Figure 2", "Figure 3", "Figure 4", "Figure 5", "Figure 6", "DSpark (vanilla), block 4",
        "DSpark (vanilla), layers 2", "after temperature scaling", "a &lt;model&gt; &amp; &quot;more&quot;",
        "token for token", "gsm8k (n = 2)", "4 prompts, 4 answers; at most 3 turns",
        "accepted by block as served", "<dd>77</dd>"}) {
    EXPECT_THAT(html, HasSubstr(text));
  }
  for (const char* text : {"nan", "inf\"", "inf ", "http://", "https://", "<script"})
    EXPECT_THAT(html, Not(HasSubstr(text)));
}

TEST(Report, SaysWhatIsMissingAndWhatIsWrong) {
  EvalResults r = MakeResults();
  r.drafters.resize(1);
  r.drafters[0].traits.confidence = false;
  r.drafters[0].suites[0].different = 3;
  const std::string html = RenderReport(r);
  EXPECT_EQ(XmlError(html), "");
  EXPECT_THAT(html, HasSubstr("differ in their number of layers"));
  EXPECT_THAT(html, HasSubstr("differ in their block length"));
  EXPECT_THAT(html, HasSubstr("none of the drafters has a confidence head"));
  EXPECT_THAT(html, HasSubstr("3 greedy answers differ"));
  EXPECT_EQ(XmlError(RenderReport({})), "");
}

TEST(Report, ClaimsNothingWhereNothingWasAnswered) {
  EvalResults r = MakeResults();
  for (DrafterResult& drafter : r.drafters) {
    for (SuiteResult& suite : drafter.suites) suite.answers = 0;
  }
  EXPECT_THAT(RenderReport(r), HasSubstr("nothing was compared"));
  EXPECT_THAT(RenderReport(r), Not(HasSubstr("token for token")));
  EXPECT_TRUE(ToJson(r)["lossless"].is_null());
}

// Figure 2 has a dot for each position that enough rounds reached.
TEST(Report, FewRoundsAreNoPoint) {
  EvalResults r = MakeResults();
  r.drafters = {MakeDrafter("d", 2, 4)};
  r.drafters[0].suites.resize(1);
  const auto dots = [&](int rounds_of_three) {
    r.drafters[0].suites[0].whole = {};
    for (int i = 0; i < 60; ++i) r.drafters[0].suites[0].whole.Add(4, i < rounds_of_three ? 3 : 0, 1);
    const std::string html = RenderReport(r), figure = html.substr(html.find("Figure 2"));
    const std::string chart = figure.substr(figure.find("aria-label"));
    int count = 0;
    for (size_t at = 0, end = chart.find("</svg>"); (at = chart.find("<circle", at)) < end; ++at) ++count;
    return count;
  };
  EXPECT_EQ(dots(int(kFewRounds)), 4);
  EXPECT_EQ(dots(int(kFewRounds) - 1), 1);
}

TEST(Json, HoldsEveryFigureAndNoNan) {
  const nlohmann::json json = nlohmann::json::parse(ToJson(MakeResults()).dump());
  EXPECT_EQ(json["lossless"], true);
  EXPECT_EQ(json["accept"], "block");
  EXPECT_EQ(json["seed"], 77);
  EXPECT_EQ(json["max_turns"], 3);
  EXPECT_EQ(json["prompts"], 4);
  EXPECT_EQ(json["answers"], 4);
  const nlohmann::json& drafter = json["drafters"][0];
  EXPECT_EQ(drafter["suites"][0]["suite"], "gsm8k");
  for (const nlohmann::json* place : {&drafter["suites"][1], &drafter["all"]}) {
    for (const char* key : {"tau", "verify_rate", "speedup", "plain_tok_per_s", "spec_tok_per_s"})
      EXPECT_TRUE((*place)[key].is_number()) << key;
    EXPECT_EQ((*place)["conditional"].size(), 4u);
  }
  const nlohmann::json& confidence = drafter["suites"][0]["confidence"];
  EXPECT_EQ(confidence["before"]["positions"].size(), 4u);
  EXPECT_TRUE(confidence["after"]["mean"]["ece"].is_number());
  EXPECT_FALSE(json["drafters"][1]["suites"][0]["confidence"].contains("after"));
}

TEST(Svg, AxesAndBrokenLines) {
  EXPECT_EQ(AxisFromZero("", 1.3).high, 1.5);
  EXPECT_EQ(AxisFromZero("", 7).high, 8);
  EXPECT_DOUBLE_EQ(AxisFromZero("", 0.25).high, 0.3);
  EXPECT_EQ(WholeTicks(1, 7).size(), 7u);
  EXPECT_LE(WholeTicks(1, 256).size(), 11u);
  LineChart chart{.title = "a & b", .x = {"x", 0, 4, {0, 4}}, .y = {"y", 0, 1, {0, 1}}, .series = {}};
  chart.series.push_back({0, {{0, 0}, {1, 1}, {2, NAN}, {3, 0.5}, {4, 9}}});
  const std::string svg = RenderChart(chart);
  EXPECT_EQ(XmlError(svg), "");
  const std::string path = svg.substr(svg.find("class=\"s0\""));
  EXPECT_EQ(std::count(path.begin(), path.begin() + int(path.find('>')), 'M'), 2);
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
}

TEST(XmlCheck, FindsWhatIsWrong) {
  EXPECT_EQ(XmlError("<!DOCTYPE html><a b=\"1 > 0\"><c/>x &amp; y</a>"), "");
  for (const char* page : {"<a>", "<a></b>", "a & b and more text", "<a", "<a>></a>"}) {
    EXPECT_NE(XmlError(page), "") << page;
  }
}

}  // namespace
}  // namespace dspark::test
