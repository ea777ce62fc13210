#include "apps/teacher_session.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>

#include "api/memory_plan.h"
#include "apps/session_flags.h"
#include "data/tap_choice.h"

namespace dspark {
namespace {

constexpr int kDefaultMaxLength = 4096;  // DeepSpec's
constexpr int kRowsWithLogits = 256;     // of a pass: 50 MB of logits where the vocabulary has 49,152 tokens

std::string MadeFrom(const std::string& path, const ThreadPool& pool, const Target& target) {
  std::error_code ignored;
  const bool file = std::filesystem::is_regular_file(path, ignored);
  const TargetLimits& limits = target.limits();
  return fmt::format(
      "{}, {} bytes, {}, kv {}, weights {};", std::filesystem::absolute(path, ignored).string(),
      file ? std::filesystem::file_size(path, ignored) : 0, IsaName(pool.isa()),
      limits.kv_type == KvType::kF32 ? "f32" : "f16", limits.weights ? int(*limits.weights) : -1);
}

}  // namespace

void AddTeacherFlags(CLI::App& app, SessionOptions* options) {
  AddSessionFlags(app, options);
  app.remove_option(app.get_option("--ctx"));
}

Result<std::unique_ptr<TeacherSession>> TeacherSession::Open(const SessionOptions& options,
                                                             const std::string& taps, int max_length,
                                                             int top) {
  auto session = std::make_unique<TeacherSession>();
  DSPARK_ASSIGN_OR_RETURN(const std::string path, ResolveModel(options.model));
  DSPARK_ASSIGN_OR_RETURN(const Isa isa, ResolveIsa(options.isa));
  TargetLimits limits{.max_logit_rows = 1};
  DSPARK_ASSIGN_OR_RETURN(limits.kv_type, ResolveKv(options.kv));
  DSPARK_ASSIGN_OR_RETURN(limits.weights, ResolveWeights(options.weights));
  DSPARK_ASSIGN_OR_RETURN(session->files, OpenModel(path));
  const ModelConfig& config = session->files.config;
  if (!session->files.tokenizer)
    return MakeError("{}: holds no tokenizer; training data needs one to turn text into ids", path);
  const int length = max_length > 0 ? max_length : std::min(config.max_context, kDefaultMaxLength);
  DSPARK_ASSIGN_OR_RETURN(limits.max_context, ChooseContext(config, length));
  DSPARK_ASSIGN_OR_RETURN(std::vector<int> tap_layers, ParseTaps(taps, config.layers));
  limits.max_taps = int(tap_layers.size()) + 1;
  if (top > 0) limits.max_rows = limits.max_logit_rows = kRowsWithLogits;
  session->max_length = length;
  session->pool = std::make_unique<ThreadPool>(options.threads > 0 ? options.threads : UsableCores(), isa);
  DSPARK_RETURN_IF_ERROR(
      CheckMemory(session->files, limits, KvNeed(/*n=*/3), session->pool->threads(), {}, MachineMemory()));
  DSPARK_ASSIGN_OR_RETURN(session->target, LoadTarget(session->files, *session->pool, limits));
  session->blocks =
      std::make_unique<BlockPool>(session->target->kv_layout(), Teacher::BlocksFor(*session->target, length));
  session->teacher = std::make_unique<Teacher>(*session->target, *session->blocks, std::move(tap_layers),
                                               std::min(top, config.vocab));
  session->made_from = MadeFrom(path, *session->pool, *session->target);
  return session;
}

}  // namespace dspark
