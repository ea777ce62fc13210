#include "api/session.h"

#include <algorithm>
#include <filesystem>

#include "api/default_model.h"
#include "api/memory_plan.h"
#include "core/clock.h"

namespace dspark {
namespace {

// A cost table holds for one processor, model file, thread count, instruction set, context, width of passes,
// and type of weights and of K/V.
std::string CostPath(const std::string& model, const Session& session) {
  std::error_code ignored;
  const auto path = std::filesystem::absolute(model, ignored);
  const auto size =
      std::filesystem::is_regular_file(path, ignored) ? std::filesystem::file_size(path, ignored) : 0;
  const auto time = std::filesystem::last_write_time(path, ignored).time_since_epoch().count();
  const TargetLimits& limits = session.target->limits();
  const size_t key = std::hash<std::string>{}(
      fmt::format("{}|{}|{}|{}|{}|{}|{}", CpuName(), path.string(), size, time, limits.max_context,
                  limits.max_logit_rows, limits.weights ? int(*limits.weights) : -1));
  const bool wide = session.target->kv_layout().type == KvType::kF32;
  return fmt::format("{}/costs/{:016x}-{}-t{}{}.json", CacheDirectory(), key, IsaName(session.pool->isa()),
                     session.pool->threads(), wide ? "-kv32" : "");
}

CostTable MeasuredCosts(const Session& session) {
  // Wide passes take longer to measure.
  const double budget_ms = session.target->limits().max_logit_rows > 64 ? 2500 : 600;
  return MeasureCosts(*session.target, *session.blocks, budget_ms);
}

}  // namespace

Result<Isa> ResolveIsa(const std::string& name) {
  if (name.empty()) return DetectIsa();
  const auto isa = IsaFromName(name);
  if (!isa) return MakeError("{} is unknown; use reference, avx2 or avx512_vnni", name);
  if (!IsaSupported(*isa)) return MakeError("{}: this processor does not have it; leave --isa out", name);
  return *isa;
}

Result<KvType> ResolveKv(const std::string& name) {
  if (name == "f16") return KvType::kF16;
  if (name == "f32") return KvType::kF32;
  return MakeError("{} is unknown; use f16 or f32", name);
}

Result<std::string> ResolveModel(const std::string& model) {
  std::error_code error;
  if (!model.empty() && std::filesystem::exists(model, error)) return model;
  const std::string name = DefaultModelPackage().name;
  if (model.empty() || model == name) return FindDefaultModel();
  return MakeError("{}: no such file or directory, nor a known model; known by name: {}", model, name);
}

// Noise only adds to a measurement. A table that proved much too dear was measured on a busy machine, and
// widths that were never tried since are as wrong as the others were: it is forgotten, and measured anew next
// time.
Session::~Session() {
  constexpr double kBadlyMeasured = 1.5, kWorthKeeping = 1.1;
  if (cost_path.empty() || !engine) return;
  const CostTable::Drift drift = engine->costs().drift();
  std::error_code ignored;
  if (drift.down > kBadlyMeasured) {
    std::filesystem::remove(cost_path, ignored);
  } else if (std::max(drift.up, drift.down) > kWorthKeeping) {
    if (auto saved = SaveCosts(cost_path, engine->costs()); !saved) return;  // the old table stays
  }
}

CostTable SessionCosts(Session& session) {
  session.cost_path = CostPath(session.model_path, session);
  if (auto cached = LoadCosts(session.cost_path)) return std::move(cached).value();
  CostTable costs = MeasuredCosts(session);
  // A cache that cannot be written only means measuring again next time.
  if (auto saved = SaveCosts(session.cost_path, costs); !saved) return costs;
  return costs;
}

Result<std::unique_ptr<Session>> Session::Open(const SessionOptions& options) {
  const double start = NowMs();
  auto session = std::make_unique<Session>();
  DSPARK_ASSIGN_OR_RETURN(session->model_path, ResolveModel(options.model));
  DSPARK_ASSIGN_OR_RETURN(const Isa isa, ResolveIsa(options.isa));
  TargetLimits limits;
  DSPARK_ASSIGN_OR_RETURN(limits.kv_type, ResolveKv(options.kv));
  DSPARK_ASSIGN_OR_RETURN(limits.weights, ResolveWeights(options.weights));
  DSPARK_ASSIGN_OR_RETURN(EngineOptions engine, ChooseEngineOptions(options.draft, options.sequences));
  DSPARK_ASSIGN_OR_RETURN(session->files, OpenModel(session->model_path));
  DSPARK_ASSIGN_OR_RETURN(limits.max_context, ChooseContext(session->files.config, options.context));
  limits.max_logit_rows = std::max(options.logit_rows, options.sequences);
  DSPARK_ASSIGN_OR_RETURN(const DraftSource source, ChooseDraftSource(options.draft, session->files));
  limits.max_taps = std::max(source.taps(), options.taps);
  session->pool = std::make_unique<ThreadPool>(options.threads > 0 ? options.threads : UsableCores(), isa);
  engine.pool = session->pool.get();
  engine.prefix_cache = true;
  engine.observer = options.observer;
  const KvNeed kv{options.sequences, options.kv_tokens};
  DSPARK_RETURN_IF_ERROR(
      CheckMemory(session->files, limits, kv, session->pool->threads(), source, MachineMemory()));
  DSPARK_ASSIGN_OR_RETURN(session->target, LoadTarget(session->files, *session->pool, limits));
  const KvLayout layout = session->target->kv_layout();
  const int blocks = kv.Blocks(layout, limits.max_context);
  DSPARK_ASSIGN_OR_RETURN(session->drafter,
                          source.Make(*session->target, *session->pool, options.sequences, blocks));
  session->drafter_names = source.Names();
  session->blocks = std::make_unique<BlockPool>(layout, blocks);
  engine.draft_forced = session->drafter != nullptr;
  CostTable costs;
  if (session->drafter && engine.Adaptive())
    costs = options.keep_costs ? SessionCosts(*session) : MeasuredCosts(*session);
  session->engine = std::make_unique<Engine>(*session->target, *session->blocks, session->drafter.get(),
                                             session->files.tokenizer.get(), std::move(costs), engine);
  session->load_ms = NowMs() - start;
  return session;
}

}  // namespace dspark
