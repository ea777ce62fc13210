#include "api/draft_source.h"

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "api/shipped_drafters.h"
#include "draft/combined.h"
#include "draft/ngram_table.h"
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

Status AddDrafter(const std::string& path, const ModelFiles& target, DraftSource* source) {
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) {
    return MakeError("--draft {}: no such file or directory; give a drafter's, or auto, lookup or none",
                     path);
  }
  const bool table = LooksLikeNgramFile(path);
  if (table ? source->table.has_value() : source->files.has_value()) {
    return MakeError("--draft {}: the second {} of the list; give one", path,
                     table ? "counted table" : "trained drafter");
  }
  if (table) {
    DSPARK_ASSIGN_OR_RETURN(source->table, NgramFile::Open(path));
    return CheckNgramFits(*source->table, target.config, target.tokenizer.get());
  }
  auto opened = OpenDrafter(path);
  if (!opened && OpenModel(path))
    return MakeError("--draft {}: is a model, not a drafter; give it with -m", path);
  DSPARK_ASSIGN_OR_RETURN(source->files, std::move(opened));
  return CheckDrafterFits(*source->files, target.config);
}

// A list of -md, part by part.
Status CheckDraftList(const DraftOptions& options) {
  for (const std::string& part : DraftParts(options.draft)) {
    if (part.empty()) {
      return MakeError(
          "--draft \"{}\": a name in it is empty; give lookup, a drafter's file or directory, or "
          "several with one comma between them",
          options.draft);
    }
    if (part == "none" || part == "auto") {
      return MakeError("--draft {}: {} stands alone; a list holds lookup and drafters' files or directories",
                       options.draft, part);
    }
    if (part == "lookup" && options.no_lookup)
      return MakeError("--no-lookup: --draft {} asks for lookup; leave one of them out", options.draft);
  }
  return {};
}

}  // namespace

Status CheckPolicy(const std::string& policy) {
  EngineOptions unused;
  return SetPolicy(policy, &unused);
}

Status CheckDraftFlags(const DraftOptions& options) {
  if (IsPlain(options)) return {};
  if (!OnlyLookup(options)) return CheckDraftList(options);
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

std::vector<std::string> DraftParts(const std::string& draft) {
  std::error_code ignored;
  if (std::filesystem::exists(draft, ignored)) return {draft};
  std::vector<std::string> parts;
  for (size_t begin = 0, end; begin <= draft.size(); begin = end + 1) {
    end = std::min(draft.find(',', begin), draft.size());
    parts.push_back(draft.substr(begin, end - begin));
  }
  return parts;
}

Result<DraftSource> ChooseDraftSource(const DraftOptions& options, const ModelFiles& target) {
  DraftSource source;
  DSPARK_ASSIGN_OR_RETURN(source.weights, ResolveWeights(options.weights));
  DSPARK_RETURN_IF_ERROR(CheckDraftFlags(options));
  if (IsPlain(options)) return source;
  source.lookup = !options.no_lookup;
  if (options.draft == "auto") source.table = FindShippedTable(target, ShippedDrafterFolders());
  if (OnlyLookup(options)) return source;
  for (const std::string& part : DraftParts(options.draft)) {
    if (part == "lookup") {
      source.lookup = true;
    } else {
      DSPARK_RETURN_IF_ERROR(AddDrafter(part, target, &source));
    }
  }
  if (options.weights.empty() || source.files) return source;
  return MakeError("--draft-weights {}: --draft {} has no weights; name a drafter's file or directory",
                   options.weights, options.draft);
}

std::string DraftSource::Names() const {
  std::vector<std::string> names;
  if (lookup) names.emplace_back("lookup");
  if (table) names.push_back(table->path());
  if (files) names.push_back(files->path);
  return names.empty() ? "none" : fmt::format("{}", fmt::join(names, ","));
}

int DraftSource::max_drafts() const {
  int most = lookup || table ? kLongestDraft : 0;
  if (files) most = std::max(most, files->config.max_drafts());
  return most;
}

double DraftSource::Bytes(const ModelConfig& target, const TargetLimits& limits, int sequences) const {
  const double counted = table ? double(NgramBytes(table->entries())) : 0;
  if (!files) return counted;
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
  return counted + values * bytes_per_weight + head_copy + double(kv.BlockBytes()) * blocks * sequences;
}

Result<std::unique_ptr<Drafter>> DraftSource::Make(const Target& target, ThreadPool& pool, int sequences,
                                                   int kv_blocks) const {
  std::vector<std::unique_ptr<Drafter>> free;
  if (lookup) free.push_back(std::make_unique<PromptLookup>());
  if (table) free.push_back(std::make_unique<NgramTable>(*table));
  std::unique_ptr<Drafter> model;
  if (!files && free.empty()) return model;
  if (!files && free.size() == 1) return std::move(free.front());
  if (!files) return std::unique_ptr<Drafter>(std::make_unique<CombinedDrafter>(std::move(free), nullptr));
  const TargetLimits& limits = target.limits();
  DSPARK_ASSIGN_OR_RETURN(model, LoadDrafter(*files, target, pool,
                                             {.max_sequences = sequences,
                                              .max_context = limits.max_context,
                                              .block_tokens = limits.block_tokens,
                                              .kv_blocks = kv_blocks,
                                              .kv_type = limits.kv_type,
                                              .weights = weights,
                                              .own_int4_head = weights == WeightFormat::kInt4Min}));
  if (free.empty()) return model;
  return std::unique_ptr<Drafter>(std::make_unique<CombinedDrafter>(std::move(free), std::move(model)));
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
