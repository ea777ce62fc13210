#include "data/regenerate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>

#include "data/journal.h"
#include "temp_dir.h"

namespace dspark {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;
using Lines = std::vector<std::string>;

// Answers with what it was asked and the seed, latest call first; `error` may fail a call.
class EchoBackend : public ChatBackend {
 public:
  explicit EchoBackend(size_t room = 3) : room_(room) {}
  bool HasRoom() const override { return calls_.size() < room_; }
  void Submit(ChatCall call) override { calls_.push_back(std::move(call)); }
  Result<std::vector<ChatReply>> Poll() override {
    if (dead) return MakeError("nobody is there");
    const ChatCall call = std::move(calls_.back());
    calls_.pop_back();
    asked.push_back(call);
    tokens_ += 5;
    const std::string& text = call.messages.back().content;
    return std::vector<ChatReply>{{.ticket = call.ticket,
                                   .content = fmt::format("{} {}", text, call.seed),
                                   .thinking = {},
                                   .finish_reason = text == "long" ? "length" : "stop",
                                   .error = error(text)}};
  }
  int64_t tokens() const override { return tokens_; }

  std::function<std::string(const std::string&)> error = [](const std::string&) { return ""; };
  bool dead = false;
  std::vector<ChatCall> asked;

 private:
  size_t room_;
  std::vector<ChatCall> calls_;
  int64_t tokens_ = 0;
};

class RegenerateTest : public testing::Test {
 protected:
  RegenerateTest() { options_ = {.in = Path("in.jsonl"), .out = Path("out.jsonl"), .system = {}, .seed = 9}; }

  std::string Path(const std::string& name) const { return dir_.path() + "/" + name; }
  void Write(const std::string& name, const std::string& text) const { std::ofstream(Path(name)) << text; }
  Lines Read(const std::string& name) const {
    Lines lines;
    std::ifstream in(Path(name));
    for (std::string line; std::getline(in, line);) lines.push_back(line);
    return lines;
  }
  static std::string Conversation(int id, const Lines& turns) {
    json row{{"id", id}, {"conversations", json::array()}};
    for (const std::string& turn : turns) {
      row["conversations"].push_back({{"role", "user"}, {"content", turn}});
      row["conversations"].push_back({{"role", "assistant"}, {"content", "old"}});
    }
    return row.dump() + "\n";
  }
  void WriteMany(int n) const {
    std::string text;
    for (int i = 0; i < n; ++i)
      text += Conversation(i, i % 3 == 0 ? Lines{"a" + std::to_string(i), "b"} : Lines{"c"});
    Write("in.jsonl", text);
  }
  // Stops after `polls` of them.
  Result<RegenerateProgress> Run(EchoBackend& backend, int polls = 1 << 30) const {
    return Regenerate(
        options_, backend, [&] { return polls-- <= 0; }, [](const RegenerateProgress&) {});
  }

  test::TempDir dir_;
  RegenerateOptions options_;
};

TEST_F(RegenerateTest, EveryAssistantTurnIsRewrittenAndAllElseKept) {
  Write("in.jsonl", R"({"source":"x","id":"k1","conversations":[{"role":"system","content":"S"},)"
                    R"({"role":"user","content":"one"},{"role":"assistant","content":"old"},)"
                    R"({"role":"user","content":"long"},{"role":"assistant","content":"old"}],"n":1.5})"
                    "\n");
  EchoBackend backend;
  const auto done = Run(backend);
  ASSERT_TRUE(done.ok()) << done.error().text;
  const std::string first = fmt::format("one {}", ReplySeed(9, "\"k1\"", 0));
  const std::string second = fmt::format("long {}", ReplySeed(9, "\"k1\"", 1));
  EXPECT_THAT(Read("out.jsonl"),
              ElementsAre(R"({"source":"x","id":"k1","conversations":[{"role":"system","content":"S"},)"
                          R"({"role":"user","content":"one"},{"role":"assistant","content":")" +
                          first + R"("},{"role":"user","content":"long"},{"role":"assistant","content":")" +
                          second + R"("}],"n":1.5,"status":"success","finish_reasons":["stop","length"]})"));
  ASSERT_EQ(backend.asked.size(), 2u);
  std::string history;
  for (const ChatMessage& message : backend.asked[1].messages)
    history += message.role + ":" + message.content + "|";
  EXPECT_EQ(history, "system:S|user:one|assistant:" + first + "|user:long|");
  EXPECT_EQ(done->succeeded, 1);
  EXPECT_EQ(done->replies, 2);
  EXPECT_EQ(done->cut, 1);
  EXPECT_EQ(done->tokens, 10);
  EXPECT_FALSE(std::filesystem::exists(Path("out_error.jsonl")));
}

