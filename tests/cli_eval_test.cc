// dspark eval and dspark calibrate from end to end, on a tiny target and a random drafter.
#include <nlohmann/json.hpp>

#include "cli.h"
#include "tiny_drafter.h"
#include "xml_check.h"

namespace dspark::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;

class CliEval : public Cli {
 protected:
  CliEval() {
    TinyLlama shape;
    shape.layers = 10;
    std::filesystem::create_directories(Path("target"));
    target_ = WriteTinyLlamaGguf(Path("target"), 1, shape);
    dspark_ = DeepSpecDirectory(DrafterKind::kBlock).Write(Path("dspark"));
    WriteFile(Path("suites/gsm8k.jsonl"),
              "{\"turns\": [\"the the the the\", \"and again\"]}\n{\"turns\": [\"on and on and on\"]}\n"
              "{\"turns\": [\"one two\"]}\n");
    WriteFile(Path("suites/own.jsonl"),
              "{\"messages\": [{\"role\": \"system\", \"content\": \"s\"}, {\"role\": \"user\", \"content\": "
              "\"in a tin\"}]}\n");
  }
  Outcome Eval(std::vector<std::string> more) {
    std::vector<std::string> arguments{"eval", "-m", target_, "-n", "24", "-t", "1"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return Run(arguments);
  }
  std::string target_, dspark_;
};

// Every number is one (JSON knows no others), and what must be defined is no null.
void ExpectFigures(const json& figures) {
  for (const char* key : {"tau", "verify_rate", "drafts_per_round", "served_tau", "speedup",
                          "plain_tok_per_s", "spec_tok_per_s"}) {
    EXPECT_TRUE(figures[key].is_number()) << key << " " << figures;
  }
  EXPECT_TRUE(figures["conditional"].is_array() && figures["unconditional"].is_array());
}

TEST_F(CliEval, ReportsEverySuiteOfEveryDrafter) {
  const Outcome outcome =
      Eval({"--suites", Path("suites"), "-md", "lookup", "-md", "mine=" + dspark_, "--max-prompts", "2",
            "--json", Path("out.json"), "--html", Path("out.html")});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("token for token"));
  const json report = json::parse(ReadFile(Path("out.json")));
  EXPECT_EQ(report["lossless"], true);
  EXPECT_EQ(report["accept"], "block");
  EXPECT_EQ(report["seed"], 980406);
  EXPECT_EQ(report["prompts"], 3);
  EXPECT_EQ(report["answers"], 3);  // the subsample leaves out the prompt of two turns
  ASSERT_EQ(report["drafters"].size(), 2u);
  EXPECT_EQ(report["drafters"][0]["kind"], "prompt lookup");
  EXPECT_EQ(report["drafters"][1]["name"], "mine");
  EXPECT_EQ(report["drafters"][1]["kind"], "DSpark (vanilla)");
  for (const json& drafter : report["drafters"]) {
    ASSERT_EQ(drafter["suites"].size(), 2u);
    EXPECT_EQ(drafter["suites"][0]["suite"], "gsm8k");
    EXPECT_EQ(drafter["suites"][0]["domain"], "math");
    EXPECT_EQ(drafter["suites"][0]["prompts"], 2);
    EXPECT_EQ(drafter["suites"][1]["domain"], "own");
    for (const json& suite : drafter["suites"]) ExpectFigures(suite);
    ExpectFigures(drafter["all"]);
  }
  const json& suite = report["drafters"][1]["suites"][0];
  EXPECT_EQ(suite["whole"]["verified_at"].size(), 5u);
  EXPECT_EQ(suite["confidence"]["before"]["positions"].size(), 5u);
  EXPECT_EQ(suite["threshold_sweep"].size(), 20u);
  const std::string html = ReadFile(Path("out.html"));
  EXPECT_EQ(XmlError(html), "");
  EXPECT_THAT(html, HasSubstr(" with lookup, mine</title>"));
  EXPECT_THAT(html, testing::Not(HasSubstr("nan")));
}

