// A target that runs for its hidden states: what `prepare cache` and a trainer with a live teacher start
// from.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "api/session.h"
#include "data/live_source.h"

namespace CLI {
class App;
}

namespace dspark {

// The flags of AddSessionFlags that a teacher knows: all but the context, which is the longest sample's.
void AddTeacherFlags(CLI::App& app, SessionOptions* options);

struct TeacherSession {
  // `taps` as ParseTaps takes them; `max_length` 0: the model's context, at most 4096; `top` as Teacher
  // takes it, but for a vocabulary of fewer. Error: one line.
  static Result<std::unique_ptr<TeacherSession>> Open(const SessionOptions& options, const std::string& taps,
                                                      int max_length, int top = 0);

  ModelFiles files;
  int max_length = 0;
  std::unique_ptr<ThreadPool> pool;
  std::unique_ptr<Target> target;
  std::unique_ptr<BlockPool> blocks;
  std::unique_ptr<Teacher> teacher;
  // Whatever decides the bits of the states: the model's file and how it runs.
  std::string made_from;
};

}  // namespace dspark
