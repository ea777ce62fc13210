// dspark prepare split and cache as users meet them, on the tiny model.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli.h"

namespace dspark::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;

class CliPrepare : public Cli {
 protected:
  CliPrepare() {
    std::ofstream rows(Path("rows.jsonl"));
    for (int i = 0; i < 40; ++i) {
      rows << R"({"conversations":[{"from":"human","value":"Which row?"},{"from":"gpt","value":"It is row )"
           << i << " of them.\"}]}\n";
    }
    rows << "no row\n";
  }
};

TEST_F(CliPrepare, FromConversationsToACache) {
  const Outcome split =
      Run({"prepare", "split", Path("rows.jsonl"), "--out", Path("data"), "--held-out", "0.25"});
  ASSERT_EQ(split.exit_code, 0) << split.err;
  EXPECT_THAT(split.err, HasSubstr("rows.jsonl:41: not JSON"));
  EXPECT_THAT(split.out, HasSubstr("train.jsonl: 3"));  // thirty-odd of 40
  ExpectOneLine(Run({"prepare", "split", Path("rows.jsonl"), "--out", Path("data")}), 1, "--force");

  std::vector<std::string> cache = {
      "prepare", "cache",         "-m",     model_,       Path("data/train.jsonl"),
      "--out",   Path("cache/"),  "--taps", "0",          "--max-length",
      "160",     "--target-name", "tiny",   "--template", "qwen"};
  const Outcome made = Run(cache);
  ASSERT_EQ(made.exit_code, 0) << made.err;
  const json manifest = json::parse(ReadFile(Path("cache/manifest.json")));
  EXPECT_EQ(manifest["target_layer_ids"], json({0}));
  EXPECT_EQ(manifest["target_model_name_or_path"], "tiny");
  EXPECT_EQ(manifest["chat_template"], "qwen");
  EXPECT_EQ(manifest["max_length"], 160);
  EXPECT_THAT(made.out, HasSubstr(manifest["num_samples"].dump() + " samples"));
  EXPECT_THAT(Run(cache).out, HasSubstr("holds a whole cache already"));
  std::vector<std::string> other = cache;
  *std::ranges::find(other, "160") = "150";
  ExpectOneLine(Run(other), 1, "made with other settings: max_length is 160 there, 150 is wanted");
  other = cache;
  other.push_back("--compact");
  ExpectOneLine(Run(other), 1, "made with other settings");
  for (const std::vector<std::string>& flag : std::vector<std::vector<std::string>>{
           {"--system", "be brief"}, {"--kv", "f32"}, {"--weights", "int8"}}) {
    other = cache;
    other.insert(other.end(), flag.begin(), flag.end());
    ExpectOneLine(Run(other), 1, "made from other inputs, or by another model");
  }
  const std::string rows = ReadFile(Path("data/train.jsonl"));
  WriteFile(Path("data/train.jsonl"), rows.substr(rows.find('\n') + 1));
  ExpectOneLine(Run(cache), 1, "made from other inputs");
  WriteFile(Path("data/train.jsonl"), rows);
  const std::string index = ReadFile(Path("cache/samples.idx"));
  cache.insert(cache.end(), {"--force", "--compact"});
  ASSERT_EQ(Run(cache).exit_code, 0);
  EXPECT_EQ(ReadFile(Path("cache/samples.idx")).size() * 56, index.size() * 24);
  EXPECT_EQ(json::parse(ReadFile(Path("cache/manifest.json")))["teacher_top_k"], 64);
  cache.insert(cache.end(), {"--teacher-top-k", "5"});
  EXPECT_THAT(Run(cache).out, HasSubstr("teacher: the 5 likeliest tokens; in the "));
  EXPECT_EQ(json::parse(ReadFile(Path("cache/manifest.json")))["teacher_top_k"], 5);
  cache.back() = "0";
  EXPECT_THAT(Run(cache).out, testing::Not(HasSubstr("teacher:")));
}

TEST_F(CliPrepare, WhatCannotBeDoneIsOneLine) {
  const auto cache = [&](std::vector<std::string> more) {
    std::vector<std::string> arguments = {"prepare", "cache", "-m", model_, "--out", Path("cache")};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return Run(arguments);
  };
  ExpectOneLine(cache({Path("nothing.jsonl")}), 1, "No such file");
  ExpectOneLine(cache({Path("rows.jsonl"), "--taps", "1"}), 1, "--taps 1: expected auto, or layers");
  ExpectOneLine(cache({Path("rows.jsonl"), "--template", "llama"}), 2,
                "--template: llama not in {model,qwen}");
  ExpectOneLine(cache({Path("rows.jsonl"), "--max-length", "100000"}), 1, "100000");
  ExpectOneLine(cache({Path("rows.jsonl"), "--teacher-top-k", "8"}), 2, "--compact");
  ExpectOneLine(cache({Path("rows.jsonl"), "--compact", "--teacher-top-k", "2000"}), 2, "--teacher-top-k");
  ExpectOneLine(cache({Path("rows.jsonl"), "--min-loss-tokens", "500"}), 1,
                "no row has 500 supervised tokens");
  WriteFile(Path("foreign/manifest.json"), "{}");
  ExpectOneLine(
      Run({"prepare", "cache", "-m", model_, "--out", Path("foreign"), Path("rows.jsonl"), "--force"}), 1,
      "manifest.json is not of a cache begun here; give another --out");
  EXPECT_EQ(ReadFile(Path("foreign/manifest.json")), "{}");
  ExpectOneLine(Run({"prepare"}), 2, "dspark prepare --help");
}

}  // namespace
}  // namespace dspark::test
