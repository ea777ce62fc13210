// `dspark prepare regenerate` with the tiny model: what comes out does not depend on batches, order or
// deaths.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <random>

#include "cli.h"
#include "core/clock.h"

namespace dspark::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using Lines = std::vector<std::string>;

class RegenerateCli : public Cli {
 protected:
  void WriteConversations(int n) const {
    std::ofstream file(Path("in.jsonl"));
    for (int i = 0; i < n; ++i) {
      json row{{"id", i}, {"domain", "test"}, {"conversations", json::array()}};
      for (int turn = 0; turn <= i % 3; ++turn) {
        row["conversations"].push_back(
            {{"role", "user"}, {"content", fmt::format("tell me {} of {}", turn, i)}});
        row["conversations"].push_back({{"role", "assistant"}, {"content", "old"}});
      }
      file << row.dump() << "\n";
    }
  }
  std::vector<std::string> Arguments(const std::string& out,
                                     const std::vector<std::string>& more = {}) const {
    std::vector<std::string> arguments{
        "prepare", "regenerate", Path("in.jsonl"), "--out", Path(out), "-m", model_,
        "-n",      "24",         "--seed",         "3"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  Lines Sorted(const std::string& name) const {
    std::istringstream text(ReadFile(Path(name)));
    Lines lines;
    for (std::string line; std::getline(text, line);) lines.push_back(line);
    std::sort(lines.begin(), lines.end());
    return lines;
  }
};

TEST_F(RegenerateCli, RepliesDependNeitherOnTheBatchNorOnThreadsNorOnLookup) {
  WriteConversations(12);
  const Outcome whole = Run(Arguments("a.jsonl"));
  ASSERT_EQ(whole.exit_code, 0) << whole.err;
  EXPECT_THAT(whole.err, HasSubstr("12 conversations, 24 replies"));
  const Lines lines = Sorted("a.jsonl");
  ASSERT_EQ(lines.size(), 12u);
  for (const std::string& line : lines) {
    const json row = json::parse(line);
    EXPECT_EQ(row["status"], "success");
    EXPECT_EQ(row["domain"], "test");
    EXPECT_EQ(row["finish_reasons"].size(), row["conversations"].size() / 2);
    for (const json& message : row["conversations"]) EXPECT_NE(message["content"], "old");
  }
  ASSERT_EQ(Run(Arguments("b.jsonl", {"--batch", "1", "-t", "1"})).exit_code, 0);
  EXPECT_EQ(Sorted("b.jsonl"), lines);
  ASSERT_EQ(Run(Arguments("c.jsonl", {"--batch", "5", "--no-spec", "-t", "3"})).exit_code, 0);
  EXPECT_EQ(Sorted("c.jsonl"), lines);
  const Outcome again = Run(Arguments("a.jsonl"));
  EXPECT_EQ(again.exit_code, 0);
  EXPECT_THAT(again.err, HasSubstr("12 done before"));
  EXPECT_EQ(Sorted("a.jsonl"), lines);
}

TEST_F(RegenerateCli, WhatDoesNotFitIsAnErrorOfItsRow) {
  std::ofstream(Path("in.jsonl"))
      << json{{"id", 1}, {"conversations", {{{"role", "user"}, {"content", std::string(600, 'x')}}}}} << "\n"
      << json{{"id", 2}, {"conversations", {{{"role", "user"}, {"content", "x"}}}}} << "\n";
  const Outcome outcome = Run(Arguments("a.jsonl", {"-c", "128"}));
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_THAT(outcome.err, HasSubstr("a_error.jsonl"));
  EXPECT_EQ(Sorted("a.jsonl").size(), 1u);
  ASSERT_EQ(Sorted("a_error.jsonl").size(), 1u);
  EXPECT_THAT(json::parse(Sorted("a_error.jsonl")[0])["error"], HasSubstr("context holds 128"));
}

TEST_F(RegenerateCli, OneProcessAtATimeAndCtrlCKeepsWhatIsFinished) {
  WriteConversations(400);
  const pid_t child = Start(Arguments("a.jsonl", {"--batch", "2"}), "/dev/null", Path("out"));
  ASSERT_TRUE(WaitUntil([&] { return !Sorted("a.jsonl").empty(); }));
  const pid_t second = Start(Arguments("a.jsonl"), "/dev/null", Path("out"));
  const Outcome refused = Finish(second);
  ExpectOneLine(refused, 1, "another process is writing this file");
  kill(child, SIGINT);
  const Outcome stopped = Finish(child);
  EXPECT_EQ(stopped.exit_code, 130);
  const Lines lines = Sorted("a.jsonl");
  EXPECT_GT(lines.size(), 0u);
  EXPECT_LT(lines.size(), 400u);
  for (const std::string& line : lines) EXPECT_TRUE(json::accept(line)) << line;
}

TEST_F(RegenerateCli, GoesOnWithTheSameSettingsOnly) {
  WriteConversations(4);
  ASSERT_EQ(Run(Arguments("a.jsonl", {"--max-samples", "2"})).exit_code, 0);
  const json kept = json::parse(ReadFile(Path("a_settings.json")));
  EXPECT_EQ(kept["model"], "tiny.gguf");
  EXPECT_EQ(kept["temp"], 0.7);
  EXPECT_EQ(kept["seed"], 3);
  EXPECT_EQ(kept["max-tokens"], 24);
  ExpectOneLine(Run(Arguments("a.jsonl", {"--temp", "0"})), 1, "temp is 0.7 there, 0.0 is wanted");
  ExpectOneLine(Run(Arguments("a.jsonl", {"--weights", "f32"})), 1,
                "weights is \"\" there, \"f32\" is wanted");
  std::filesystem::remove(Path("a_settings.json"));
  const Outcome outcome = Run(Arguments("a.jsonl", {"--batch", "3", "-t", "1", "-c", "200"}));
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_THAT(outcome.err, HasSubstr("a.jsonl: no " + Path("a_settings.json") + " says"));
  EXPECT_EQ(Sorted("a.jsonl").size(), 4u);
  EXPECT_TRUE(std::filesystem::exists(Path("a_settings.json")));
}

TEST_F(RegenerateCli, BadCommandLines) {
  WriteConversations(1);
  ExpectOneLine(Run({"prepare", "regenerate", Path("in.jsonl")}), 2, "--out");
  ExpectOneLine(Run(Arguments("a.jsonl", {"--server", "http://127.0.0.1:9"})), 2, "--");
  ExpectOneLine(Run({"prepare", "regenerate", Path("in.jsonl"), "--out", Path("a.jsonl"), "--server",
                     "http://127.0.0.1:9", "--model-name", "m", "--api-key-env", "DSPARK_NO_SUCH_VARIABLE"}),
                1, "DSPARK_NO_SUCH_VARIABLE");
  ExpectOneLine(Run({"prepare", "regenerate", Path("in.jsonl"), "--out", Path("a.jsonl"), "--server",
                     "http://127.0.0.1:9", "--model-name", "m"}),
                1, "no server answers");
  ExpectOneLine(Run({"prepare"}), 2, "subcommand");
}

// Killed at random moments and started again, until it comes to its end: the same lines as an uninterrupted
// run. DSPARK_KILLS sets how many moments.
TEST_F(RegenerateCli, KilledAtAnyMomentLosesAndDoublesNothing) {
  const char* wanted = std::getenv("DSPARK_KILLS");
  const int kills = wanted ? std::atoi(wanted) : 4;
  WriteConversations(60 * kills);
  const double start = NowMs();
  ASSERT_EQ(Run(Arguments("whole.jsonl")).exit_code, 0);
  const double whole_ms = NowMs() - start;
  const Lines expected = Sorted("whole.jsonl");
  ASSERT_EQ(expected.size(), size_t(60 * kills));

  std::mt19937 random{uint32_t(getpid())};
  std::uniform_real_distribution<double> moment(0, 2 * whole_ms / kills);
  size_t before = 0;
  int in_the_middle = 0;
  for (int i = 0; i < kills; ++i) {
    const pid_t child = Start(Arguments("pieces.jsonl", {"--batch", "8"}), "/dev/null", Path("out"));
    std::this_thread::sleep_for(std::chrono::duration<double, std::milli>(moment(random)));
    kill(child, SIGKILL);
    Finish(child);
    const size_t lines = Sorted("pieces.jsonl").size();
    in_the_middle += lines > before && lines < expected.size();
    before = lines;
  }
  const Outcome last = Run(Arguments("pieces.jsonl"));
  ASSERT_EQ(last.exit_code, 0) << last.err;
  EXPECT_EQ(Sorted("pieces.jsonl"), expected);
  RecordProperty("kills_after_some_lines", in_the_middle);
}

}  // namespace
}  // namespace dspark::test
