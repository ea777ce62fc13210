// dspark bench serve: a server under load, over HTTP as its users see it, one policy beside the other.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <map>

#include "apps/commands.h"
#include "apps/describe_model.h"
#include "apps/flags.h"
#include "apps/load_client.h"
#include "apps/output.h"
#include "apps/policy_server.h"
#include "apps/progress_line.h"
#include "apps/report_files.h"
#include "apps/session_flags.h"
#include "apps/traffic_plan.h"
#include "eval/suites.h"
#include "eval/traffic_report.h"

namespace dspark {
namespace {

struct BenchServeOptions {
  SessionOptions session;
  TrafficOptions traffic;
  std::vector<std::string> suites;
  std::string suites_dir;
  int max_prompts = 32;  // of each suite
  int max_tokens = 128;
  double temperature = 0;
  bool ignore_eos = false, warm_up = true;
  int repeat = 1, parallel = 64;
  std::string url, api_key, model_name;
};

// Who answers: servers of this process, or one somewhere else.
struct Answerer {
  std::string policy = {};
  ServerUrl url = {};
  PolicyServer* server = nullptr;  // null: somewhere else
};

struct Bench {
  const BenchServeOptions& options;
  std::vector<LoadLevel> levels = {};
  std::vector<EvalPrompt> prompts = {};
  std::string model = {};  // that requests name
  std::vector<Answerer> answerers = {};
};

// Suites in turn, so that few prompts are a mixture too.
Result<std::vector<EvalPrompt>> ReadPrompts(const BenchServeOptions& options) {
  std::vector<std::string> files = options.suites;
  if (!options.suites_dir.empty()) {
    DSPARK_ASSIGN_OR_RETURN(const std::vector<std::string> more, SuiteFiles(options.suites_dir));
    files.insert(files.end(), more.begin(), more.end());
  }
  std::vector<Suite> suites;
  size_t most = 0;
  for (const std::string& file : files) {
    DSPARK_ASSIGN_OR_RETURN(Suite suite,
                            ReadSuite(file, {.max_prompts = options.max_prompts, .max_turns = 1}));
    most = std::max(most, suite.prompts.size());
    suites.push_back(std::move(suite));
  }
  std::vector<EvalPrompt> prompts;
  for (size_t i = 0; i < most; ++i) {
    for (const Suite& suite : suites) {
      if (i < suite.prompts.size()) prompts.push_back(suite.prompts[i]);
    }
  }
  if (prompts.empty()) return MakeError("the prompt sets hold no prompt");
  return prompts;
}

std::string BodyOf(const Bench& bench, const Arrival& arrival, size_t number) {
  const EvalPrompt& prompt = bench.prompts[number % bench.prompts.size()];
  std::string text = !arrival.prompt.empty() ? arrival.prompt : prompt.turns.front();
  if (arrival.prompt_tokens > 0) text = TextOfLength(prompt.turns.front(), arrival.prompt_tokens, number);
  nlohmann::json messages = nlohmann::json::array();
  if (!prompt.system.empty()) messages.push_back({{"role", "system"}, {"content", prompt.system}});
  messages.push_back({{"role", "user"}, {"content", text}});
  nlohmann::json body{{"model", bench.model},
                      {"messages", messages},
                      {"stream", true},
                      {"stream_options", {{"include_usage", true}}},
                      {"temperature", bench.options.temperature},
                      {"seed", (bench.options.traffic.seed + number) & 0x7fffffff},
                      {"max_tokens", arrival.max_tokens > 0 ? arrival.max_tokens : bench.options.max_tokens}};
  if (bench.options.ignore_eos) body["ignore_eos"] = true;
  return body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// The same requests for every policy; other prompts in every repetition.
LoadRun RunOnce(const Bench& bench, const Answerer& answerer, const LoadLevel& level, int turn) {
  std::vector<LoadRequest> requests;
  for (const Arrival& arrival : level.arrivals) {
    const size_t number = size_t(turn) * level.arrivals.size() + requests.size();
    requests.push_back({arrival.at_ms, BodyOf(bench, arrival, number)});
  }
  StepSums begin, end;
  LoadClientOptions client{.server = answerer.url,
                           .api_key = bench.options.api_key,
                           .streams = level.concurrency > 0 ? level.concurrency : 2 * bench.options.parallel,
                           .closed = level.concurrency > 0};
  if (PolicyServer* server = answerer.server) {
    client.on_begin = [&begin, server] { begin = server->sums(); };
    client.on_end = [&end, server] { end = server->sums(); };
  }
  LoadRun run = RunLoad(client, requests);
  if (!answerer.server) return run;
  answerer.server->AwaitIdle();
  run.steps = end - begin;
  run.window_tokens = double(run.steps.tokens);
  return run;
}

// One request a stream of the widest load for every policy, of which nothing is counted: pages are touched,
// and drafters' prices learned, once in a server's life.
void WarmUp(const Bench& bench, ProgressLine* line) {
  const int streams = MostStreams(bench.levels, bench.options.parallel);
  const LoadLevel level{.concurrency = streams, .arrivals = BackToBack(streams + 1)};
  for (const Answerer& answerer : bench.answerers) {
    line->Show([&] { return fmt::format("warming up: {}", answerer.policy); });
    RunOnce(bench, answerer, level, 0);
  }
}

// Policies in turn, each repetition from another one on: what disturbs the machine disturbs all alike.
TrafficResults Measure(const Bench& bench) {
  const size_t policies = bench.answerers.size();
  std::vector<std::vector<LoadRun>> runs(bench.levels.size() * policies);
  ProgressLine line;
  if (bench.options.warm_up) WarmUp(bench, &line);
  for (int turn = 0; turn < bench.options.repeat; ++turn) {
    for (size_t l = 0; l < bench.levels.size(); ++l) {
      for (size_t p = 0; p < policies; ++p) {
        const size_t chosen = (p + size_t(turn)) % policies;
        line.Show([&] {
          return fmt::format("repetition {} of {}, load {} of {}: {}", turn + 1, bench.options.repeat, l + 1,
                             bench.levels.size(), bench.answerers[chosen].policy);
        });
        runs[l * policies + chosen].push_back(RunOnce(bench, bench.answerers[chosen], bench.levels[l], turn));
      }
    }
  }
  line.Clear();
  TrafficResults results;
  for (size_t i = 0; i < runs.size(); ++i) {
    const LoadLevel& level = bench.levels[i / policies];
    results.points.push_back(
        {bench.answerers[i % policies].policy, level.concurrency, level.per_second, FiguresOf(runs[i])});
  }
  return results;
}

Result<int> Report(const Bench& bench, TrafficResults results, const ServingProfile* profile) {
  const BenchServeOptions& options = bench.options;
  results.title = "A server under load";
  results.prompts = fmt::format("{} prompts, first turns", bench.prompts.size());
  results.load = DescribeLoad(bench.levels, options.repeat);
  results.temperature = options.temperature;
  results.max_tokens = options.max_tokens;
  nlohmann::ordered_json json = ToJson(results);
  if (profile) json["profile"] = ToJson(*profile);
  DSPARK_RETURN_IF_ERROR(WriteReport(options.traffic.json, json.dump() + "\n"));
  DSPARK_RETURN_IF_ERROR(WriteReport(options.traffic.html, RenderTrafficReport(results)));
  PrintTraffic(results);
  for (const LoadPoint& point : results.points) {
    if (point.figures.errors == 0) continue;
    return MakeError("{} of {} requests failed, the first at load {:g} of {}: {}", point.figures.errors,
                     point.figures.errors + point.figures.replies + point.figures.cut, point.Load(),
                     point.policy, point.figures.first_error);
  }
  return kExitOk;
}

Result<int> RunElsewhere(Bench bench) {
  const BenchServeOptions& options = bench.options;
  DSPARK_ASSIGN_OR_RETURN(const ServerUrl url, ParseServerUrl("--url", options.url));
  bench.model = options.model_name;
  if (bench.model.empty()) {
    DSPARK_ASSIGN_OR_RETURN(bench.model, AskModelName(url, options.api_key));
  }
  bench.answerers.push_back({.policy = options.url, .url = url});
  TrafficResults results = Measure(bench);
  results.model = bench.model;
  return Report(bench, std::move(results), nullptr);
}

// Rounds are recorded of the policy that verifies most of every proposal: what it did not verify is not
// known.
std::string RecordedPolicy(const std::vector<std::string>& policies) {
  std::string recorded;
  int longest = 0;
  for (const std::string& policy : policies) {
    const auto options = OptionsOfPolicy(policy, 1);
    if (options && options->fixed_draft > longest) longest = options->fixed_draft, recorded = policy;
  }
  return recorded;
}

Result<int> RunHere(Bench bench) {
  BenchServeOptions options = bench.options;
  const int streams = MostStreams(bench.levels, options.parallel);
  options.session.sequences = streams;
  options.session.logit_rows = LogitRowsFor(streams);
  // Chats are short beside what a model's context can hold.
  constexpr int kTokensEach = 2048;
  if (options.session.context == 0) options.session.kv_tokens = streams * kTokensEach;
  DSPARK_ASSIGN_OR_RETURN(const auto session, Session::Open(options.session));
  const ServedModel model = DescribeModel(*session, options.model_name);
  if (!model.chat_format)
    return MakeError("{}: has no chat template that we know, and the load is chats", session->model_path);
  bench.model = model.name;

  ServiceRecords records;
  std::vector<std::unique_ptr<PolicyServer>> servers;
  const std::string recorded = RecordedPolicy(options.traffic.policies);
  if (recorded.empty() && !options.traffic.json.empty())
    PrintMessage("for dspark simulate: without a fixed:N among --policies no acceptance is recorded\n");
  const CostTable costs = session->drafter ? session->engine->costs() : SessionCosts(*session);
  for (const std::string& policy : options.traffic.policies) {
    auto log = std::make_unique<StepLog>(&records, policy == recorded);
    DSPARK_ASSIGN_OR_RETURN(auto server, PolicyServer::Start(*session, model, policy, options.session.draft,
                                                             costs, std::move(log)));
    bench.answerers.push_back(
        {policy, {fmt::format("http://127.0.0.1:{}", server->port()), "/v1"}, server.get()});
    servers.push_back(std::move(server));
  }
  TrafficResults results = Measure(bench);
  servers.clear();
  ServingProfile profile = records.profile.Profile(costs);
  profile.logit_rows = session->target->limits().max_logit_rows;
  profile.prefill_rows = session->engine->options().prefill_rows;
  profile.replies = records.rounds.Take();
  profile.shapes = records.shapes;
  results.model = session->files.config.name.empty() ? session->model_path : session->files.config.name;
  results.machine =
      fmt::format("{}, {}, {} threads", CpuName(), IsaName(session->pool->isa()), session->pool->threads());
  results.drafter = ShortDrafterNames(*session);
  return Report(bench, std::move(results), &profile);
}

Result<int> Run(const BenchServeOptions& options) {
  DSPARK_RETURN_IF_ERROR(CheckReportFiles(options.traffic.json, options.traffic.html));
  DSPARK_RETURN_IF_ERROR(CheckPolicies(options.traffic.policies));
  Bench bench{.options = options};
  DSPARK_ASSIGN_OR_RETURN(bench.levels, PlanLevels(options.traffic));
  DSPARK_ASSIGN_OR_RETURN(bench.prompts, ReadPrompts(options));
  return options.url.empty() ? RunHere(std::move(bench)) : RunElsewhere(std::move(bench));
}

}  // namespace

Command AddBenchServe(CLI::App& app) {
  auto options = std::make_shared<BenchServeOptions>();
  AddSessionFlags(app, &options->session);
  app.add_option("--draft", options->session.draft.draft,
                 "Drafters, as of run: files with commas between them, lookup, or auto [auto]; also -md");
  AddDraftWeightsFlag(app, &options->session.draft);
  app.add_flag("--no-lookup", options->session.draft.no_lookup,
               "The drafter alone, without prompt lookup beside it");
  app.add_option("--accept", options->session.draft.accept,
                 "Sampled drafts are accepted by block or by token [block]");
  AddTrafficFlags(app, &options->traffic);
  AddRepeatedText(app, "--suite", &options->suites,
                  "Prompts: JSON lines as eval takes them; may be repeated");
  app.add_option("--suites", options->suites_dir, "A folder of such files, *.jsonl and *.jsonl.gz");
  app.add_option("--max-prompts", options->max_prompts, "Prompts of each file, a fixed subsample [32]")
      ->check(CLI::PositiveNumber);
  app.add_option("-n,--max-tokens", options->max_tokens, "Longest reply, in tokens [128]")
      ->check(CLI::Range(1, 1 << 20));
  app.add_option("--temp", options->temperature, "Temperature; 0 is greedy [0]")->check(Within(0, 100));
  app.add_flag("--ignore-eos", options->ignore_eos, "Replies run on to --max-tokens");
  app.add_option("--repeat", options->repeat, "Repetitions, policies in turn; the median counts [1]")
      ->check(CLI::Range(1, 1000));
  app.add_flag("!--no-warm-up", options->warm_up, "Count from the first request on");
  app.add_option("--parallel", options->parallel, "Sequences decoding at once under an open load [64]")
      ->check(CLI::Range(1, 1024));
  CLI::Option* url = app.add_option("--url", options->url,
                                    "Measure a server that runs already, of any kind with OpenAI's API");
  app.add_option("--api-key", options->api_key, "Its key")->needs(url);
  app.add_option("--model-name", options->model_name, "What requests call the model [the first it names]");
  app.final_callback([options] {
    if (options->suites.empty() && options->suites_dir.empty())
      throw CLI::ValidationError("no prompts to ask",
                                 "give --suite FILE or --suites DIR (bench serve --help)");
  });
  app.footer(
      "\nExamples:\n"
      "  dspark bench serve --suite prompts.jsonl --policies off,adaptive,fixed:7 --json load.json\n"
      "  dspark bench serve --url http://127.0.0.1:8000 --suite prompts.jsonl");
  return [options] { return Run(*options); };
}

}  // namespace dspark
