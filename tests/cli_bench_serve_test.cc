// `dspark bench serve` and `dspark simulate` on the tiny model, as a user starts them.
#include <filesystem>
#include <nlohmann/json.hpp>

#include "cli.h"
#include "xml_check.h"

namespace dspark::test {
namespace {

using testing::ContainsRegex, testing::HasSubstr;

class CliBenchServe : public Cli {
 protected:
  CliBenchServe() {
    std::ofstream(Path("p.jsonl")) << "{\"turns\": [\"say the same the same the same\"]}\n"
                                      "{\"turns\": [\"another\"]}\n{\"turns\": [\"one more\"]}\n";
  }
  std::vector<std::string> Bench(std::vector<std::string> more) const {
    std::vector<std::string> all{"bench",   "serve",         "-m", model_, "-t",          "1", "-c", "128",
                                 "--suite", Path("p.jsonl"), "-n", "12",   "--ignore-eos"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  nlohmann::json Json(const std::string& name) const {
    return nlohmann::json::parse(ReadFile(Path(name)), nullptr, false);
  }
};

TEST_F(CliBenchServe, MeasuresPoliciesAndSimulatesThem) {
  const Outcome bench =
      Run(Bench({"--concurrency", "1,3", "--policies", "adaptive,off,fixed:4", "--requests", "6", "--repeat",
                 "2", "--json", Path("b.json"), "--html", Path("b.html")}));
  ASSERT_EQ(bench.exit_code, 0) << bench.err;
  EXPECT_EQ(XmlError(ReadFile(Path("b.html"))), "");
  const nlohmann::json json = Json("b.json");
  ASSERT_EQ(json["points"].size(), 6u);
  for (const auto& point : json["points"]) {
    EXPECT_GT(point["tok_per_s"], 0) << point;
    EXPECT_EQ(point["tok_per_s_runs"].size(), 2u);
    EXPECT_EQ(point["errors"], 0);
    EXPECT_GE(point["rows_per_step"], 1);
    EXPECT_GT(point["scheduling_share"], 0);
    EXPECT_LT(point["scheduling_share"], 1);
    if (point["policy"] == "off") {
      EXPECT_EQ(point["verify_length"], 0);
    }
  }
  EXPECT_THAT(ReadFile(Path("b.html")), ContainsRegex("<title>A server under load: .* with lookup</title>"));
  EXPECT_FALSE(json["profile"]["replies"].empty());
  EXPECT_FALSE(json["profile"]["ms_by_rows"].empty());

  const Outcome simulated =
      Run({"simulate", "--profile", Path("b.json"), "--policies", "adaptive,off", "--concurrency", "1,4",
           "--sla", "0.01,1000000", "--max-users", "8", "--json", Path("s.json"), "--html", Path("s.html")});
  ASSERT_EQ(simulated.exit_code, 0) << simulated.err;
  EXPECT_EQ(XmlError(ReadFile(Path("s.html"))), "");
  EXPECT_THAT(ReadFile(Path("s.html")), ContainsRegex("under load, simulated: .* with lookup</title>"));
  const nlohmann::json plan = Json("s.json");
  EXPECT_EQ(plan["points"].size(), 4u);
  EXPECT_EQ(plan["capacity"][0]["users"], 8);
  EXPECT_EQ(plan["capacity"][2]["users"], 0);
  EXPECT_THAT(simulated.out, HasSubstr("8 or more"));
}

TEST_F(CliBenchServe, OpenLoadsAndTraces) {
  std::ofstream(Path("t.csv")) << "at_s,prompt_tokens,max_tokens\n0,20,3\n0.05,5,4\n0.1,9,5\n";
  const Outcome trace = Run(Bench({"--trace", Path("t.csv"), "--policies", "off", "--parallel", "2",
                                   "--no-warm-up", "--json", Path("b.json")}));
  ASSERT_EQ(trace.exit_code, 0) << trace.err;
  const nlohmann::json json = Json("b.json");
  EXPECT_EQ(json["points"][0]["replies"], 3);
  EXPECT_EQ(json["points"][0]["cut"], 0);
  EXPECT_GT(json["points"][0]["requests_per_s"], 0);
  // Three tokens, four and five.
  nlohmann::json tokens = nlohmann::json::array();
  for (const auto& shape : json["profile"]["shapes"]) tokens.push_back(shape[1]);
  std::sort(tokens.begin(), tokens.end());
  EXPECT_EQ(tokens, (nlohmann::json{3, 4, 5}));
  const Outcome rate =
      Run(Bench({"--rate", "40", "--seconds", "0.5", "--policies", "adaptive", "--parallel", "2"}));
  EXPECT_EQ(rate.exit_code, 0) << rate.err;
}

TEST_F(CliBenchServe, MistakesAreOneLine) {
  ExpectOneLine(Run({"bench", "serve", "-m", model_}), 2, "no prompts to ask");
  ExpectOneLine(Run(Bench({"--policies", "best"})), 1, "--policies: best is unknown");
  ExpectOneLine(Run(Bench({"--policies", "off,off"})), 1, "stands there twice");
  ExpectOneLine(Run(Bench({"--concurrency", "0"})), 2, "--concurrency");
  ExpectOneLine(Run(Bench({"--rate", "1", "--concurrency", "2"})), 2, "excludes");
  ExpectOneLine(Run(Bench({"--trace", Path("none")})), 1, "cannot be read");
  ExpectOneLine(Run(Bench({"--url", "nowhere"})), 1, "--url nowhere: not a URL");
  ExpectOneLine(Run(Bench({"--url", "http://127.0.0.1:1"})), 1, "start the server first");
  ExpectOneLine(Run(Bench({"--json", Path("x"), "--html", Path("x")})), 1, "one file for both");
  ExpectOneLine(Run({"simulate"}), 2, "--profile");
  ExpectOneLine(Run({"simulate", "--profile", Path("p.jsonl")}), 1, "not a profile");
  std::ofstream(Path("profile.json"))
      << R"({"ms_by_rows":[[1,2]],"ms_per_row_position":0,"prompt_ms_per_row":0,"draft_ms_by_sequences":[],)"
      << R"("overhead_ms_by_sequences":[],"logit_rows":8,"prefill_rows":8,"replies":[],"shapes":[]})";
  ExpectOneLine(Run({"simulate", "--profile", Path("profile.json")}), 1, "no rounds were recorded");
}

// A server elsewhere is only asked over HTTP.
TEST_F(CliBenchServe, DrivesARunningServer) {
  const pid_t server =
      Start({"serve", "-m", model_, "-t", "1", "-c", "128", "--parallel", "2", "--port", "0"}, "/dev/null",
            Path("url"));
  ASSERT_TRUE(WaitUntil([&] { return ReadFile(Path("url")).ends_with("\n"); }));
  std::string url = ReadFile(Path("url"));
  url.pop_back();
  const Outcome outcome =
      Run(Bench({"--url", url, "--concurrency", "2", "--requests", "6", "--json", Path("b.json")}));
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  const nlohmann::json json = Json("b.json");
  EXPECT_GT(json["points"][0]["tok_per_s"], 0);
  EXPECT_TRUE(json["points"][0]["verify_length"].is_null());
  kill(server, SIGTERM);
  int status = 0;
  EXPECT_TRUE(WaitUntil([&] { return waitpid(server, &status, WNOHANG) == server; }));
}

}  // namespace
}  // namespace dspark::test