TEST_F(RegenerateTest, OtherSettingsAreNotMixedIntoAnOutput) {
  WriteMany(6);
  options_.settings = {{"temp", 0.7}, {"model", "m"}};
  EchoBackend backend;
  ASSERT_TRUE(Run(backend, 3).ok());
  const Lines lines = Read("out.jsonl");
  ASSERT_FALSE(lines.empty());
  const auto refused = [&](const std::string& text) {
    EchoBackend fresh;
    const auto done = Run(fresh);
    ASSERT_FALSE(done.ok()) << text;
    EXPECT_THAT(done.error().text, testing::AllOf(HasSubstr(text), HasSubstr("another --out")));
    EXPECT_TRUE(fresh.asked.empty());
    EXPECT_EQ(Read("out.jsonl"), lines);
  };
  options_.settings["temp"] = 0;
  refused("temp is 0.7 there, 0 is wanted");
  options_.settings["temp"] = 0.7;
  options_.seed = 8;
  refused("seed is 9 there, 8 is wanted");
  options_.seed = 9;
  options_.system = "Be brief.";
  refused("system is \"\" there, \"Be brief.\" is wanted");
  options_.system = "";
  options_.settings["new"] = 1;  // of a later version
  EXPECT_TRUE(Run(backend).ok());
  EXPECT_EQ(Read("out.jsonl").size(), 6u);
}

TEST_F(RegenerateTest, AnOutputThatIsNotBegunTakesAnySettings) {
  WriteMany(3);
  EchoBackend backend;
  ASSERT_TRUE(Run(backend, 0).ok());
  options_.seed = 1;
  ASSERT_TRUE(Run(backend).ok());
  std::filesystem::remove(Path("out_settings.json"));  // as older versions left it
  options_.seed = 2;
  EXPECT_TRUE(Run(backend).ok());
  options_.seed = 1;
  EXPECT_FALSE(Run(backend).ok());
}

TEST_F(RegenerateTest, LeavesForeignSettingsAlone) {
  WriteMany(3);
  for (const std::string text : {"notes", "[1, 2]", "{\"seed\": 1}", "{\"seed\": \"x\", \"system\": \"\"}"}) {
    for (const bool begun : {false, true}) {
      std::filesystem::remove(Path("out_settings.json"));
      EchoBackend backend;
      if (begun) {
        ASSERT_TRUE(Run(backend, 3).ok());
      }
      const size_t asked = backend.asked.size();
      Write("out_settings.json", text);
      const auto done = Run(backend);
      ASSERT_FALSE(done.ok()) << text;
      EXPECT_THAT(done.error().text,
                  testing::AllOf(HasSubstr("out_settings.json: "), HasSubstr("another --out")));
      EXPECT_EQ(backend.asked.size(), asked);
      EXPECT_THAT(Read("out_settings.json"), testing::ElementsAre(text));
      EXPECT_EQ(std::filesystem::exists(Path("out.jsonl")), begun);
      std::filesystem::remove(Path("out.jsonl"));
    }
  }
}

TEST_F(RegenerateTest, ReadsShareGptAndOpenAiRowsAndNumbersThem) {
  Write("in.jsonl",
        "{\"conversations\":[{\"from\":\"human\",\"value\":\"one\"},{\"from\":\"gpt\",\"value\":\"x\"}]}\n\n"
        "{\"messages\":[{\"role\":\"user\",\"content\":\"two\"}],\"status\":\"error\",\"error\":\"e\"}\n");
  options_.system = "S";
  EchoBackend backend(1);
  ASSERT_TRUE(Run(backend).ok());
  const Lines lines = Read("out.jsonl");
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(json::parse(lines[0])["id"], 0);
  const json second = json::parse(lines[1]);
  EXPECT_EQ(second["id"], 1);
  EXPECT_EQ(second["status"], "success");
  EXPECT_FALSE(second.contains("messages") || second.contains("error"));
  EXPECT_EQ(second["conversations"][0], json({{"role", "system"}, {"content", "S"}}));
  EXPECT_EQ(second["conversations"][1]["content"], "two");
}

