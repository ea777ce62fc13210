// Counted tables as users meet them: train kind=ngram, run -md, eval, info, on a tiny target.
#include <nlohmann/json.hpp>

#include "cli.h"
#include "tiny_drafter.h"

namespace dspark::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;

class CliNgram : public Cli {
 protected:
  CliNgram() {
    std::ofstream rows(Path("rows.jsonl"));
    for (int i = 0; i < 40; ++i) {
      rows << R"({"conversations":[{"from":"human","value":"Which row?"},{"from":"gpt","value":"It is)";
      for (int k = 0; k < 60; ++k) rows << ' ' << char('a' + (i * 5 + k * k) % 23) << char('a' + k * i % 7);
      rows << "\"}]}\n";
    }
    rows.close();
    WriteFile(Path("bad.jsonl"), "no row\n");
    const Outcome trained = Train({"out=" + Path("table.gguf")});
    EXPECT_EQ(trained.exit_code, 0) << trained.err;
    EXPECT_THAT(trained.out, HasSubstr("40 conversations"));
    EXPECT_THAT(trained.err, HasSubstr("bad.jsonl:1: not JSON"));
  }
  Outcome Train(std::vector<std::string> more, const std::string& model = "") {
    std::vector<std::string> arguments = {
        "train", "kind=ngram", "target=" + (model.empty() ? model_ : model),
        "data=[\"" + Path("rows.jsonl") + "\", \"" + Path("bad.jsonl") + "\"]"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return Run(arguments);
  }
  json Reply(std::vector<std::string> more) {
    std::vector<std::string> arguments{"run", "-m", model_,   "Which row?",
                                       "-n",  "40", "--json", "--ignore-eos"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome outcome = Run(arguments);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return json::parse(outcome.out, nullptr, false);
  }
};

// Counted from the model's own answers, as it is meant to be.
TEST_F(CliNgram, ATableDraftsAndChangesNothing) {
  const Outcome made = Run({"prepare", "regenerate", Path("rows.jsonl"), "--out", Path("own.jsonl"), "-m",
                            model_, "-n", "60", "--temp", "0"});
  ASSERT_EQ(made.exit_code, 0) << made.err;
  const std::string table = Path("own.gguf");
  ASSERT_EQ(
      Run({"train", "kind=ngram", "target=" + model_, "data=[\"" + Path("own.jsonl") + "\"]", "out=" + table})
          .exit_code,
      0);
  const json plain = Reply({"--no-spec"});
  for (const std::string& draft : {table, "lookup," + table}) {
    for (const char* policy : {"adaptive", "fixed:3"}) {
      const json reply = Reply({"-md", draft, "--policy", policy});
      EXPECT_EQ(reply["tokens"], plain["tokens"]) << draft;
    }
  }
  ExpectOneLine(Run({"run", "-m", model_, "hi", "-md", "lookup," + table, "--no-lookup"}), 2,
                "asks for lookup; leave one of them out");
  const json alone = Reply({"-md", table, "--no-lookup", "--policy", "fixed:3"});
  EXPECT_EQ(alone["tokens"], plain["tokens"]);
  EXPECT_GT(alone["timings"]["accepted"], 5);
}

TEST_F(CliNgram, TheSameDataGiveTheSameFileOfTheSizeAskedFor) {
  ASSERT_EQ(Train({"out=" + Path("again.gguf")}).exit_code, 0);
  EXPECT_EQ(ReadFile(Path("again.gguf")), ReadFile(Path("table.gguf")));
  ASSERT_EQ(Train({"out=" + Path("small.gguf"), "size_mb=0.001"}).exit_code, 0);
  EXPECT_LT(ReadFile(Path("small.gguf")).size(), 1000u + 1000u);
  EXPECT_LT(ReadFile(Path("small.gguf")).size(), ReadFile(Path("table.gguf")).size());
  WriteFile(Path("config.json"), R"({"kind": "ngram", "order": 2, "out": ")" + Path("two.gguf") + "\"}");
  ASSERT_EQ(Train({Path("config.json")}).exit_code, 0);
  EXPECT_THAT(Run({"info", Path("two.gguf")}).out, HasSubstr("contexts of up to 2 tokens"));
  const json info = json::parse(Run({"info", Path("table.gguf"), "--json"}).out);
  EXPECT_EQ(info["drafter"]["kind"], "counted table");
  EXPECT_EQ(info["drafter"]["order"], 4);
  EXPECT_EQ(info["drafter"]["data"], "rows.jsonl, bad.jsonl: 40 conversations, 6140 answer tokens");
  const std::string text = Run({"info", Path("table.gguf")}).out;
  for (const char* part : {"drafter: counted table of ", " contexts of up to 4 tokens, 0.0",
                           ") with 2 layers\n", "\n  counted in rows.jsonl, bad.jsonl: 40 conversations, "})
    EXPECT_THAT(text, HasSubstr(part));
  EXPECT_THAT(Run({"train", "--defaults", "kind=ngram"}).out, HasSubstr("\"size_mb\": 4.0"));
}

