// Bad command lines: every flag of every command that takes values, with values that it does not take.
#include <fmt/ranges.h>

#include "cli.h"

namespace dspark::test {
namespace {

struct BadFlags {
  const char* flag;
  std::vector<std::string> values;
};

// Of -m and its friends.
const std::vector<BadFlags> kSession = {{"--ctx", {"8", "2000000", "x", ""}},
                                        {"--threads", {"0", "513", "many", "1.5"}},
                                        {"--weights", {"int3", "INT8"}},
                                        {"--kv", {"f8", ""}},
                                        {"--isa", {"sse", "AVX2"}}};

const std::vector<BadFlags> kPolicy = {
    {"--draft-weights", {"int3", "q4_0"}},
    {"--policy",
     {"sometimes", "fixed", "fixed:99", "fixed:-1", "fixed:4x", "threshold:nan", "cumulative:0", ""}},
    {"--draft-max", {"-1", "16", "x"}},
    {"--accept", {"all", ""}}};

const std::vector<BadFlags> kRun = {
    {"--max-tokens", {"0", "-1", "many", "99999999999"}},
    {"--temp", {"-1", "101", "nan", "inf", "warm"}},
    {"--top-k", {"-1", "1.5", "x"}},
    {"--top-p", {"-0.1", "1.5", "nan"}},
    {"--min-p", {"-0.1", "1.5", "nan"}},
    {"--repeat-penalty", {"0", "101", "nan"}},
    {"--presence-penalty", {"-3", "3", "nan"}},
    {"--frequency-penalty", {"-3", "3", "nan"}},
    {"--logit-bias", {"5", "5:", ":5", "5:1x", "5:1e99", "5:nan", "5:101", "5 1", "-1:5", ""}},
    {"--seed", {"-1", "1.5", "x", "99999999999999999999"}},
    {"--logprobs", {"-1", "65", "x"}},
    {"--raw", {"maybe"}}};

const std::vector<BadFlags> kEval = {{"--max-prompts", {"0", "-1", "x"}},
                                     {"--max-turns", {"0", "-1", "x"}},
                                     {"--max-tokens", {"0", "2000000", "x"}},
                                     {"--temp", {"-1", "101", "nan"}},
                                     {"--seed", {"-1", "x", "99999999999999999999"}},
                                     {"--concurrency", {"0", "257", "x"}},
                                     {"--draft", {"auto", "none", "name=none", "lookup,none", "x.gguf,"}}};

const std::vector<BadFlags> kBench = {{"--rows", {"0", "65", "1,x", ""}},
                                      {"--prefill", {"-1", "513", "x"}},
                                      {"--depth", {"-1", "x"}},
                                      {"--repeat", {"0", "1001", "x"}}};

class CliFlags : public Cli {
 protected:
  // Every value of every flag behind `command` is one line and exit code 2, before any file is opened.
  void ExpectAllBad(const std::vector<std::string>& command, const std::vector<BadFlags>& flags) {
    for (const BadFlags& bad : flags) {
      for (const std::string& value : bad.values) {
        std::vector<std::string> arguments = command;
        arguments.push_back(std::string(bad.flag) + "=" + value);
        SCOPED_TRACE(fmt::format("{}", fmt::join(arguments, " ")));
        ExpectOneLine(Run(arguments), 2, bad.flag);
      }
    }
  }
};

TEST_F(CliFlags, OfRun) {
  const std::vector<std::string> run = {"run", "-m", Path("no.gguf"), "hi"};
  for (const auto& flags : {kSession, kPolicy, kRun}) ExpectAllBad(run, flags);
  ExpectAllBad({"run", "-m", Path("no.gguf")}, {{"--prompt-ids", {"1,x", "1,2,", ",1", "", "1 2"}}});
  for (const std::vector<std::string>& together :
       std::vector<std::vector<std::string>>{{"--logprobs", "2"},
                                             {"--prompt-ids", "1"},
                                             {"--draft-max", "2", "--policy", "fixed:3"},
                                             {"--no-lookup", "-md", "lookup"},
                                             {"--no-lookup", "-md", "lookup,x.gguf"},
                                             {"--draft", "x.gguf,none"},
                                             {"--draft", "auto,x.gguf"},
                                             {"--draft", "lookup,,x.gguf"},
                                             {"--draft", "x.gguf,"},
                                             {"--draft", ""},
                                             {"--draft-weights", "int8"}}) {
    std::vector<std::string> arguments = run;
    arguments.insert(arguments.end(), together.begin(), together.end());
    ExpectOneLine(Run(arguments), 2, together[0]);
  }
}

TEST_F(CliFlags, OfEvalAndCalibrate) {
  const std::vector<std::string> eval = {"eval", "-m", Path("no.gguf"), "--suite", "no.jsonl"};
  const std::vector<std::string> calibrate = {"calibrate", "-m", Path("no.gguf"), "--in", "no.jsonl"};
  for (const auto& command : {eval, calibrate}) {
    std::vector<std::string> with_drafter = command;
    with_drafter.insert(with_drafter.end(), {"-md", "lookup"});
    ExpectAllBad(with_drafter, kSession);
    ExpectAllBad(with_drafter, kEval);
    ExpectOneLine(Run(command), 2, "--draft is required");
  }
  std::vector<std::string> with_drafter = eval;
  with_drafter.insert(with_drafter.end(), {"-md", "lookup"});
  ExpectAllBad(with_drafter, kPolicy);
  ExpectAllBad(with_drafter, {{"--policy", {"off"}}});
  ExpectOneLine(Run({"eval", "-md", "lookup"}), 2, "--suite");
  ExpectOneLine(Run({"calibrate", "-md", "lookup"}), 2, "--in");
}

TEST_F(CliFlags, OfTheOthers) {
  ExpectAllBad({"bench", "-m", Path("no.gguf")}, kSession);
  ExpectAllBad({"bench", "-m", Path("no.gguf")}, kBench);
  ExpectAllBad({"info", Path("no.gguf")}, {{"--ctx", {"8", "x"}}, {"--json", {"maybe"}}});
  ExpectAllBad({"convert", "in", "out.gguf"}, {{"--type", {"int8", "Q8_0", ""}}});
  ExpectOneLine(Run({"convert", "in", "out.gguf", "--type", "bf16"}), 2, "out.gguf: matrices cannot be BF16");
  ExpectOneLine(Run({"convert", "in", "out", "--type", "q8_0"}), 2, "use f32 or bf16");
  ExpectOneLine(Run({"convert", "in"}), 2, "out is required");
  for (const char* command : {"run", "bench", "info", "convert", "eval", "calibrate", "pull"}) {
    ExpectOneLine(Run({command, "--no-such-flag"}), 2, command);
    ExpectOneLine(Run({command, "one", "two", "three"}), 2, command);
  }
}

}  // namespace
}  // namespace dspark::test
