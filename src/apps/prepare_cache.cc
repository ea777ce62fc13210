// dspark prepare cache: the target's hidden states for conversations, on disk.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>

#include "apps/output.h"
#include "apps/prepare.h"
#include "apps/progress_line.h"
#include "apps/pull.h"
#include "apps/teacher_session.h"
#include "core/clock.h"
#include "data/compact_sample.h"
#include "data/write_cache.h"

namespace dspark {
namespace {

// Of the default model's own text, 64 tokens hold 99 % of the probability (docs/formats.md).
constexpr int kDefaultTeacherTop = 64;

struct CacheOptions {
  SessionOptions session;
  std::vector<std::string> inputs;
  std::string out, taps = "auto", chat_template = "model", system, target_name;
  int max_length = 0, min_loss_tokens = kMinLossTokens;
  int64_t max_shard_bytes = kDefaultShardBytes;
  int teacher_top = kDefaultTeacherTop;
  bool compact = false, force = false;
};

// Rates and the time left count from the first report: what an earlier call made took no time of this one.
class CacheProgressLine {
 public:
  explicit CacheProgressLine(int64_t total_rows) : total_(total_rows) {}

  void Show(const CacheProgress& now) {
    if (!start_) {
      start_ = now;
      start_ms_ = NowMs();
    }
    line_.Show([&] { return Text(now); });
  }

 private:
  std::string Text(const CacheProgress& now) const {
    const double seconds = (NowMs() - start_ms_) / 1e3, rows = double(now.rows - start_->rows);
    const int left = int(rows > 0 ? seconds * double(total_ - now.rows) / rows : 0);
    return fmt::format("{} of {} rows, {} samples, {:.0f} tokens/s, {}:{:02}:{:02} left", now.rows, total_,
                       now.samples, double(now.tokens) / seconds, left / 3600, left / 60 % 60, left % 60);
  }

  const int64_t total_;
  std::optional<CacheProgress> start_;
  double start_ms_ = 0;
  ProgressLine line_;
};

CacheJob JobOf(const CacheOptions& options, const TeacherSession& session, const TrainTemplate& format) {
  const std::string model =
      options.session.model.empty() ? DefaultModelPackage().name : options.session.model;
  CacheJob job{.inputs = options.inputs,
               .out = options.out,
               .rows = {.format = format,
                        .max_length = session.max_length,
                        .min_loss_tokens = options.min_loss_tokens,
                        .rejected = options.out + "_rejected.jsonl"},
               .settings = {}};
  std::ranges::sort(job.inputs);  // as DeepSpec does
  CacheManifest& manifest = job.settings.manifest;
  manifest.form = options.compact ? CacheForm::kCompact : CacheForm::kDeepSpec;
  manifest.shape = {.tap_layers = session.teacher->tap_layers(),
                    .d_model = session.files.config.d_model,
                    .vocab = session.files.config.vocab,
                    .target_name = options.target_name.empty() ? model : options.target_name,
                    .teacher_top = session.teacher->top()};
  manifest.sources = job.inputs;
  manifest.chat_template = options.chat_template;
  manifest.max_length = session.max_length;
  manifest.min_loss_tokens = options.min_loss_tokens;
  manifest.project_name = "dspark";
  manifest.exp_name = std::filesystem::path(options.out).filename().string();
  manifest.git_sha = "unknown";
  job.settings.max_shard_bytes = options.max_shard_bytes;
  job.settings.made_from = fmt::format("{} system \"{}\";", session.made_from, format.system);
  return job;
}

Result<int> Run(CacheOptions& options) {
  while (options.out.size() > 1 && options.out.ends_with('/')) options.out.pop_back();
  DSPARK_ASSIGN_OR_RETURN(const auto session,
                          TeacherSession::Open(options.session, options.taps, options.max_length,
                                               options.compact ? options.teacher_top : 0));
  DSPARK_ASSIGN_OR_RETURN(
      const TrainTemplate format,
      ChooseTrainTemplate(options.chat_template, options.system, session->files.chat_template));
  const CacheJob job = JobOf(options, *session, format);
  DSPARK_ASSIGN_OR_RETURN(const int64_t rows, CountRows(options.inputs));
  DSPARK_RETURN_IF_ERROR(CheckOutputs(job));
  if (options.force) RemoveCache(options.out);  // now that all else is in order
  CacheProgressLine line(rows);
  const auto result = WriteCache(job, *session->teacher, *session->files.tokenizer,
                                 [&](const CacheProgress& p) { line.Show(p); });
  if (!result) return result.error();
  if (result->was_there) {
    PrintOutput("{}: holds a whole cache already; --force makes it anew\n", options.out);
    return kExitOk;
  }
  for (const std::string& row : result->first_rejected) PrintMessage("{}\n", row);
  if (result->rejected > 0) {
    PrintMessage("{0} rows cannot be used: {1}_rejected.jsonl has them all with the reasons\n",
                 result->rejected, options.out);
  }
  PrintOutput("{}: {} samples; {} rows left out with less than {} supervised tokens\n", options.out,
              result->samples, result->short_rows, options.min_loss_tokens);
  if (result->top_rows > 0) {
    PrintOutput("teacher: the {} likeliest tokens; in the {} rows of this call {:.2f} % of the probability\n",
                job.settings.manifest.shape.teacher_top, result->top_rows, 100 * result->top_mass);
  }
  return kExitOk;
}

}  // namespace

Command AddPrepareCache(CLI::App& app) {
  auto options = std::make_shared<CacheOptions>();
  app.add_option("in", options->inputs, "JSONL of conversations with answers, also .gz; a list is sorted")
      ->required();
  app.add_option("--out", options->out, "Directory of the cache. Called again, goes on where it was ended")
      ->required();
  AddTeacherFlags(app, &options->session);
  app.add_option("--taps", options->taps,
                 "Layers whose outputs are kept, as 1,9,17; -1 is the embedding [auto: five, spread evenly]");
  app.add_option("--max-length", options->max_length,
                 "Tokens of a sample [the model's context, at most 4096]")
      ->check(CLI::Range(1, 1 << 20));
  app.add_option("--min-loss-tokens", options->min_loss_tokens,
                 "Leave out samples with fewer supervised tokens [14]")
      ->check(CLI::Range(1, 1 << 20));
  auto* compact =
      app.add_flag("--compact", options->compact,
                   "Our own form, less than half the size: 8-bit taps, zstd. Without: DeepSpec's version 2");
  app.add_option(
         "--teacher-top-k", options->teacher_top,
         "How many of the target's likeliest tokens teach a drafter, with --compact; 0: all, by the last\n"
         "hidden states [64]")
      ->needs(compact)
      ->check(CLI::Range(0, kMaxTeacherTop));
  app.add_option(
         "--template", options->chat_template,
         "How conversations are written out: model, as the model is served, or qwen, with DeepSpec's\n"
         "system prompt [model]")
      ->check(CLI::IsMember({"model", "qwen"}));
  app.add_option("--system", options->system, "System prompt for conversations that have none");
  app.add_option("--target-name", options->target_name,
                 "The target's name in the manifest, which DeepSpec compares [as -m says]");
  app.add_option("--max-shard-bytes", options->max_shard_bytes, "A file's size at most [68719476736]")
      ->check(CLI::PositiveNumber);
  app.add_flag("--force", options->force, "Make a cache that exists anew");
  app.footer(
      "\nExamples:\n"
      "  dspark prepare cache data/own.jsonl --out cache -m model.gguf --compact");
  return [options] { return Run(*options); };
}

}  // namespace dspark
