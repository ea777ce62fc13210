// Running a helper program to its end while staying interruptible.
#pragma once

#include <signal.h>

#include <functional>
#include <string>
#include <vector>

#include "core/result.h"

namespace dspark {

// Keeps SIGINT, SIGTERM and SIGHUP from ending the process while it lives; RunChild takes them as "stop".
class SignalHold {
 public:
  SignalHold();
  ~SignalHold();  // what arrived meanwhile and was not taken is delivered now
  SignalHold(const SignalHold&) = delete;
  SignalHold& operator=(const SignalHold&) = delete;

  const sigset_t& held() const { return held_; }
  const sigset_t& before() const { return before_; }

 private:
  sigset_t held_, before_;
};

struct ChildCommand {
  std::vector<std::string> arguments;    // [0] is looked up on PATH
  std::vector<std::string> environment;  // "NAME=value", set over this process's own
  std::string directory;                 // the child's working directory
  std::string log;                       // file that gets its stdout and stderr; stdin is empty
};

// Runs `command` to its end and returns its exit code (128 + number for a signal), calling `tick` some ten
// times a second. Error: it cannot be started, or a held signal arrived; then the child and what it started
// are killed.
Result<int> RunChild(const ChildCommand& command, const SignalHold& signals,
                     const std::function<void()>& tick);

}  // namespace dspark
