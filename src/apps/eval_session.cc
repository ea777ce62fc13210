#include "apps/eval_session.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <set>

#include "api/default_model.h"
#include "apps/drafter_info.h"
#include "apps/flags.h"
#include "apps/output.h"
#include "apps/session_flags.h"

namespace dspark {
namespace {

struct NamedDrafter {
  std::string name, path;
};

// NAME=PATH, unless there is a file of just that name. A name that is not given is the path's last part.
NamedDrafter Named(const std::string& text) {
  std::error_code ignored;
  const size_t equals = text.find('=');
  if (equals != std::string::npos && equals > 0 && !std::filesystem::exists(text, ignored))
    return {text.substr(0, equals), text.substr(equals + 1)};
  std::string name;
  for (const std::string& part : DraftParts(text)) {
    std::filesystem::path path(part);
    if (!path.has_filename()) path = path.parent_path();  // "name/"
    if (!name.empty()) name += '+';
    name += path.extension() == ".gguf" ? path.stem().string() : path.filename().string();
  }
  return {name, text};
}

DrafterTraits TraitsOf(const DraftSource& source, const Drafter& drafter) {
  DrafterTraits traits;
  traits.kind = !source.table   ? "prompt lookup"
                : source.lookup ? "prompt lookup, counted table"
                                : "counted table";
  traits.block = drafter.max_tokens();
  if (source.table && !source.files) {
    traits.own = DraftOrigin::kTable;
    traits.confidence = true;
  }
  if (!source.files) return traits;
  const DrafterConfig& c = source.files->config;
  traits.kind = DrafterKindText(c);
  traits.layers = c.backbone.layers;
  traits.block = c.max_drafts();
  traits.with_lookup = source.lookup || source.table;
  traits.confidence = c.confidence;
  traits.temperatures = c.confidence_temperatures;
  return traits;
}

struct OpenedSource {
  NamedDrafter named;
  DraftSource source;
};

Result<std::vector<OpenedSource>> OpenSources(const EvalSessionOptions& options, const ModelFiles& target) {
  std::vector<OpenedSource> sources;
  for (const std::string& text : options.drafters) {
    const NamedDrafter named = Named(text);
    DraftOptions draft = options.session.draft;
    draft.draft = named.path;
    draft.no_lookup = !options.with_lookup && std::ranges::count(DraftParts(named.path), "lookup") == 0;
    if (named.path == "lookup") draft.weights.clear();  // of the others
    DSPARK_ASSIGN_OR_RETURN(DraftSource source, ChooseDraftSource(draft, target));
    if (options.uncalibrated && source.files) source.files->config.confidence_temperatures.clear();
    sources.push_back({named, std::move(source)});
  }
  return sources;
}

Result<std::unique_ptr<EvalSession>> Load(const EvalSessionOptions& options) {
  auto eval = std::make_unique<EvalSession>();
  // The drafters are opened first: what they tap and draft decides how large passes are.
  DSPARK_ASSIGN_OR_RETURN(const std::string model, ResolveModel(options.session.model));
  DSPARK_ASSIGN_OR_RETURN(const ModelFiles files, OpenModel(model));
  DSPARK_ASSIGN_OR_RETURN(const std::vector<OpenedSource> sources, OpenSources(options, files));
  SessionOptions plain = options.session;
  plain.draft.no_spec = true;
  for (const OpenedSource& opened : sources) {
    plain.taps = std::max(plain.taps, opened.source.taps());
    plain.logit_rows = std::max(plain.logit_rows, plain.sequences * (opened.source.max_drafts() + 1));
  }
  DSPARK_ASSIGN_OR_RETURN(eval->session, Session::Open(plain));
  Session& session = *eval->session;
  DSPARK_ASSIGN_OR_RETURN(const EngineOptions served,
                          ChooseEngineOptions(options.session.draft, plain.sequences));
  for (const OpenedSource& opened : sources) {
    LoadedDrafter& loaded = eval->drafters.emplace_back();
    loaded.name = opened.named.name;
    loaded.path = opened.named.path;
    DSPARK_ASSIGN_OR_RETURN(loaded.drafter,
                            opened.source.Make(*session.target, *session.pool, plain.sequences));
    loaded.candidate = {loaded.drafter.get(), TraitsOf(opened.source, *loaded.drafter), served};
  }
  auto encoder = ChatEncoder::Make(session.files);
  if (!encoder) return MakeError("{}: {}", session.model_path, encoder.error().text);
  eval->setting = std::make_unique<EvalSetting>(
      EvalSetting{.target = *session.target,
                  .blocks = *session.blocks,
                  .tokenizer = session.files.tokenizer.get(),
                  .encoder = *encoder,
                  .costs = served.Adaptive() ? SessionCosts(session) : CostTable(),
                  .rollout = options.rollout,
                  .concurrency = plain.sequences});
  return eval;
}

}  // namespace

void AddEvalSessionFlags(CLI::App& app, EvalSessionOptions* options) {
  AddSessionFlags(app, &options->session);
  AddRepeatedText(
      app, "--draft", &options->drafters,
      "[NAME=]DRAFTER: a file or directory, lookup (prompt lookup), or several with commas between them "
      "that draft together; may be repeated; also -md")
      ->required();
  AddDraftWeightsFlag(app, &options->session.draft);
  app.add_option("--max-prompts", options->max_prompts,
                 "Prompts of each file, a fixed subsample [DeepSpec's number for its nine sets, else all]")
      ->check(CLI::Range(1, 1 << 30));
  app.add_option("--max-turns", options->max_turns, "User turns of each prompt [all]")
      ->check(CLI::Range(1, 1 << 30));
  app.add_option("-n,--max-tokens", options->rollout.max_tokens, "Longest answer, in tokens [256]")
      ->check(CLI::Range(1, 1 << 20));
  app.add_option("--temp", options->rollout.sampling.temperature, "Temperature; 0 is greedy [0]")
      ->check(Within(0, 100));
  app.add_option("--seed", options->rollout.seed, "Seed of subsamples and of sampled answers [980406]")
      ->check(SeedNumber());
  app.add_option("--concurrency", options->session.sequences, "Prompts run together [1]")
      ->check(CLI::Range(1, 256));
}

Status CheckDrafterNames(const EvalSessionOptions& options) {
  std::set<std::string> names;
  for (const std::string& text : options.drafters) {
    const NamedDrafter named = Named(text);
    if (!names.insert(named.name).second)
      return MakeError("--draft {}: another drafter is called {}; write NAME={}", text, named.name,
                       named.path);
    if (named.path == "auto" || named.path == "none")
      return MakeError("--draft {}: nothing to measure; give a drafter's file or directory, or lookup", text);
    DraftOptions draft;
    draft.draft = named.path;
    DSPARK_RETURN_IF_ERROR(CheckDraftFlags(draft));
  }
  return {};
}

Result<std::unique_ptr<EvalSession>> EvalSession::Open(const EvalSessionOptions& options) {
  ProgressLine line;
  const std::string& model = options.session.model;
  line.Begin(fmt::format("loading {}", model.empty() ? DefaultModelPackage().name : model));
  auto opened = Load(options);
  line.Clear();  // also before an error
  return opened;
}

std::vector<Candidate> EvalSession::Candidates() const {
  std::vector<Candidate> candidates;
  candidates.reserve(drafters.size());
  for (const LoadedDrafter& loaded : drafters) candidates.push_back(loaded.candidate);
  return candidates;
}

void ShowProgress(const Suite& suite, int done, ProgressLine* line) {
  const size_t all = suite.prompts.size();
  const auto text = [&] { return fmt::format("{}: {} of {} prompts", suite.name, done, all); };
  size_t(done) == all ? line->Finish(text()) : line->Show(text);
}

}  // namespace dspark
