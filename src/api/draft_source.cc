#include "api/draft_source.h"

#include <charconv>
#include <filesystem>

#include "draft/combined.h"
#include "draft/prompt_lookup.h"
#include "load/drafter_tensors.h"
#include "model/weights.h"

namespace dspark {
namespace {

template <class T>
bool ParseWhole(const std::string& text, T* value) {
  const char* end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, *value);
  return parsed.ec == std::errc() && parsed.ptr == end;
}

Status SetPolicy(const std::string& policy, EngineOptions* options) {
  const size_t colon = policy.find(':');
  const std::string kind = policy.substr(0, colon);
  const std::string value = colon == std::string::npos ? "" : policy.substr(colon + 1);
  options->zos = policy == "zos";
  if (policy == "adaptive" || policy == "zos" || policy == "off") return {};
  if (kind == "fixed") {
    if (ParseWhole(value, &options->fixed_draft) && options->fixed_draft >= 0 &&
        options->fixed_draft <= kLongestDraft)
      return {};
    return MakeError("{}: fixed takes a number of drafts from 0 to {}, such as fixed:4", policy,
                     kLongestDraft);
  }
  if (kind == "threshold" || kind == "cumulative") {
    options->threshold_cumulative = kind == "cumulative";
    if (ParseWhole(value, &options->threshold) && options->threshold > 0 && options->threshold <= 1)
      return {};
    return MakeError("{}: {} takes a confidence above 0 and at most 1, such as {}:0.5", policy, kind, kind);
  }
  return MakeError("{} is unknown; use adaptive, zos, fixed:N, threshold:P, cumulative:P or off", policy);
}

bool IsPlain(const DraftOptions& options) {
  return options.no_spec || options.draft == "none" || options.policy == "off";
}

bool OnlyLookup(const DraftOptions& options) { return options.draft == "auto" || options.draft == "lookup"; }

}  // namespace

Status CheckPolicy(const std::string& policy) {
  EngineOptions unused;
  return SetPolicy(policy, &unused);
}

Status CheckDraftFlags(const DraftOptions& options) {
  if (IsPlain(options) || !OnlyLookup(options)) return {};
  if (!options.weights.empty()) {
    return MakeError("--draft-weights {}: --draft {} has no weights; name a drafter's file or directory",
                     options.weights, options.draft);
  }
  if (options.draft == "lookup" && options.no_lookup)
    return MakeError("--no-lookup: --draft lookup is prompt lookup alone; use --draft none");
  return {};
}

Result<std::optional<WeightFormat>> ResolveWeights(const std::string& name) {
  if (name.empty()) return std::optional<WeightFormat>();
  const auto format = WeightFormatFromName(name);
  if (!format) return MakeError("{} is unknown; use f32, bf16, int8 or int4", name);
  return format;
}

Result<DraftSource> ChooseDraftSource(const DraftOptions& options, const ModelConfig& target) {
  DraftSource source;
  DSPARK_ASSIGN_OR_RETURN(source.weights, ResolveWeights(options.weights));
  DSPARK_RETURN_IF_ERROR(CheckDraftFlags(options));
  if (IsPlain(options)) return source;
  source.lookup = !options.no_lookup;
  if (OnlyLookup(options)) return source;
  std::error_code ignored;
  if (!std::filesystem::exists(options.draft, ignored)) {
    return MakeError("--draft {}: no such file or directory; give a drafter's, or auto, lookup or none",
                     options.draft);
  }
  DSPARK_ASSIGN_OR_RETURN(source.files, OpenDrafter(options.draft));
  DSPARK_RETURN_IF_ERROR(CheckDrafterFits(*source.files, target));
  return source;
}

double DraftSource::Bytes(const ModelConfig& target, const TargetLimits& limits, int sequences) const {
  if (!files) return 0;
  const DrafterConfig& c = files->config;
  double values = 0;
  for (const auto& [name, shape] : DrafterShapes(c)) {
    double count = 1;
    for (const int64_t n : shape) count *= double(n);
    values += count;
  }
  const double bytes_per_weight =
      weights ? double(PackedMatrix::StorageBytes(16, 32, *weights)) / (16 * 32) : 4;
  const KvLayout kv{.layers = c.backbone.layers,
                    .kv_heads = c.backbone.kv_heads,
                    .head_dim = c.backbone.head_dim,
                    .block_tokens = limits.block_tokens,
                    .type = limits.kv_type};
  const int blocks = (limits.max_context + c.block_size) / limits.block_tokens + 1;
  const double head_copy = weights == WeightFormat::kInt4Min ? 0.625 * target.vocab * target.d_model : 0;
  return values * bytes_per_weight + head_copy + double(kv.BlockBytes()) * blocks * sequences;
}

Result<std::unique_ptr<Drafter>> DraftSource::Make(const Target& target, ThreadPool& pool, int sequences,
                                                   int kv_blocks) const {
  std::unique_ptr<Drafter> prompt_lookup, model;
  if (lookup) prompt_lookup = std::make_unique<PromptLookup>();
  if (!files) return prompt_lookup;
  const TargetLimits& limits = target.limits();
  DSPARK_ASSIGN_OR_RETURN(model, LoadDrafter(*files, target, pool,
                                             {.max_sequences = sequences,
                                              .max_context = limits.max_context,
                                              .block_tokens = limits.block_tokens,
                                              .kv_blocks = kv_blocks,
                                              .kv_type = limits.kv_type,
                                              .weights = weights,
                                              .own_int4_head = weights == WeightFormat::kInt4Min}));
  if (!lookup) return model;
  return std::unique_ptr<Drafter>(
      std::make_unique<CombinedDrafter>(std::move(prompt_lookup), std::move(model)));
}

Result<EngineOptions> ChooseEngineOptions(const DraftOptions& options, int sequences) {
  EngineOptions engine{.max_sequences = sequences, .fixed_draft = options.draft_max};
  DSPARK_RETURN_IF_ERROR(SetPolicy(options.policy, &engine));
  if (options.accept != "block" && options.accept != "token") {
    return MakeError("--accept {}: unknown; use block or token", options.accept);
  }
  engine.accept_blocks = options.accept == "block";
  return engine;
}

}  // namespace dspark
