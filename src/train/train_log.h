// What a training run leaves for people: train.jsonl, a line a step, and train.html, its curves.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "train/trainer.h"

namespace dspark {

// "step 120/4000  loss 1.83  τ 2.41  accept .71 .62 .55 …  312 anchors/s  2104 positions/s  1 h 12 min left".
// seconds: of this step, everything included.
std::string ProgressLine(const StepReport& report, int64_t total, double seconds, double seconds_left);

class TrainLog {
 public:
  // Goes on after step `step`: what DIR/train.jsonl says of later ones is dropped. `what`: is trained, for
  // people. Error: the file system's.
  static Result<TrainLog> Open(const std::string& dir, int64_t step, const std::string& what);

  // Adds a line, on disk when this returns.
  Status Add(const StepReport& report, double seconds);
  // DIR/train.html: one file, no scripts, nothing from outside.
  Status WriteHtml() const;

 private:
  TrainLog(std::string dir, std::string what) : dir_(std::move(dir)), what_(std::move(what)) {}
  std::string dir_, what_;
  std::vector<nlohmann::json> lines_;
};

}  // namespace dspark
