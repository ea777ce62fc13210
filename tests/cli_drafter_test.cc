// Drafters as users meet them: run -md, info, convert, on a tiny target.
#include <nlohmann/json.hpp>

#include "cli.h"
#include "tiny_drafter.h"

namespace dspark::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;

class CliDrafter : public Cli {
 protected:
  CliDrafter() {
    TinyLlama shape;
    shape.layers = 10;
    std::filesystem::create_directories(Path("target"));
    target_ = WriteTinyLlamaGguf(Path("target"), 1, shape);
    dspark_ = DeepSpecDirectory(DrafterKind::kBlock).Write(Path("dspark"));
  }

  json Reply(std::vector<std::string> more) {
    std::vector<std::string> arguments{"run", "-m", target_,  "--prompt-ids", "40,41,42,50,51",
                                       "-n",  "40", "--json", "--ignore-eos"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome outcome = Run(arguments);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return json::parse(outcome.out, nullptr, false);
  }

  std::string target_, dspark_;
};

TEST_F(CliDrafter, EveryFormDraftsAndChangesNothing) {
  const json plain = Reply({"--no-spec"});
  const std::string forms[] = {dspark_,
                               DeepSpecDirectory(DrafterKind::kBlock, MarkovHead::kRnn).Write(Path("rnn")),
                               DeepSpecDirectory(DrafterKind::kEagle3).Write(Path("eagle3")),
                               ZlabDirectory().Write(Path("zlab")),
                               SpecForgeDirectory().Write(Path("specforge")),
                               MtpDirectory().Write(Path("mtp"))};
  for (const std::string& form : forms) {
    const json reply = Reply({"-md", form, "--no-lookup", "--policy", "fixed:3"});
    EXPECT_EQ(reply["tokens"], plain["tokens"]) << form;
    EXPECT_GT(reply["timings"]["drafted"], 10) << form;
    EXPECT_EQ(reply["timings"]["verified_at"].size(), reply["timings"]["reached_at"].size());
    EXPECT_EQ(Reply({"-md", form, "--draft-weights", "int8"})["tokens"], plain["tokens"]) << form;
  }
  for (const char* policy : {"adaptive", "zos", "threshold:0.3", "cumulative:0.3", "off"}) {
    EXPECT_EQ(Reply({"-md", dspark_, "--policy", policy})["tokens"], plain["tokens"]) << policy;
  }
  for (const char* rule : {"block", "token"}) {
    const json one =
        Reply({"-md", dspark_, "--temp", "0.9", "--seed", "7", "--policy", "fixed:3", "--accept", rule});
    const json other =
        Reply({"-md", dspark_, "--temp", "0.9", "--seed", "7", "--policy", "fixed:3", "--accept", rule});
    EXPECT_EQ(one["tokens"], other["tokens"]) << rule;
  }
}

TEST_F(CliDrafter, ConvertedDraftersDraftTheSame) {
  const auto drafts = [&](const std::string& drafter) {
    const json reply = Reply({"-md", drafter, "--no-lookup", "--policy", "fixed:3"});
    return std::pair(reply["tokens"], reply["timings"]["accepted_at"]);
  };
  ASSERT_EQ(
      Run({"convert", dspark_, Path("d.gguf"), "--type", "f32", "--with-head", "--with-embedding"}).exit_code,
      0);
  ASSERT_EQ(Run({"convert", Path("d.gguf"), Path("back"), "--type", "f32", "--target", target_}).exit_code,
            0);
  EXPECT_EQ(drafts(Path("d.gguf")), drafts(dspark_));
  EXPECT_EQ(drafts(Path("back")), drafts(dspark_));
  const Outcome info = Run({"info", Path("d.gguf"), "--json"});
  ASSERT_EQ(info.exit_code, 0) << info.err;
  EXPECT_EQ(json::parse(info.out)["drafter"]["block_size"], 5);
  EXPECT_THAT(Run({"info", dspark_}).out, HasSubstr("vanilla Markov head of rank 8"));
}

TEST_F(CliDrafter, WhatDoesNotFitIsOneLine) {
  const auto run = [&](std::vector<std::string> more) {
    std::vector<std::string> arguments{"run", "-m", target_, "--prompt-ids", "40,41", "-n", "4", "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return Run(arguments);
  };
  ExpectOneLine(run({"-md", Path("nowhere")}), 1, "nowhere: no such file or directory; give a drafter's");
  ExpectOneLine(run({"-md", target_}), 1, "tiny.gguf: is a model, not a drafter; give it with -m");
  WriteFile(Path("notes.txt"), "some text");
  ExpectOneLine(run({"-md", Path("notes.txt")}), 1, "notes.txt: neither a GGUF file nor a Hugging Face");
  ExpectOneLine(Run({"run", "-m", Path("notes.txt"), "hi"}), 1, "notes.txt: neither a GGUF file nor");
  std::filesystem::create_directories(Path("bare"));
  ExpectOneLine(run({"-md", Path("bare")}), 1, "bare: no config.json in this directory; give a .gguf file");
  ExpectOneLine(Run({"run", "-m", dspark_, "--prompt-ids", "1", "--json"}), 1,
                "dspark: is a drafter, not a model; give it with -md");
  const std::string folder = std::filesystem::path(target_).parent_path();
  ExpectOneLine(run({"-md", folder}), 1, "no drafter by itself; name the file, such as " + target_);
  ExpectOneLine(Run({"run", "-m", folder, "hi"}), 1, "no model by itself; name the file, such as " + target_);
  // The other tiny target has two layers.
  ExpectOneLine(Run({"run", "-m", model_, "-md", dspark_, "--prompt-ids", "1", "--json"}), 1, "layers");
  ExpectOneLine(run({"-md", dspark_, "--policy", "fixed:99"}), 2,
                "fixed takes a number of drafts from 0 to 15");
  ExpectOneLine(run({"-md", dspark_, "--policy", "threshold:nan"}), 2, "threshold takes a confidence");
  ExpectOneLine(run({"-md", dspark_, "--policy", "sometimes"}), 2, "sometimes is unknown; use adaptive");
  ExpectOneLine(Run({"convert", target_, Path("x.gguf")}), 1, "tiny.gguf");
  const std::string name = "smollm2-135m";  // known, and not pulled here
  ExpectOneLine(Run({"convert", dspark_, Path("x.gguf"), "--target", name}), 1, "dspark pull");
  ExpectOneLine(Run({"convert", dspark_, Path("no/such/x.gguf")}), 1, "no/such/x.gguf");
}

}  // namespace
}  // namespace dspark::test
