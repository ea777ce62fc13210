// The program as its users meet it: the built binary on the tiny model, standard streams and exit codes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "tiny_model.h"

namespace dspark::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;

struct Outcome {
  int exit_code = -1;
  std::string out, err;
};

std::string ReadFile(const std::string& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

class Cli : public testing::Test {
 protected:
  Cli() : model_(WriteTinyLlamaGguf(dir_.path(), 1)) {}

  // Runs dspark with `input` on its standard input; after `interrupt_ms` ≥ 0 it gets SIGINT.
  Outcome Run(const std::vector<std::string>& arguments, const std::string& input = "",
              int interrupt_ms = -1) {
    const std::string out = dir_.path() + "/out", err = dir_.path() + "/err", in = dir_.path() + "/in";
    std::ofstream(in) << input;
    const pid_t child = fork();
    if (child == 0) {
      setenv("XDG_CACHE_HOME", dir_.path().c_str(), 1);  // no default model, no cost tables of others
      if (!freopen(in.c_str(), "r", stdin) || !freopen(out.c_str(), "w", stdout) ||
          !freopen(err.c_str(), "w", stderr)) {
        _exit(99);
      }
      std::vector<char*> argv{const_cast<char*>("dspark")};
      for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
      argv.push_back(nullptr);
      execv(DSPARK_BINARY, argv.data());
      _exit(98);
    }
    if (interrupt_ms >= 0) {
      std::this_thread::sleep_for(std::chrono::milliseconds(interrupt_ms));
      kill(child, SIGINT);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), ReadFile(out), ReadFile(err)};
  }

  // A failure: its exit code, and exactly one line on stderr that holds `text`.
  void ExpectOneLine(const Outcome& outcome, int exit_code, const std::string& text) {
    EXPECT_EQ(outcome.exit_code, exit_code);
    EXPECT_EQ(outcome.out, "");
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr(text));
  }

  TempDir dir_;
  std::string model_;
};

