// The program's standard streams and Ctrl-C: lost output, closed streams, interrupts at every stage of a run.
#include <fcntl.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>

#include "cli.h"
#include "sanitized.h"

// Tsan keeps a signal back while its thread waits in read(2), which it does not know to wait.
#define SKIP_WHERE_SIGNALS_WAIT() \
  if (kThreadSanitizer) GTEST_SKIP() << "*** SKIPPED: tsan delivers no signal to a thread that reads"

namespace dspark::test {
namespace {

using testing::HasSubstr;

// Both ends of a pseudo-terminal.
class Terminal {
 public:
  Terminal() : master_(posix_openpt(O_RDWR | O_NOCTTY)) {
    EXPECT_TRUE(master_ >= 0 && grantpt(master_) == 0 && unlockpt(master_) == 0);
    name_ = ptsname(master_);
    held_ = open(name_.c_str(), O_RDWR | O_NOCTTY);  // what is typed before the child opens it is not lost
  }
  Terminal(const Terminal&) = delete;
  ~Terminal() { close(held_), close(master_); }
  const std::string& name() const { return name_; }
  void Type(std::string_view keys) const {
    EXPECT_EQ(write(master_, keys.data(), keys.size()), ssize_t(keys.size()));
  }

 private:
  int master_, held_ = -1;
  std::string name_;
};

class CliStreams : public Cli {
 protected:
  // A model whose reply can go on for seconds.
  std::string LongModel() { return WriteTinyLlamaGguf(Path("long"), 1, {.max_context = 1 << 16}); }

  // True once `child` has a handler for SIGINT of its own.
  static bool HandlesInterrupt(pid_t child) {
    std::ifstream status("/proc/" + std::to_string(child) + "/status");
    for (std::string line; std::getline(status, line);) {
      if (!line.starts_with("SigCgt:")) continue;
      return std::stoull(line.substr(7), nullptr, 16) >> (SIGINT - 1) & 1;
    }
    return false;
  }

  // How often `text` stands in what the program said on stderr.
  int Messages(std::string_view text) const {
    const std::string err = ReadFile(Path("err"));
    int count = 0;
    for (size_t at = err.find(text); at != std::string::npos; at = err.find(text, at + text.size())) ++count;
    return count;
  }

