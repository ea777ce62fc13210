// The samples that a training configuration names.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "data/live_source.h"
#include "data/target_cache.h"
#include "train/train_config.h"

namespace dspark {

// A source with what it runs on: a target cache, or conversations and the target that reads them.
class TrainingData {
 public:
  // config.data names one directory (a cache) or JSONL files; `taps`: the drafter's. Error: the files'; a
  // cache of another target (data_pipeline.md §5.10); no row that gives a sample.
  static Result<std::unique_ptr<TrainingData>> Open(const TrainConfig& config, const ModelFiles& files,
                                                    const std::vector<int>& taps);

  SampleSource& source() { return *source_; }
  // What the user shall know of rows that were left out, a line each.
  const std::vector<std::string>& messages() const { return messages_; }

 private:
  Status OpenLive(const TrainConfig& config, const ModelFiles& files, const std::vector<int>& taps);

  std::unique_ptr<ThreadPool> pool_;
  std::unique_ptr<Target> target_;
  std::unique_ptr<BlockPool> blocks_;
  std::unique_ptr<SampleSource> source_;
  std::vector<std::string> messages_;
};

// What samples of this shape teach with, for people.
std::string TeacherText(const SampleShape& shape);

}  // namespace dspark