TEST_F(RegenerateTest, RowsThatCannotBeAskedGoToTheErrorFile) {
  Write("in.jsonl",
        "{\"id\":1}\n"
        "{\"id\":2,\"conversations\":[{\"role\":\"assistant\",\"content\":\"x\"}]}\n"
        "{\"id\":3,\"conversations\":[{\"role\":\"tool\",\"content\":\"x\"}]}\n"
        "{\"id\":4,\"conversations\":[{\"role\":\"user\",\"content\":null}]}\n"
        "{\"id\":5,\"conversations\":[]}\n" +
            Conversation(6, {"good"}) + Conversation(7, {"bad"}) + Conversation(8, {"good", "bad"}));
  EchoBackend backend;
  backend.error = [](const std::string& text) { return text == "bad" ? "server\xff said no" : ""; };
  const auto done = Run(backend);
  ASSERT_TRUE(done.ok());
  EXPECT_EQ(done->succeeded, 1);
  EXPECT_EQ(done->failed, 7);
  EXPECT_EQ(Read("out.jsonl").size(), 1u);
  std::map<int, std::string> errors;
  for (const std::string& line : Read("out_error.jsonl")) {
    const json row = json::parse(line);
    EXPECT_EQ(row["status"], "error");
    errors[row["id"]] = row["error"];
    if (row["id"] == 8) {
      EXPECT_EQ(row["conversations"][1]["content"], "old") << "the original row";
    }
  }
  EXPECT_THAT(
      errors,
      ElementsAre(testing::Pair(1, HasSubstr("neither")), testing::Pair(2, HasSubstr("not from the user")),
                  testing::Pair(3, HasSubstr("no message of a user")), testing::Pair(4, HasSubstr("no text")),
                  testing::Pair(5, HasSubstr("no message of a user")), testing::Pair(7, HasSubstr("said no")),
                  testing::Pair(8, HasSubstr("no"))));
}

TEST_F(RegenerateTest, InterruptedOftenGivesTheSameLinesInAnyOrder) {
  WriteMany(40);
  EchoBackend whole(7);
  ASSERT_TRUE(Run(whole).ok());
  Lines expected = Read("out.jsonl");
  std::sort(expected.begin(), expected.end());
  ASSERT_EQ(expected.size(), 40u);

  options_.out = Path("pieces.jsonl");
  int64_t skipped = 0;
  for (int call = 0; call < 200; ++call) {
    EchoBackend backend(1 + size_t(call) % 5);
    const auto done = Run(backend, 1 + call % 4);
    ASSERT_TRUE(done.ok()) << done.error().text;
    EXPECT_GE(done->skipped, skipped);
    EXPECT_EQ(done->skipped + done->total, 40);
    skipped = done->skipped;
    if (!done->stopped) break;
    // A line torn in the middle, as a writer leaves it that is killed in a write.
    std::ofstream(Path("pieces.jsonl"), std::ios::app)
        << expected[0].substr(0, expected[0].size() - call % 9);
  }
  Lines pieces = Read("pieces.jsonl");
  std::sort(pieces.begin(), pieces.end());
  EXPECT_EQ(pieces, expected);
}

TEST_F(RegenerateTest, ErrorsAreSkippedUntilTheyAreRetried) {
  Write("in.jsonl", Conversation(1, {"a"}) + Conversation(2, {"b"}) + Conversation(3, {"c"}));
  std::set<std::string> bad{"a", "b"};
  std::string reason = "no";
  const auto run = [&] {
    EchoBackend backend;
    backend.error = [&](const std::string& text) { return bad.contains(text) ? reason : ""; };
    EXPECT_TRUE(Run(backend).ok());
    return backend.asked.size();
  };
  EXPECT_EQ(run(), 3u);
  EXPECT_EQ(Read("out_error.jsonl").size(), 2u);
  bad = {"b"};
  reason = "no, again";
  EXPECT_EQ(run(), 0u);
  options_.retry_errors = true;
  EXPECT_EQ(run(), 2u);
  EXPECT_EQ(Read("out.jsonl").size(), 2u);
  const Lines left = Read("out_error.jsonl");
  ASSERT_EQ(left.size(), 1u) << "an error that came again is there once";
  EXPECT_EQ(json::parse(left[0])["id"], 2);
  EXPECT_EQ(json::parse(left[0])["error"], "no, again") << "the latest reason";
  bad = {};
  EXPECT_EQ(run(), 1u);
  EXPECT_EQ(Read("out.jsonl").size(), 3u);
  EXPECT_FALSE(std::filesystem::exists(Path("out_error.jsonl")));
}