TEST_F(CliEval, PoliciesConcurrencyAndTemperature) {
  for (const char* policy : {"fixed:5", "threshold:0.5", "cumulative:0.3"}) {
    const Outcome outcome = Eval({"--suite", Path("suites/gsm8k.jsonl"), "-md", dspark_, "--policy", policy,
                                  "--concurrency", "3", "--max-turns", "1"});
    EXPECT_EQ(outcome.exit_code, 0) << policy << outcome.err;
    EXPECT_THAT(outcome.out, HasSubstr("token for token")) << policy;
  }
  const Outcome sampled = Eval({"--suite", Path("suites/own.jsonl"), "-md", dspark_, "--temp", "0.8"});
  EXPECT_EQ(sampled.exit_code, 0) << sampled.err;
  EXPECT_THAT(sampled.out, testing::Not(HasSubstr("token for token")));
}

TEST_F(CliEval, CalibrateStoresTemperaturesThatEvalShows) {
  // Hot, so that a random drafter is kept now and then.
  std::vector<std::string> arguments{"calibrate",
                                     "--temp",
                                     "3",
                                     "-m",
                                     target_,
                                     "-md",
                                     dspark_,
                                     "--in",
                                     Path("suites/gsm8k.jsonl"),
                                     "-n",
                                     "48",
                                     "--json",
                                     "--concurrency",
                                     "2",
                                     "-t",
                                     "1"};
  const std::string before = ReadFile(dspark_ + "/config.json");
  arguments.push_back("--dry-run");
  ASSERT_EQ(Run(arguments).exit_code, 0);
  EXPECT_EQ(ReadFile(dspark_ + "/config.json"), before);
  arguments.pop_back();
  const Outcome outcome = Run(arguments);
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const json found = json::parse(outcome.out);
  EXPECT_EQ(found["before"]["positions"].size(), 5u);
  EXPECT_LE(found["after"]["positions"][0]["ece"], found["before"]["positions"][0]["ece"]);
  const json config = json::parse(ReadFile(dspark_ + "/config.json"));
  EXPECT_EQ(config["confidence_temperatures"], found["temperatures"]);
  // Once more: what is stored has no say in what is found.
  EXPECT_EQ(json::parse(Run(arguments).out)["temperatures"], found["temperatures"]);
  ASSERT_EQ(Eval({"--suite", Path("suites/own.jsonl"), "-md", dspark_, "--json", Path("out.json")}).exit_code,
            0);
  const json report = json::parse(ReadFile(Path("out.json")));
  EXPECT_TRUE(report["drafters"][0]["suites"][0]["confidence"].contains("after"));
}

TEST_F(CliEval, LookupBesideADrafterIsCountedApart) {
  const Outcome outcome =
      Run({"eval", "-m", target_, "-t", "1", "-n", "96", "--suite", Path("suites/gsm8k.jsonl"), "-md",
           dspark_, "--lookup", "--json", Path("out.json")});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const json drafter = json::parse(ReadFile(Path("out.json")))["drafters"][0], suite = drafter["suites"][0];
  EXPECT_EQ(drafter["with_lookup"], true);
  EXPECT_EQ(drafter["block"], 5);
  EXPECT_GT(suite["whole_lookup"]["rounds"], 0);
  EXPECT_GT(suite["whole_own"]["rounds"], 0);
  EXPECT_EQ(suite["whole_lookup"]["rounds"].get<int>() + suite["whole_own"]["rounds"].get<int>(),
            suite["whole"]["rounds"]);
  EXPECT_LE(suite["conditional"].size(), 5u);
}

TEST_F(CliEval, ProgressIsWholeLinesInAFile) {
  const Outcome outcome = Eval({"--suite", Path("suites/gsm8k.jsonl"), "-md", "lookup"});
  EXPECT_EQ(outcome.err, "gsm8k: 3 of 3 prompts\n");
}

