// The samples that a training configuration names.
#pragma once

#include <memory>

#include "data/live_source.h"
#include "data/target_cache.h"
#include "train/train_config.h"

namespace dspark {

// A source with what it runs on: a target cache, or conversations and the target that reads them.
class TrainingData {
 public:
  // config.data names one directory (a cache) or JSONL files; `taps`: the drafter's. Error: the files'.
  static Result<std::unique_ptr<TrainingData>> Open(const TrainConfig& config, const ModelFiles& files,
                                                    const std::vector<int>& taps);

  SampleSource& source() { return *source_; }

 private:
  Status OpenLive(const TrainConfig& config, const ModelFiles& files, const std::vector<int>& taps);

  std::unique_ptr<ThreadPool> pool_;
  std::unique_ptr<Target> target_;
  std::unique_ptr<BlockPool> blocks_;
  std::unique_ptr<SampleSource> source_;
};

}  // namespace dspark
