#include "train/open_source.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <thread>

#include "data/train_rows.h"

namespace dspark {

namespace {

// Names are compared as texts, as DeepSpec does: nothing else in a cache says which weights made it.
Status CheckTargetName(const TrainConfig& config, const SampleShape& shape) {
  const std::string& expected = config.cache_target.empty() ? config.target : config.cache_target;
  if (shape.target_name.empty() || shape.target_name == expected) return {};
  return MakeError(
      "{}: made with the target {}, not {}; make the cache again, or, if both are the same weights, give "
      "cache_target={}",
      config.data[0], shape.target_name, expected, shape.target_name);
}

std::vector<std::string> RowsLeftOut(const TrainRows& rows) {
  std::vector<std::string> lines = rows.rejected().first();
  if (rows.rejected().count() > 0)
    lines.push_back(fmt::format("{} of {} rows cannot be used", rows.rejected().count(), rows.rows()));
  if (rows.short_rows() > 0) {
    lines.push_back(fmt::format("{} of {} rows left out with less than {} supervised tokens",
                                rows.short_rows(), rows.rows(), kMinLossTokens));
  }
  return lines;
}

// Why there is no sample.
Error NoSamples(const TrainConfig& config, const TrainRows& rows) {
  const auto& first = rows.rejected().first();
  if (first.empty() && rows.short_rows() > 0) {
    return MakeError(
        "{}: all of {} rows have less than {} supervised tokens within max_length={}; raise max_length, or "
        "give "
        "rows with longer answers",
        fmt::join(config.data, ", "), rows.rows(), kMinLossTokens, config.max_length);
  }
  return MakeError(
      "{}: none of {} rows gives a sample{}; expected JSONL with {{\"conversations\": [...]}} or "
      "{{\"messages\": [...]}} in a line, answers in them, or the directory of one target cache",
      fmt::join(config.data, ", "), rows.rows(), first.empty() ? "" : " (" + first[0] + ")");
}

}  // namespace

std::string TeacherText(const SampleShape& shape) {
  if (shape.teacher_top == 0) return "the target's whole distribution";
  return fmt::format("the target's {} likeliest tokens", shape.teacher_top);
}

Result<std::unique_ptr<TrainingData>> TrainingData::Open(const TrainConfig& config, const ModelFiles& files,
                                                         const std::vector<int>& taps) {
  auto data = std::make_unique<TrainingData>();
  std::error_code error;
  if (config.data.size() == 1 && std::filesystem::is_directory(config.data[0], error)) {
    DSPARK_ASSIGN_OR_RETURN(TargetCache cache, TargetCache::Open(config.data[0], files.config.vocab));
    if (config.kind == "mtp" && cache.manifest().form == CacheForm::kCompact) {
      return MakeError(
          "{}: a compact cache lacks the last hidden states of most rows, which mtp reads; make it without "
          "--compact",
          config.data[0]);
    }
    if (config.kind == "eagle3" && !cache.shape().knows_length) {
      return MakeError(
          "{}: a compact cache of version 1 lacks the row behind the last answer, which eagle3 reads; make "
          "it "
          "again: dspark prepare cache ... --compact --force",
          config.data[0]);
    }
    DSPARK_RETURN_IF_ERROR(CheckTargetName(config, cache.shape()));
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
  if (tokens.empty()) return NoSamples(config, rows);
  messages_ = RowsLeftOut(rows);
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