// Killed between writing the success and rewriting the error file.
TEST_F(RegenerateTest, WhatIsInBothFilesHasSucceeded) {
  Write("in.jsonl", Conversation(1, {"a"}) + Conversation(2, {"b"}));
  Write("out.jsonl", "{\"id\":1,\"status\":\"success\"}\n");
  Write("out_error.jsonl", "{\"id\":1,\"status\":\"error\"}\n{\"id\":2,\"status\":\"error\"}\n{\"id\":");
  EchoBackend backend;
  ASSERT_TRUE(Run(backend).ok());
  EXPECT_EQ(backend.asked.size(), 0u);
  EXPECT_THAT(Read("out_error.jsonl"), ElementsAre("{\"id\":2,\"status\":\"error\"}"));
}

TEST_F(RegenerateTest, TheFirstSamplesOnly) {
  WriteMany(10);
  options_.max_samples = 4;
  EchoBackend backend;
  ASSERT_TRUE(Run(backend).ok());
  EXPECT_EQ(Run(backend)->skipped, 4);
  std::vector<int> ids;
  for (const std::string& line : Read("out.jsonl")) ids.push_back(json::parse(line)["id"]);
  EXPECT_THAT(ids, UnorderedElementsAre(0, 1, 2, 3));
}

TEST_F(RegenerateTest, WhatCannotGoOnIsOneLine) {
  const auto error = [&] {
    EchoBackend backend;
    const auto done = Run(backend);
    return done.ok() ? "no error" : done.error().text;
  };
  EXPECT_THAT(error(), HasSubstr("in.jsonl: cannot open"));
  EXPECT_FALSE(std::filesystem::exists(Path("out.jsonl")));
  Write("in.jsonl", "{\"id\":1}\nnonsense\n");
  EXPECT_THAT(error(), HasSubstr("in.jsonl:2: not a JSON object"));
  for (const char* id : {"{\"b\":1,\"a\":2}", "[1]", "1.5", "12345678901234567890123", "true"}) {
    Write("in.jsonl", fmt::format("{{\"id\":{}}}\n", id));
    EXPECT_THAT(error(), HasSubstr("is neither a text nor a whole number of 64 bits")) << id;
  }
  Write("in.jsonl", "{\"id\":1}\n{\"x\":2}\n");
  EXPECT_THAT(error(), HasSubstr("in.jsonl:2: id 1 of a row is also the number of one without an id"));
  Write("in.jsonl", "{\"id\":\"1\"}\n{\"id\":1}\n{\"id\":\"1\"}\n");
  EXPECT_THAT(error(), HasSubstr("in.jsonl:3: id \"1\" was on an earlier line"));
  Write("in.jsonl", Conversation(1, {"a"}));
  Write("out.jsonl", "{\"text\":1}\n");
  EXPECT_THAT(error(), HasSubstr("out.jsonl:1: not an object with an id"));
  // One line without an end is no torn line of ours unless it looks like one; the other two are whole.
  for (const char* precious : {"a precious file", R"({"precious":1})", R"({"precious":1,)",
                               R"({"id":1,"conversations":[]})", "{\"id\":1,\"conversations\":[]}\n"}) {
    Write("out.jsonl", precious);
    EXPECT_THAT(error(), HasSubstr("out.jsonl:1: not a")) << precious;
    EXPECT_EQ(Read("out.jsonl")[0], std::string(precious).substr(0, std::string(precious).find('\n')));
  }
  options_.out = options_.in;
  EXPECT_THAT(error(), HasSubstr("read and written at once"));
  Write("out_settings.json", "{\"id\":1}\n");
  options_.in = Path("out_settings.json");
  options_.out = Path("out.jsonl");
  EXPECT_THAT(error(), HasSubstr("read and written at once"));
  options_.out = Path("none/out.jsonl");
  EXPECT_THAT(error(), HasSubstr("none/out.jsonl: cannot be written"));
}