  bool SomeOutput() const {
    std::error_code missing;
    const auto size = std::filesystem::file_size(Path("out"), missing);
    return !missing && size > 0;
  }
};

TEST_F(CliStreams, CtrlCEndsAReplyInOrder) {
  const std::vector<std::string> arguments{"run",   "-m", LongModel(), "hello",       "-n",
                                           "60000", "-c", "60000",     "--isa",       "reference",
                                           "-t",    "1",  "--no-spec", "--ignore-eos"};
  const pid_t child = Start(arguments, "/dev/null", Path("out"));
  ASSERT_TRUE(WaitUntil([&] { return SomeOutput(); }));
  kill(child, SIGINT);
  const Outcome outcome = Finish(child);
  EXPECT_EQ(outcome.exit_code, 130);
  EXPECT_THAT(outcome.err, HasSubstr("tok/s"));
  EXPECT_THAT(outcome.err, HasSubstr("cancelled]\n"));
  EXPECT_EQ(outcome.out.back(), '\n') << "the reply's line is ended";
}

TEST_F(CliStreams, CtrlCWhileThePromptIsRead) {
  SKIP_WHERE_SIGNALS_WAIT();
  ASSERT_EQ(mkfifo(Path("pipe").c_str(), 0600), 0);
  const int writer = open(Path("pipe").c_str(), O_RDWR);  // never closed: the prompt has no end
  const pid_t child = Start({"run", "-m", model_}, Path("pipe"), Path("out"));
  ASSERT_TRUE(WaitUntil([&] { return HandlesInterrupt(child); }));
  kill(child, SIGINT);
  EXPECT_EQ(Finish(child).exit_code, 130);
  close(writer);
}

TEST_F(CliStreams, CtrlCWhileAChatLoadsOrWaits) {
  SKIP_WHERE_SIGNALS_WAIT();
  const Terminal terminal;
  for (const bool waits : {false, true}) {
    const pid_t child = Start({"run", "-m", model_}, terminal.name(), Path("out"));
    ASSERT_TRUE(WaitUntil([&] { return waits ? Messages("> ") == 1 : HandlesInterrupt(child); }));
    kill(child, SIGINT);
    EXPECT_EQ(Finish(child).exit_code, 130) << (waits ? "at the prompt" : "while loading");
  }
}

// Turns beyond what the context holds: the oldest are forgotten, and nothing ends.
TEST_F(CliStreams, AChatOutgrowsItsContext) {
  const Terminal terminal;
  const pid_t child =
      Start({"run", "-m", model_, "-c", "128", "-n", "24", "--ignore-eos", "--isa", "reference"},
            terminal.name(), Path("out"));
  for (int turn = 0; turn < 6; ++turn) {
    ASSERT_TRUE(WaitUntil([&] { return Messages("> ") == turn + 1; })) << ReadFile(Path("err"));
    terminal.Type("one two three\n");
  }
  ASSERT_TRUE(WaitUntil([&] { return Messages("> ") == 7; })) << ReadFile(Path("err"));
  terminal.Type("  \n");  // nothing said
  ASSERT_TRUE(WaitUntil([&] { return Messages("> ") == 8; })) << ReadFile(Path("err"));
  terminal.Type("\x04");  // Ctrl-D
  const Outcome outcome = Finish(child);
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_EQ(Messages("[24 tokens"), 6) << outcome.err;
  EXPECT_EQ(Messages(", load "), 1) << "loading is the first reply's";
  EXPECT_GE(Messages("[the context of 128 tokens is full"), 2) << outcome.err;
}

// It is said, and what was talked about before is not lost for it; nor is the time to load, which comes with
// the first reply.
TEST_F(CliStreams, AQuestionLongerThanTheContextForgetsNothing) {
  const Terminal terminal;
  const pid_t child =
      Start({"run", "-m", model_, "-c", "128", "-n", "8", "--ignore-eos", "--isa", "reference"},
            terminal.name(), Path("out"));
  const std::string too_long = std::string(400, 'x') + "\n";
  int turn = 0;
  for (const std::string& line : {too_long, std::string("one\n"), std::string("two\n"), too_long,
                                  std::string("three\n"), std::string("\x04")}) {
    ASSERT_TRUE(WaitUntil([&] { return Messages("> ") == turn + 1; })) << ReadFile(Path("err"));
    terminal.Type(line);
    ++turn;
  }
  const Outcome outcome = Finish(child);
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_EQ(Messages("the context holds 128; shorten it or raise --ctx\n"), 2) << outcome.err;
  EXPECT_EQ(Messages("forgotten"), 0) << outcome.err;
  EXPECT_EQ(Messages(", load "), 1) << outcome.err;
  EXPECT_LT(outcome.err.find("holds 128"), outcome.err.find(", load "));
  std::vector<int> prompts;
  for (size_t at = 0; (at = outcome.err.find(", prompt ", at)) != std::string::npos; at += 9)
    prompts.push_back(std::stoi(outcome.err.substr(at + 9)));
  ASSERT_EQ(prompts.size(), 3u) << outcome.err;
  EXPECT_LT(prompts[1], prompts[2]) << "the third question still has what was said before it";
}

TEST_F(CliStreams, LostOutputIsOneLineAndExit1) {
  const std::vector<std::vector<std::string>> commands = {
      {"run", "-m", model_, "hello", "-n", "20"},
      {"run", "-m", model_, "hello", "-n", "20", "--json"},
      {"info", model_, "--tensors"},
      {"info", model_, "--json"},
      {"bench", "-m", model_, "--rows", "1", "--prefill", "0", "--repeat", "1"},
      {"run", "--help"}};
  for (const auto& command : commands) {
    ExpectOneLine(Finish(Start(command, "/dev/null", "/dev/full")), 1, "cannot write to standard output");
  }
  ExpectOneLine(Finish(Start(commands[0], "/dev/null", "")), 1, "cannot write to standard output");
}

TEST_F(CliStreams, ClosedInputIsAnEmptyPrompt) {
  ExpectOneLine(Finish(Start({"run", "-m", model_}, "", Path("out"))), 1, "standard input is empty");
  EXPECT_EQ(Finish(Start({"run", "-m", model_, "hello", "-n", "2"}, "", Path("out"))).exit_code, 0);
}

}  // namespace
}  // namespace dspark::test