TEST_F(CliNgram, IsEvaluatedBesideOthers) {
  WriteFile(Path("prompts.jsonl"), "{\"turns\": [\"Which row?\"]}\n{\"turns\": [\"What now?\"]}\n");
  const Outcome outcome =
      Run({"eval", "-m", model_, "-md", Path("table.gguf"), "-md", "lookup," + Path("table.gguf"), "--suite",
           Path("prompts.jsonl"), "-n", "20", "--policy", "fixed:3", "--json", Path("e.json")});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const json results = json::parse(ReadFile(Path("e.json")));
  EXPECT_EQ(results["drafters"][0]["kind"], "counted table");
  EXPECT_EQ(results["drafters"][1]["name"], "lookup+table");
  EXPECT_THAT(outcome.out, HasSubstr("plain decoding's, token for token"));
}

TEST_F(CliNgram, WhatDoesNotFitIsOneLine) {
  const std::string table = Path("table.gguf");
  const auto run = [&](const std::string& model, std::vector<std::string> more) {
    std::vector<std::string> arguments{"run", "-m", model, "--prompt-ids", "40,41", "-n", "4", "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return Run(arguments);
  };
  TinyLlama shape;
  shape.layers = 10;
  std::filesystem::create_directories(Path("deep"));
  const std::string deep = WriteTinyLlamaGguf(Path("deep"), 1, shape);
  ExpectOneLine(run(deep, {"-md", table}), 1, "counted for a target with layers 2, but this target has 10");
  WriteFile(Path("cut.gguf"), ReadFile(table).substr(0, ReadFile(table).size() / 2));
  ExpectOneLine(run(model_, {"-md", Path("cut.gguf")}), 1, "cut.gguf");
  ExpectOneLine(run(model_, {"-md", table + "," + table}), 1, "the second counted table of the list");
  ExpectOneLine(run(model_, {"-md", table + "," + Path("nowhere")}), 1, "nowhere: no such file");
  ExpectOneLine(run(model_, {"-md", table, "--draft-weights", "int8"}), 1, "has no weights");
  ExpectOneLine(Run({"run", "-m", table, "hi"}), 1, "is a drafter, not a model; give it with -md");
  ExpectOneLine(Run({"calibrate", "-m", model_, "-md", table, "--in", Path("rows.jsonl")}), 1,
                "there is nothing to calibrate");
  ExpectOneLine(Run({"convert", table, Path("x.gguf")}), 1, "is a counted table, which has this one form");
  for (const char* flag : {"train", "--defaults"}) {
    std::vector<std::string> arguments{"train", "kind=foo", "target=" + model_};
    if (flag[0] == '-') arguments.insert(arguments.begin() + 1, flag);
    ExpectOneLine(Run(arguments), 2, "kind is \"foo\", expected one of dspark, dflash, eagle3, mtp, ngram");
  }
  ExpectOneLine(Train({"out=x", "steps=3"}), 2, "key steps does nothing for kind ngram");
  ExpectOneLine(Train({"out=x", "order=9"}), 2, "order is 9, expected 1 to 8");
  for (const char* order : {"4294967300", "18446744073709551620", "-4294967292", "2.0", "many"})
    ExpectOneLine(Train({"out=x", std::string("order=") + order}), 2, "expected 1 to 8");
  ExpectOneLine(Train({"out=x", "size_mb=1e9"}), 2, "size_mb is 1000000000.0, expected 0.001 to 1024");
  ExpectOneLine(Train({"out=x", "data=rows.jsonl"}), 2, "data is \"rows.jsonl\", expected a list, such as");
  ExpectOneLine(Train({}), 2, "no out; give out=FILE");
  ExpectOneLine(Train({"out=x"}, Path("nowhere")), 1, "nowhere");
  ExpectOneLine(Run({"train", "kind=ngram", "target=" + model_, "data=[\"nowhere.jsonl\"]", "out=x"}), 1,
                "nowhere.jsonl");
}

TEST_F(CliNgram, WhatIsReadIsNotReplaced) {
  namespace fs = std::filesystem;
  const std::string model = ReadFile(model_), rows = ReadFile(Path("rows.jsonl"));
  fs::create_symlink(Path("bad.jsonl"), Path("link.gguf"));
  fs::create_hard_link(model_, Path("same.gguf"));
  fs::create_directories(Path("sub"));
  for (const std::string& out :
       {model_, Path("sub/../rows.jsonl"), Path("link.gguf"), Path("same.gguf"), Path("bad.jsonl")})
    ExpectOneLine(Train({"out=" + out}), 1, out + ": is read and written at once; give out another name");
  EXPECT_EQ(ReadFile(model_), model);
  EXPECT_EQ(ReadFile(Path("rows.jsonl")), rows);
  fs::create_directories(Path("form"));
  WriteFile(Path("form/config.json"), "{}");
  ExpectOneLine(Train({"out=" + Path("form/config.json")}, Path("form")), 1, "is read and written at once");
}

}  // namespace
}  // namespace dspark::test