TEST_F(RegenerateTest, AnEmptyInputLeavesNothingBehind) {
  for (const char* text : {"", "\n \n"}) {
    Write("in.jsonl", text);
    EchoBackend backend;
    const auto done = Run(backend);
    ASSERT_FALSE(done.ok());
    EXPECT_EQ(done.error().text,
              Path("in.jsonl") + ": holds no conversations; give JSON lines, one for each");
    for (const char* file : {"out.jsonl", "out_error.jsonl", "out_settings.json"})
      EXPECT_FALSE(std::filesystem::exists(Path(file))) << file;
  }
}

TEST_F(RegenerateTest, ABackendThatIsGoneEndsTheRun) {
  WriteMany(3);
  EchoBackend backend;
  backend.dead = true;
  const auto done = Run(backend);
  ASSERT_FALSE(done.ok());
  EXPECT_EQ(done.error().text, "nobody is there");
  EXPECT_THAT(Read("out.jsonl"), IsEmpty());
}

TEST_F(RegenerateTest, SeedsDiffer) {
  std::set<uint64_t> seeds;
  for (const uint64_t seed : {0, 1}) {
    for (int id = 0; id < 100; ++id) {
      for (int turn = 0; turn < 3; ++turn) seeds.insert(ReplySeed(seed, std::to_string(id), turn));
    }
  }
  EXPECT_EQ(seeds.size(), 600u);
}

TEST_F(RegenerateTest, NamesOfErrorFiles) {
  EXPECT_EQ(ErrorPath("a/b.jsonl"), "a/b_error.jsonl");
  EXPECT_EQ(ErrorPath("a/b"), "a/b_error.jsonl");
}

class EmptyReplies : public EchoBackend {
 public:
  Result<std::vector<ChatReply>> Poll() override {
    auto replies = EchoBackend::Poll();
    for (ChatReply& reply : *replies) reply.content.clear();
    return replies;
  }
};

TEST_F(RegenerateTest, AnEmptyReplyIsAnError) {
  Write("in.jsonl", Conversation(1, {"a"}));
  EmptyReplies backend;
  EXPECT_EQ(Run(backend)->failed, 1);
  EXPECT_THAT(Read("out.jsonl"), IsEmpty());
  ASSERT_EQ(Read("out_error.jsonl").size(), 1u);
  EXPECT_EQ(json::parse(Read("out_error.jsonl")[0])["error"], "reply 0 is empty");
}

const auto kAnyTorn = [](const std::string&) { return true; };

// A disk that takes only the beginning of a line.
TEST_F(RegenerateTest, AFailedWriteLeavesNoHalfLine) {
  auto journal = Journal::Open(
      Path("j"), [](const std::string&, int64_t) { return Status(); }, kAnyTorn);
  ASSERT_TRUE(journal.ok());
  ASSERT_TRUE(journal->Append("{\"id\":1}").ok());
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const rlimit small{12, before.rlim_max};
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &small);
  const Status failed = journal->Append("{\"id\":2}");
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, old_handler);
  EXPECT_FALSE(failed.ok());
  ASSERT_TRUE(journal->Append("{\"id\":3}").ok());
  EXPECT_THAT(Read("j"), ElementsAre("{\"id\":1}", "{\"id\":3}"));
}

TEST_F(RegenerateTest, AJournalIsForOneAtATime) {
  const auto visit = [](const std::string&, int64_t) { return Status(); };
  auto first = Journal::Open(Path("j"), visit, kAnyTorn);
  ASSERT_TRUE(first.ok());
  const auto second = Journal::Open(Path("j"), visit, kAnyTorn);
  ASSERT_FALSE(second.ok());
  EXPECT_THAT(second.error().text, HasSubstr("another process is writing"));
  ASSERT_TRUE(first->Append("{}").ok());
  { const Journal gone = std::move(*first); }
  Lines seen;
  const auto note = [&](const std::string& line, int64_t) {
    seen.push_back(line);
    return Status();
  };
  ASSERT_TRUE(Journal::Open(Path("j"), note, kAnyTorn).ok());
  EXPECT_THAT(seen, ElementsAre("{}"));
}

}  // namespace
}  // namespace dspark
