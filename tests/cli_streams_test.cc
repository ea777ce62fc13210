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
  const int terminal = posix_openpt(O_RDWR | O_NOCTTY);
  ASSERT_GE(terminal, 0);
  ASSERT_EQ(grantpt(terminal), 0);
  ASSERT_EQ(unlockpt(terminal), 0);
  const std::string name = ptsname(terminal);
  for (const bool waits : {false, true}) {
    const pid_t child = Start({"run", "-m", model_}, name, Path("out"));
    ASSERT_TRUE(WaitUntil([&] {
      return waits ? ReadFile(Path("err")).find("> ") != std::string::npos : HandlesInterrupt(child);
    }));
    kill(child, SIGINT);
    EXPECT_EQ(Finish(child).exit_code, 130) << (waits ? "at the prompt" : "while loading");
  }
  close(terminal);
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