TEST_F(Cli, RunPrintsTheContractsJson) {
  const Outcome outcome =
      Run({"run", "-m", model_, "-p", "the rain in the", "-n", "24", "--ignore-eos", "--json"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const json reply = json::parse(outcome.out);
  EXPECT_EQ(reply["tokens"].size(), 24u);
  EXPECT_EQ(reply["finish_reason"], "length");
  EXPECT_EQ(reply["usage"]["completion_tokens"], 24);
  EXPECT_GT(reply["usage"]["prompt_tokens"], 4);
  const json& timings = reply["timings"];
  for (const char* key : {"load_ms", "prompt_ms", "decode_ms", "decode_tok_per_s", "rounds", "drafted",
                          "accepted", "tau", "draft_ms", "verify_ms"}) {
    EXPECT_TRUE(timings[key].is_number()) << key;
  }
  EXPECT_EQ(timings["accepted_at"].size(), timings["verified_at"].size());
  EXPECT_EQ(int(timings["rounds"]) + int(timings["accepted"]), 23)
      << "every token but the first came out of a round";
  EXPECT_TRUE(reply["text"].is_string());
}

TEST_F(Cli, SpeculationAndThreadsChangeNothing) {
  const auto tokens = [&](std::vector<std::string> more) {
    std::vector<std::string> arguments{"run",
                                       "-m",
                                       model_,
                                       "--prompt-ids",
                                       "40,41,42,40,41,42,40,41",
                                       "-n",
                                       "40",
                                       "--ignore-eos",
                                       "--json",
                                       "--temp",
                                       "0.8",
                                       "--seed",
                                       "5"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome outcome = Run(arguments);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return json::parse(outcome.out)["tokens"];
  };
  const json plain = tokens({"--no-spec"});
  EXPECT_EQ(plain.size(), 40u);
  EXPECT_EQ(tokens({}), plain);
  EXPECT_EQ(tokens({"-md", "lookup", "--draft-max", "7"}), plain);
  EXPECT_EQ(tokens({"-md", "none", "-t", "1"}), plain);
  EXPECT_EQ(tokens({"-t", "3"}), plain);
}

// The tiny model's layers are Q4_1, its embedding Q8_0.
TEST_F(Cli, WeightsAsAsked) {
  const auto bytes = [&](const std::vector<std::string>& flags) {
    std::vector<std::string> arguments{"bench", "-m", model_, "--json", "--rows", "1", "--prefill", "0"};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    const Outcome outcome = Run(arguments);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return json::parse(outcome.out)["model"]["weight_bytes"].get<size_t>();
  };
  const size_t as_in_file = bytes({});
  EXPECT_EQ(bytes({"--weights", "int4"}), as_in_file);
  EXPECT_LT(as_in_file, bytes({"--weights", "int8"}));
  EXPECT_EQ(bytes({"--weights", "f32"}), 2 * bytes({"--weights", "bf16"}));
  ExpectOneLine(Run({"run", "-m", model_, "hi", "--weights", "int3"}), 1, "--weights int3: unknown");
}

TEST_F(Cli, PromptsComeFromAnywhere) {
  const auto text = [&](const std::vector<std::string>& prompt, const std::string& input) {
    std::vector<std::string> arguments{"run", "-m", model_, "-n", "10", "--ignore-eos", "--json"};
    arguments.insert(arguments.end(), prompt.begin(), prompt.end());
    const Outcome outcome = Run(arguments, input);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return json::parse(outcome.out)["tokens"];
  };
  const json flag = text({"-p", "one two"}, "");
  EXPECT_EQ(text({"one two"}, ""), flag);
  EXPECT_EQ(text({}, "one two"), flag);
  EXPECT_NE(text({"one two", "--raw"}, ""), flag);
  EXPECT_NE(text({"one two", "--system", "Be brief."}, ""), flag);
}

TEST_F(Cli, StreamsTextAndEndsWithOneLineOfStatistics) {
  const Outcome outcome = Run({"run", "-m", model_, "hello", "-n", "12"});
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_FALSE(outcome.out.empty());
  EXPECT_THAT(outcome.err, HasSubstr("tok/s"));
}

TEST_F(Cli, CtrlCEndsCleanly) {
  const Outcome outcome =
      Run({"run", "-m", model_, "hello", "-n", "400000", "-c", "512", "--isa", "reference", "--ignore-eos"},
          "", 150);
  // Whether the signal finds it loading or generating, it ends at once; a reply that is under way is ended in
  // order.
  EXPECT_TRUE(outcome.exit_code == 130 || outcome.exit_code == 0 || outcome.exit_code == 128 + SIGINT)
      << outcome.exit_code;
}

TEST_F(Cli, LogprobsAndBias) {
  const Outcome outcome = Run({"run", "-m", model_, "hi", "-n", "6", "--ignore-eos", "--json", "--logprobs",
                               "2", "--logit-bias", "77:100"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const json reply = json::parse(outcome.out);
  EXPECT_EQ(reply["tokens"], json({77, 77, 77, 77, 77, 77}));
  ASSERT_EQ(reply["logprobs"].size(), 6u);
  EXPECT_LT(reply["logprobs"][0]["logprob"], 0.0);
  EXPECT_EQ(reply["logprobs"][0]["top"].size(), 2u);
}

TEST_F(Cli, AWrongCostTableHeals) {
  const auto run = [&](const char* tokens) {
    ASSERT_EQ(Run({"run", "-m", model_, "hello", "-n", tokens, "--ignore-eos"}).exit_code, 0);
  };
  run("2");  // too short to correct anything
  std::vector<std::string> tables;
  for (const auto& file : std::filesystem::recursive_directory_iterator(dir_.path())) {
    if (file.path().parent_path().filename() == "costs") tables.push_back(file.path().string());
  }
  ASSERT_EQ(tables.size(), 1u);
  // Too cheap: steps correct it, and the correction is kept.
  std::ofstream(tables[0]) << R"({"ms_by_rows": [[1, 1e-5], [8, 2e-5]]})";
  run("200");
  const json healed = json::parse(ReadFile(tables[0]))["ms_by_rows"];
  ASSERT_EQ(healed.size(), 2u);
  EXPECT_GT(healed[0][1], 1.1e-5);
  EXPECT_GT(healed[1][1], 2.2e-5);
  // Much too dear: measured on a busy machine, so it is measured anew.
  std::ofstream(tables[0]) << R"({"ms_by_rows": [[1, 10000.0], [8, 20000.0]]})";
  run("200");
  EXPECT_FALSE(std::filesystem::exists(tables[0]));
  run("2");
  EXPECT_GT(json::parse(ReadFile(tables[0]))["ms_by_rows"].size(), 2u);
}

TEST_F(Cli, AModelWithoutNumbersIsOneLineAndExit1) {
  GgufBuilder broken = BuildTinyLlama(1);
  for (auto& tensor : broken.tensors) {
    if (tensor.name == "blk.1.ffn_down.weight") tensor.data.replace(0, 2, "\xff\x7f");  // a scale: fp16 NaN
  }
  const std::string path = WriteFile(dir_.path() + "/broken.gguf", broken.Build());
  ExpectOneLine(Run({"run", "-m", path, "hi", "--json"}), 1, "broken.gguf: the logits at position");
  ExpectOneLine(Run({"run", "-m", path, "hi", "--temp", "1"}), 1, "are not finite");
}

TEST_F(Cli, InfoAndBench) {
  const Outcome info = Run({"info", model_, "--json"});
  ASSERT_EQ(info.exit_code, 0) << info.err;
  EXPECT_EQ(json::parse(info.out)["model"]["layers"], 2);
  EXPECT_THAT(Run({"info", model_, "--tensors", "--metadata"}).out, HasSubstr("blk.0.attn_q.weight"));
  const Outcome bench =
      Run({"bench", "-m", model_, "--json", "--rows", "1,4", "--prefill", "64", "--repeat", "2"});
  ASSERT_EQ(bench.exit_code, 0) << bench.err;
  const json results = json::parse(bench.out)["results"];
  ASSERT_EQ(results.size(), 3u);
  EXPECT_EQ(results[0]["what"], "decode");
  EXPECT_EQ(results[2]["rows"], 64);
  EXPECT_GT(results[1]["tok_per_s"], 0);
}

TEST_F(Cli, BadCommandLinesAreOneLineAndExit2) {
  ExpectOneLine(Run({"run", "-m", model_, "hi", "--no-such-flag"}), 2, "no-such-flag");
  ExpectOneLine(Run({"run", "-m", model_, "hi", "-n", "many"}), 2, "many");
  ExpectOneLine(Run({"run", "-m", model_, "hi", "-n", "0"}), 2, "--max-tokens");
  ExpectOneLine(Run({"run", "-m", model_, "hi", "--top-p", "1.5"}), 2, "--top-p");
  ExpectOneLine(Run({}), 2, "--help");
  ExpectOneLine(Run({"dance"}), 2, "dance");
}

TEST_F(Cli, BadFilesAndRequestsAreOneLineAndExit1) {
  ExpectOneLine(Run({"run", "-m", dir_.path() + "/none.gguf", "hi"}), 1, "none.gguf");
  ExpectOneLine(Run({"run", "hi"}), 1, "dspark pull");
  std::ofstream(dir_.path() + "/text.gguf") << "this is no model at all, only text";
  ExpectOneLine(Run({"run", "-m", dir_.path() + "/text.gguf", "hi"}), 1, "text.gguf");
  const std::string whole = ReadFile(model_);
  std::ofstream(dir_.path() + "/cut.gguf") << whole.substr(0, whole.size() / 2);
  ExpectOneLine(Run({"run", "-m", dir_.path() + "/cut.gguf", "hi"}), 1, "cut.gguf");
  ExpectOneLine(Run({"run", "-m", model_, "--prompt-ids", "1,x"}), 1, "--prompt-ids");
  ExpectOneLine(Run({"run", "-m", model_, "--prompt-ids", "1,99999"}), 1, "99999");
  ExpectOneLine(Run({"run", "-m", model_, "hi", "-c", "4096"}), 1, "--ctx 4096");
  ExpectOneLine(Run({"run", "-m", model_, "hi", "-md", "magic"}), 1, "magic");
  ExpectOneLine(Run({"run", "-m", model_, "hi", "--logit-bias", "5"}), 1, "--logit-bias");
  ExpectOneLine(Run({"run", "-m", model_}, ""), 1, "standard input");
  ExpectOneLine(Run({"run", "-m", model_, std::string(5000, 'x')}), 1, "context");
  ExpectOneLine(Run({"info", dir_.path()}), 1, dir_.path());
}

TEST_F(Cli, HelpIsThere) {
  const Outcome outcome = Run({"run", "--help"});
  EXPECT_EQ(outcome.exit_code, 0);
  for (const char* word : {"--temp", "--no-spec", "--threads", "--json", "--raw"})
    EXPECT_THAT(outcome.out, HasSubstr(word));
}

}  // namespace
}  // namespace dspark::test
