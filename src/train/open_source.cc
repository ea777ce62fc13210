#include "train/open_source.h"

#include <algorithm>
#include <filesystem>
#include <thread>

#include "data/train_rows.h"

namespace dspark {

Result<std::unique_ptr<TrainingData>> TrainingData::Open(const TrainConfig& config, const ModelFiles& files,
                                                         const std::vector<int>& taps) {
  auto data = std::make_unique<TrainingData>();
  std::error_code error;
  if (config.data.size() == 1 && std::filesystem::is_directory(config.data[0], error)) {
    DSPARK_ASSIGN_OR_RETURN(TargetCache cache, TargetCache::Open(config.data[0], files.config.vocab));
    data->source_ = std::make_unique<TargetCache>(std::move(cache));
    return data;
  }
  DSPARK_RETURN_IF_ERROR(data->OpenLive(config, files, taps));
  return data;
}

Status TrainingData::OpenLive(const TrainConfig& config, const ModelFiles& files,
                              const std::vector<int>& taps) {
  if (!files.tokenizer) return MakeError("{}: has no tokenizer; give data as a target cache", config.target);
  const int length = std::min(config.max_length, files.config.max_context);
  DSPARK_ASSIGN_OR_RETURN(const TrainTemplate format, ChooseTrainTemplate("model", "", files.chat_template));
  TrainRows rows(config.data, *files.tokenizer, {.format = format, .max_length = length});
  DSPARK_ASSIGN_OR_RETURN(std::vector<TrainTokens> tokens, ReadTrainTokens(rows));
  const int cores = std::max(1, int(std::thread::hardware_concurrency()));
  pool_ = std::make_unique<ThreadPool>(config.threads > 0 ? config.threads : cores, DetectIsa());
  DSPARK_ASSIGN_OR_RETURN(
      target_,
      LoadTarget(
          files, *pool_,
          {.max_rows = 256, .max_logit_rows = 1, .max_context = length, .max_taps = int(taps.size()) + 1}));
  blocks_ = std::make_unique<BlockPool>(target_->kv_layout(), Teacher::BlocksFor(*target_, length));
  DSPARK_ASSIGN_OR_RETURN(
      source_, LiveSource::Make(std::move(tokens), Teacher(*target_, *blocks_, taps), config.target));
  return {};
}

}  // namespace dspark
