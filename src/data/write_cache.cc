#include "data/write_cache.h"

#include <cmath>
#include <filesystem>

#include "core/mapped_file.h"
#include "core/sha256.h"
#include "data/compact_sample.h"

namespace dspark {
namespace {

// Enough rows for passes that are full, few enough that their states stay in some 10 MB.
constexpr size_t kBatchTokens = 2048;

// What tells other inputs from those a cache was begun with.
Result<std::string> Digests(const std::vector<std::string>& paths) {
  std::string digests;
  for (const std::string& path : paths) {
    DSPARK_ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path));
    digests += fmt::format(" {}", Sha256Hex(file.bytes()));
  }
  return digests;
}

// Samples until they have kBatchTokens tokens, or the rows end.
Result<std::vector<TrainTokens>> NextBatch(TrainRows& rows, const Teacher& teacher) {
  std::vector<TrainTokens> batch;
  for (size_t tokens = 0; tokens < kBatchTokens;) {
    DSPARK_ASSIGN_OR_RETURN(auto next, rows.Next());
    if (!next) break;
    if (const Status fits = teacher.Check(*next); !fits)
      return MakeError("the sample of row {} {}", rows.rows(), fits.error().text);
    tokens += next->ids.size();
    batch.push_back(std::move(*next));
  }
  return batch;
}

// Counts the lists of a sample and what they hold; top_mass is a sum here.
void AddTop(const TrainSample& sample, CacheSummary* summary) {
  const size_t k = sample.top.ids.size() / sample.ids.size();
  if (k == 0) return;
  for (const int row : TeacherRows(sample.loss_mask)) {
    ++summary->top_rows;
    for (size_t i = size_t(row) * k; i < size_t(row + 1) * k; ++i)
      summary->top_mass += std::exp(double(sample.top.log_p[i]));
  }
}

}  // namespace

Status CheckOutputs(const CacheJob& job) {
  std::error_code missing;
  for (const std::string& path : job.inputs) {
    if (std::filesystem::equivalent(path, job.rows.rejected, missing))
      return MakeError("{}: would be replaced by the rows that cannot be used; give --out another name",
                       path);
  }
  return RejectedRows::CheckPath(job.rows.rejected);
}

Result<CacheSummary> WriteCache(const CacheJob& job, Teacher& teacher, const Tokenizer& tokenizer,
                                FunctionRef<void(const CacheProgress&)> progress) {
  DSPARK_RETURN_IF_ERROR(CheckOutputs(job));
  CacheSettings settings = job.settings;
  DSPARK_ASSIGN_OR_RETURN(const std::string digests, Digests(job.inputs));
  settings.made_from += digests;
  if (HoldsWholeCache(job.out)) {
    DSPARK_RETURN_IF_ERROR(CheckSameSettings(job.out, settings));
    return CacheSummary{.was_there = true};
  }
  DSPARK_ASSIGN_OR_RETURN(CacheWriter writer, CacheWriter::Open(job.out, settings));
  TrainRows rows(job.inputs, tokenizer, job.rows);
  for (int64_t i = 0; i < writer.samples(); ++i) {
    DSPARK_ASSIGN_OR_RETURN(const auto there, rows.Next());
    if (!there) return MakeError("{}: holds more samples than the inputs give; use --force", job.out);
  }
  CacheSummary summary;
  CacheProgress done{rows.rows(), writer.samples(), 0};
  progress(done);
  for (;;) {
    DSPARK_ASSIGN_OR_RETURN(const std::vector<TrainTokens> batch, NextBatch(rows, teacher));
    if (batch.empty()) break;
    std::vector<const TrainTokens*> pointers;
    pointers.reserve(batch.size());
    for (const TrainTokens& tokens : batch) pointers.push_back(&tokens);
    DSPARK_ASSIGN_OR_RETURN(const std::vector<TrainSample> samples, teacher.Run(pointers));
    for (const TrainSample& sample : samples) {
      DSPARK_RETURN_IF_ERROR(writer.Append(sample));
      done.tokens += int64_t(sample.ids.size());
      AddTop(sample, &summary);
    }
    done.rows = rows.rows();
    done.samples = writer.samples();
    progress(done);
  }
  if (writer.samples() == 0) {
    RemoveCache(job.out);  // or a call with settings that give samples would be refused for these
    return MakeError("{}: no row has {} supervised tokens or more; are there answers in the input?", job.out,
                     job.rows.min_loss_tokens);
  }
  DSPARK_RETURN_IF_ERROR(writer.Finish());
  summary.samples = writer.samples();
  summary.short_rows = rows.short_rows();
  summary.rejected = rows.rejected().count();
  summary.first_rejected = rows.rejected().first();
  if (summary.top_rows > 0) summary.top_mass /= double(summary.top_rows);
  return summary;
}

}  // namespace dspark