// A random drafter is kept so rarely late in a block that only the first positions can be calibrated.
TEST_F(CliEval, CalibrateSaysWherePositionsStayAsTheyAre) {
  const Outcome outcome = Run({"calibrate", "--temp", "3", "-m", target_, "-md", dspark_, "--in",
                               Path("suites/gsm8k.jsonl"), "-n", "48", "--json", "--dry-run", "-t", "1"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const json temperatures = json::parse(outcome.out)["temperatures"];
  EXPECT_NE(temperatures[0], 1);
  EXPECT_EQ(temperatures[4], 1);
  EXPECT_THAT(outcome.err, testing::ContainsRegex("T stays 1 at position .*5: it takes 50 rounds"));
}

TEST_F(CliEval, QuestionMarksAreExplainedWhereTheyAre) {
  std::string prompts;
  for (int i = 0; i < 12; ++i) prompts += fmt::format("{{\"turns\": [\"{} and on\"]}}\n", i);
  WriteFile(Path("many.jsonl"), prompts);
  for (const char* suite : {"suites/own.jsonl", "many.jsonl"}) {
    const Outcome outcome = Eval({"--suite", Path(suite), "-md", dspark_, "--policy", "fixed:5"});
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
    const bool marked = outcome.out.find("?\n") != std::string::npos;
    EXPECT_EQ(marked, outcome.out.find("?: may be noise") != std::string::npos) << outcome.out;
    std::istringstream rows(outcome.out);
    for (std::string row; std::getline(rows, row);) {  // the speed-up and its median
      if (!row.ends_with('?')) continue;
      EXPECT_THAT(row, testing::ContainsRegex("[0-9]\\? +[0-9.]+\\?$"));
    }
    EXPECT_TRUE(marked || suite != std::string("suites/own.jsonl")) << "one group proves nothing";
  }
}

TEST_F(CliEval, WhatDoesNotFitIsOneLine) {
  const std::string suite = Path("suites/own.jsonl");
  ExpectOneLine(Eval({"-md", dspark_}), 2, "give --suite FILE or --suites DIR");
  ExpectOneLine(Eval({"-md", dspark_, "--suite", Path("none.jsonl")}), 1, "none.jsonl: cannot open");
  ExpectOneLine(Eval({"-md", Path("nowhere"), "--suite", suite}), 1, "nowhere: no such file");
  ExpectOneLine(Eval({"-md", "auto", "--suite", suite}), 2, "nothing to measure");
  ExpectOneLine(Eval({"-md", dspark_, "-md", dspark_, "--suite", suite}), 2,
                "another drafter is called dspark");
  ExpectOneLine(Eval({"-md", dspark_, "--suite", suite, "--policy", "off"}), 2, "--policy off");
  ExpectOneLine(Eval({"-md", dspark_, "--suite", suite, "--html", Path("none/r.html")}), 1, "none/r.html");
  ExpectOneLine(Eval({"-md", dspark_, "--suite", suite, "--html", Path("r"), "--json", Path("x/../r")}), 2,
                "one file for both");
  const Outcome nothing = Eval({"-md", dspark_, "--suite", suite, "-c", "16", "--json", Path("none.json")});
  EXPECT_EQ(nothing.exit_code, 1);
  EXPECT_THAT(nothing.err, HasSubstr("none of the 1 prompts fits into 16 tokens"));
  EXPECT_THAT(nothing.out, testing::Not(HasSubstr("token for token")));
  EXPECT_TRUE(json::parse(ReadFile(Path("none.json")))["lossless"].is_null());
  ExpectOneLine(Eval({"--suite", suite}), 2, "--draft is required");
  const auto calibrate = [&](const std::string& drafter) {
    return Run({"calibrate", "-m", target_, "-md", drafter, "--in", suite, "-n", "4"});
  };
  ExpectOneLine(calibrate("lookup"), 1, "has no confidence head");
  ExpectOneLine(Run({"calibrate", "-md", "a", "-md", "b", "--in", suite}), 2, "one drafter");
  EXPECT_THAT(calibrate(dspark_).err, HasSubstr("rounds are too few"));
}

}  // namespace
}  // namespace dspark::test
