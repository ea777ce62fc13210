// The program as its users meet it: the built binary on the tiny model, standard streams and exit codes.
#include "cli.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

namespace dspark::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;

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
  EXPECT_THAT(outcome.err, HasSubstr("(drafts: lookup)"));
}

// A list flag takes one value each time, verbatim, and leaves the prompt alone.
TEST_F(Cli, RepeatedFlagsTakeOneValueEach) {
  const auto reply = [&](const std::vector<std::string>& more) {
    std::vector<std::string> arguments{"run", "-m", model_,         "--json",
                                       "-n",  "30", "--ignore-eos", "--no-spec"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome outcome = Run(arguments);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return json::parse(outcome.out);
  };
  const auto biased = [](char byte) { return std::to_string(3 + int(byte)) + ":100"; };  // the byte's token
  const json plain = reply({"some text"});
  EXPECT_EQ(reply({"--stop", "END", "some text"})["tokens"], plain["tokens"]);
  EXPECT_EQ(reply({"--logit-bias", "5:0", "some text"})["tokens"], plain["tokens"]);
  for (const std::string stop : {"[[", "]]", "{{", ",,"}) {
    const std::string bias = biased(stop[0]);
    EXPECT_EQ(reply({"--logit-bias", bias, "some text"})["finish_reason"], "length");
    EXPECT_EQ(reply({"--logit-bias", bias, "--stop", stop, "some text"})["finish_reason"], "stop") << stop;
  }
  for (const std::string list : {"[[,[[", "[[[]", "{}"}) {  // no part of which may stop the reply
    EXPECT_EQ(reply({"--logit-bias", biased('['), "--stop", list, "some text"})["finish_reason"], "length");
  }
  const json twice = reply({"--stop", "]]", "--logit-bias", biased('['), "--stop", "[[", "some text"});
  EXPECT_EQ(twice["finish_reason"], "stop");
  EXPECT_EQ(twice["usage"]["prompt_tokens"], plain["usage"]["prompt_tokens"]);
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

TEST_F(Cli, ASampledReplySaysItsSeed) {
  const auto run = [&](std::vector<std::string> more) {
    std::vector<std::string> arguments{"run", "-m", model_, "hi", "-n", "20", "--ignore-eos", "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return json::parse(Run(arguments).out);
  };
  EXPECT_FALSE(run({}).contains("seed")) << "greedy replies have none";
  const json first = run({"--temp", "1"});
  const json again = run({"--temp", "1", "--seed", std::to_string(first["seed"].get<uint64_t>())});
  EXPECT_EQ(first["tokens"], again["tokens"]);
  EXPECT_EQ(first["seed"], again["seed"]);
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
  std::ofstream(tables[0]) << R"({"ms_by_rows": [[1, 1e-5], [8, 2e-5]], "ms_per_row_position": 0})";
  run("200");
  const json healed = json::parse(ReadFile(tables[0]))["ms_by_rows"];
  ASSERT_EQ(healed.size(), 2u);
  EXPECT_GT(healed[0][1], 1.1e-5);
  EXPECT_GT(healed[1][1], 2.2e-5);
  // Much too dear: measured on a busy machine, so it is measured anew.
  std::ofstream(tables[0]) << R"({"ms_by_rows": [[1, 10000.0], [8, 20000.0]], "ms_per_row_position": 0})";
  run("200");
  EXPECT_FALSE(std::filesystem::exists(tables[0]));
  run("2");
  EXPECT_GT(json::parse(ReadFile(tables[0]))["ms_by_rows"].size(), 2u);
}

TEST_F(Cli, AModelWithoutNumbersIsOneLineAndExit1) {
  constexpr std::string_view kNan16 = "\xff\x7f";
  GgufBuilder broken = BuildTinyLlama(1);
  for (auto& tensor : broken.tensors) {
    if (tensor.name == "blk.1.ffn_down.weight") std::ranges::copy(kNan16, tensor.data.begin());  // a scale
  }
  const std::string path = WriteFile(dir_.path() + "/broken.gguf", broken.Build());
  ExpectOneLine(Run({"run", "-m", path, "hi", "--json"}), 1,
                "broken.gguf: tensor blk.1.ffn_down.weight holds NaN");
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

TEST_F(Cli, InfoListsWhatCannotBeRun) {
  GgufBuilder other = BuildTinyLlama(1);
  other.String("general.architecture", "gpt2");
  const std::string path = WriteFile(Path("other.gguf"), other.Build());
  const Outcome text = Run({"info", path});
  EXPECT_EQ(text.exit_code, 0) << text.err;
  for (const char* part : {"gpt2\n", "cannot be run: ", "this build runs llama", "blk.1.ffn_up.weight"}) {
    EXPECT_THAT(text.out, HasSubstr(part));
  }
  const json info = json::parse(Run({"info", path, "--json"}).out);
  EXPECT_THAT(std::string(info["cannot_run"]), HasSubstr("gpt2"));
  EXPECT_EQ(info["tensors"].size(), other.tensors.size());
  EXPECT_FALSE(json::parse(Run({"info", model_, "--json"}).out).contains("cannot_run"));
  ExpectOneLine(Run({"run", "-m", path, "hi"}), 1, "architecture gpt2 is not supported");
}

TEST_F(Cli, MoreContextThanTheModelOrTheMachineHas) {
  for (const char* command : {"run", "info", "bench"}) {
    ExpectOneLine(Run({command, "-m", model_, "-c", "4096"}, "hi"), 1,
                  "--ctx 4096: the model was made for 512");
  }
  const std::string wide = WriteTinyLlamaGguf(Path("wide"), 1,
                                              {.layers = 1,
                                               .d_model = 32,
                                               .heads = 1,
                                               .kv_heads = 1,
                                               .head_dim = 1 << 16,
                                               .d_ffn = 32,
                                               .max_context = 1 << 20});
  const Outcome run = Run({"run", "-m", wide, "-c", "1048576", "hi"});
  ExpectOneLine(run, 1, "K/V 274.9 GB");
  EXPECT_THAT(run.err, AllOf(HasSubstr("needed at context 1048576 (weights"), HasSubstr("; use --ctx ")));
  const json plan = json::parse(Run({"info", wide, "-c", "1048576", "--json"}).out)["memory"];
  EXPECT_NEAR(plan["kv_mb"], 274878, 1);
  EXPECT_GT(plan["workspace_mb"], 274878) << "the rope table alone";
}

TEST_F(Cli, WeightsThatAreNoNumbers) {
  GgufBuilder damaged = BuildTinyLlama(1);
  std::string& bytes = damaged.TensorNamed("blk.1.ffn_up.weight").data;
  bytes.replace(bytes.size() - 20, 2, "\xff\x7f");  // the last block's scale
  const std::string path = WriteFile(Path("nan.gguf"), damaged.Build());
  ExpectOneLine(Run({"run", "-m", path, "hi"}), 1, "nan.gguf: tensor blk.1.ffn_up.weight holds NaN");

  damaged = BuildTinyLlama(1);
  damaged.TensorNamed("blk.0.attn_norm.weight").data.replace(0, 4, "\x00\x00\x80\x7f", 4);
  WriteFile(path, damaged.Build());
  ExpectOneLine(Run({"run", "-m", path, "hi"}), 1, "tensor blk.0.attn_norm.weight holds NaN or infinity");
}

TEST_F(Cli, ModelsByName) {
  ExpectOneLine(Run({"run", "-m", "smollm2-135m", "hi"}), 1, "dspark pull");
  ExpectOneLine(Run({"run", "-m", "smollm3", "hi"}), 1, "smollm3: no such file or directory");
  ExpectOneLine(Run({"info", "smollm3"}), 1, "known by name: smollm2-135m");
  EXPECT_THAT(Run({"run", "--help"}).out, HasSubstr("smollm2-135m"));
}

TEST_F(Cli, BadCommandLinesAreOneLineAndExit2) {
  ExpectOneLine(Run({"run", "-m", model_, "hi", "--no-such-flag"}), 2, "no-such-flag");
  ExpectOneLine(Run({"run", "-m", model_, "hi", "-n", "many"}), 2, "many");
  ExpectOneLine(Run({"run", "-m", model_, "hi", "-n", "0"}), 2, "--max-tokens");
  ExpectOneLine(Run({"run", "-m", model_, "hi", "--top-p", "1.5"}), 2, "--top-p");
  for (const char* flag : {"--temp", "--top-p", "--min-p", "--repeat-penalty", "--presence-penalty"}) {
    ExpectOneLine(Run({"run", "-m", model_, "hi", flag, "nan"}), 2, std::string(flag) + ": nan");
  }
  ExpectOneLine(Run({"run", "-m", model_, "hi", "--prompt-ids", "1"}), 2, "--prompt-ids");
  ExpectOneLine(Run({"run", "-m", model_, "hi", "--logprobs", "2"}), 2, "--json");
  ExpectOneLine(Run({"run", "-m", model_, "hi", "--draft-max", "2", "--policy", "fixed:3"}), 2, "--policy");
  ExpectOneLine(Run({"run", "-m", model_, "two", "prompts"}), 2, "");
  ExpectOneLine(Run({}), 2, "--help");
  ExpectOneLine(Run({"dance"}), 2, "dance");
  ExpectOneLine(Run({"info", "model", "--one", "--two"}), 2, "dspark info: does not expect --one --two");
}

TEST_F(Cli, BadFilesAndRequestsAreOneLineAndExit1) {
  ExpectOneLine(Run({"run", "-m", dir_.path() + "/none.gguf", "hi"}), 1, "none.gguf");
  ExpectOneLine(Run({"run", "hi"}), 1, "dspark pull");
  std::ofstream(dir_.path() + "/text.gguf") << "this is no model at all, only text";
  ExpectOneLine(Run({"run", "-m", dir_.path() + "/text.gguf", "hi"}), 1, "text.gguf");
  const std::string whole = ReadFile(model_);
  std::ofstream(dir_.path() + "/cut.gguf") << whole.substr(0, whole.size() / 2);
  ExpectOneLine(Run({"run", "-m", dir_.path() + "/cut.gguf", "hi"}), 1, "cut.gguf");
  ExpectOneLine(Run({"run", "-m", model_, "--prompt-ids", "1,99999"}), 1, "99999");
  ExpectOneLine(Run({"run", "-m", model_, "hi", "-md", "magic"}), 1, "magic");
  ExpectOneLine(Run({"run", "-m", model_, "hi", "--logit-bias", "99999:1"}), 1, "99999");
  ExpectOneLine(Run({"run", "-m", model_}, ""), 1, "standard input");
  ExpectOneLine(Run({"run", "-m", model_, ""}, "piped"), 1, "the prompt is empty");
  ExpectOneLine(Run({"run", "-m", model_, std::string(5000, 'x')}), 1, "context");
  ExpectOneLine(Run({"info", dir_.path()}), 1, dir_.path());
}

TEST_F(Cli, HelpIsThere) {
  const Outcome outcome = Run({"run", "--help"});
  EXPECT_EQ(outcome.exit_code, 0);
  for (const char* word : {"--temp", "--no-spec", "--threads", "--json", "--raw"})
    EXPECT_THAT(outcome.out, HasSubstr(word));
}

// train's help is dspark-train's own.
TEST_F(Cli, HelpOfEveryCommandHasExamples) {
  for (const std::string command :
       {"run", "serve", "bench", "bench serve", "simulate", "info", "convert", "prepare", "prepare split",
        "prepare regenerate", "prepare cache", "eval", "calibrate", "pull"}) {
    std::vector<std::string> arguments;
    std::istringstream words(command);
    for (std::string word; words >> word;) arguments.push_back(word);
    arguments.push_back("--help");
    const Outcome outcome = Run(arguments);
    EXPECT_EQ(outcome.exit_code, 0) << command;
    EXPECT_THAT(outcome.out, HasSubstr("\nExamples:\n  dspark " + command)) << command;
  }
}

}  // namespace
}  // namespace dspark::test
