// The built binary on the tiny model: starts it with its standard streams in files, and waits for it.
#pragma once

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "sanitized.h"
#include "tiny_model.h"

namespace dspark::test {

inline std::string ReadFile(const std::string& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

struct Outcome {
  int exit_code = -1;  // -1: it did not exit but was ended by a signal
  std::string out, err;
};

class Cli : public testing::Test {
 protected:
  Cli() : model_(WriteTinyLlamaGguf(dir_.path(), 1)) {}

  // Starts dspark. `in` and `out` are paths; an empty one closes the stream.
  pid_t Start(const std::vector<std::string>& arguments, const std::string& in, const std::string& out) {
    const pid_t child = fork();
    if (child != 0) return child;
    setenv("XDG_CACHE_HOME", dir_.path().c_str(), 1);    // no default model, no cost tables of others
    const std::string paths[] = {in, out, Path("err")};  // in order of STDIN_FILENO, STDOUT_FILENO, ...
    int files[3];
    for (int i = 0; i < 3; ++i) {
      if (paths[i].empty()) continue;
      files[i] = open(paths[i].c_str(), i == 0 ? O_RDONLY : O_WRONLY | O_CREAT | O_TRUNC, 0600);
      if (files[i] < 0) _exit(99);
    }
    for (int i = 0; i < 3; ++i) paths[i].empty() ? close(i) : dup2(files[i], i);
    for (int i = 0; i < 3; ++i) {
      if (!paths[i].empty()) close(files[i]);
    }
    std::vector<char*> argv{const_cast<char*>("dspark")};
    for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    execv(DSPARK_BINARY, argv.data());
    _exit(98);
  }

  // Waits for its end; one that does not come is killed in time.
  Outcome Finish(pid_t child) {
    int status = 0;
    const bool ended = WaitUntil([&] { return waitpid(child, &status, WNOHANG) == child; });
    EXPECT_TRUE(ended) << "it runs on";
    if (!ended) {
      kill(child, SIGKILL);
      waitpid(child, &status, 0);
    }
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, ReadFile(Path("out")), ReadFile(Path("err"))};
  }

  // Runs dspark with `input` on its standard input.
  Outcome Run(const std::vector<std::string>& arguments, const std::string& input = "") {
    std::ofstream(Path("in")) << input;
    return Finish(Start(arguments, Path("in"), Path("out")));
  }

  // True as soon as `holds`, false when it does not within half a minute; sanitizers on a busy machine need
  // more.
  static bool WaitUntil(const std::function<bool()>& holds) {
    for (int i = 0; i < (kSanitized ? 90000 : 15000); ++i) {
      if (holds()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return false;
  }

  // A failure: its exit code, and exactly one line on stderr that holds `text`.
  static void ExpectOneLine(const Outcome& outcome, int exit_code, const std::string& text) {
    EXPECT_EQ(outcome.exit_code, exit_code);
    EXPECT_EQ(outcome.out, "");
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
    EXPECT_THAT(outcome.err, testing::HasSubstr(text));
  }

  std::string Path(const std::string& name) const { return dir_.path() + "/" + name; }

  TempDir dir_;
  std::string model_;
};

}  // namespace dspark::test
