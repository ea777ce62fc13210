// dspark simulate: a server under load, from what `bench serve --json` measured; and how many users it holds.
#include "eval/simulate.h"

#include <CLI/CLI.hpp>
#include <algorithm>

#include "apps/commands.h"
#include "apps/flags.h"
#include "apps/output.h"
#include "apps/report_files.h"
#include "apps/traffic_plan.h"
#include "eval/traffic_report.h"

namespace dspark {
namespace {

struct SimulateOptions {
  std::string profile, costs;
  TrafficOptions traffic;
  int parallel = 64;  // sequences at once under an open load
  int prompt_tokens = 0, max_tokens = 0;
  std::vector<double> sla;  // tok/s that every user must get in the mean
  int max_users = 256;
};

// Users of a machine under one policy whose speed is still `sla`.
struct Capacity {
  std::string policy = {};
  double sla = 0;
  int users = 0;
  LoadFigures figures = {};  // at that many
};

class Planner {
 public:
  Planner(const ServingProfile& profile, const SimulateOptions& options)
      : profile_(profile), options_(options) {}

  LoadFigures Run(const std::string& policy, const LoadLevel& level) const {
    const int sequences = level.concurrency > 0 ? level.concurrency : options_.parallel;
    auto engine = OptionsOfPolicy(policy, sequences);
    DSPARK_CHECK(engine.ok());  // CheckPolicies
    SimulatedLoad load{level.arrivals, level.concurrency, options_.traffic.seed};
    for (Arrival& arrival : load.arrivals) {
      if (options_.prompt_tokens > 0) arrival.prompt_tokens = options_.prompt_tokens;
      if (options_.max_tokens > 0) arrival.max_tokens = options_.max_tokens;
    }
    const LoadRun run = Simulate(profile_, *engine, policy != "off", load);
    return FiguresOf({&run, 1});
  }

  // The largest number of users up to the limit with that speed: it falls with every user more.
  Capacity Find(const std::string& policy, double sla) const {
    Capacity found{.policy = policy, .sla = sla, .users = 0, .figures = {}};
    int low = 0, high = options_.max_users + 1;  // enough at `low`, not at `high`
    while (high - low > 1) {
      const int users = (low + high) / 2;
      const int requests =
          std::max({options_.traffic.requests, options_.traffic.per_stream * users, users + 1});
      const LoadFigures f = Run(policy, {.concurrency = users, .arrivals = BackToBack(requests)});
      if (f.user_tok_per_s >= sla) {
        low = users;
        found.users = users, found.figures = f;
      } else {
        high = users;
      }
    }
    return found;
  }

 private:
  const ServingProfile& profile_;
  const SimulateOptions& options_;
};

nlohmann::ordered_json ToJson(const Capacity& capacity) {
  nlohmann::ordered_json json{
      {"policy", capacity.policy}, {"user_tok_per_s", capacity.sla}, {"users", capacity.users}};
  json["tok_per_s"] = capacity.users > 0 ? nlohmann::ordered_json(capacity.figures.tok_per_s) : nullptr;
  return json;
}

Result<ServingProfile> ReadInputs(const SimulateOptions& options) {
  DSPARK_ASSIGN_OR_RETURN(ServingProfile profile, ReadProfile(options.profile));
  if (!options.costs.empty()) {
    DSPARK_ASSIGN_OR_RETURN(profile.costs, LoadCosts(options.costs));
  }
  const bool drafts = std::ranges::any_of(options.traffic.policies, [](const auto& p) { return p != "off"; });
  if (drafts && profile.replies.empty()) {
    return MakeError(
        "{}: no rounds were recorded, so only --policies off can be simulated; give `bench serve` a "
        "fixed:N among its policies",
        options.profile);
  }
  return profile;
}

Result<int> Run(const SimulateOptions& options) {
  DSPARK_RETURN_IF_ERROR(CheckReportFiles(options.traffic.json, options.traffic.html));
  DSPARK_RETURN_IF_ERROR(CheckPolicies(options.traffic.policies));
  DSPARK_ASSIGN_OR_RETURN(const std::vector<LoadLevel> levels, PlanLevels(options.traffic));
  DSPARK_ASSIGN_OR_RETURN(const ServingProfile profile, ReadInputs(options));
  const Planner planner(profile, options);
  TrafficResults results{.title = "A server under load, simulated",
                         .model = profile.model.empty() ? options.profile : profile.model,
                         .drafter = profile.drafter,
                         .prompts = "as recorded in " + options.profile,
                         .load = DescribeLoad(levels, 1),
                         .max_tokens = options.max_tokens};
  for (const LoadLevel& level : levels) {
    for (const std::string& policy : options.traffic.policies)
      results.points.push_back({policy, level.concurrency, level.per_second, planner.Run(policy, level)});
  }
  PrintTraffic(results);
  nlohmann::ordered_json json = ToJson(results);
  json["capacity"] = nlohmann::ordered_json::array();
  for (const double sla : options.sla) {
    PrintOutput("\nusers who each get {:g} tok/s\n", sla);
    for (const std::string& policy : options.traffic.policies) {
      const Capacity capacity = planner.Find(policy, sla);
      PrintOutput("  {:<14} {:>5}{}\n", policy, capacity.users,
                  capacity.users == options.max_users ? " or more (--max-users)" : "");
      json["capacity"].push_back(ToJson(capacity));
    }
  }
  DSPARK_RETURN_IF_ERROR(WriteReport(options.traffic.json, json.dump() + "\n"));
  DSPARK_RETURN_IF_ERROR(WriteReport(options.traffic.html, RenderTrafficReport(results)));
  return kExitOk;
}

}  // namespace

Command AddSimulate(CLI::App& app) {
  auto options = std::make_shared<SimulateOptions>();
  app.add_option("--profile", options->profile, "What `dspark bench serve --json` wrote")->required();
  app.add_option("--costs", options->costs,
                 "Another cost table: JSON with ms_by_rows, as dspark keeps it in its cache directory");
  AddTrafficFlags(app, &options->traffic);
  app.add_option("--prompt-tokens", options->prompt_tokens, "Tokens of every prompt [as recorded]")
      ->check(CLI::Range(1, 1 << 20));
  app.add_option("-n,--max-tokens", options->max_tokens, "Tokens of every reply [as recorded]")
      ->check(CLI::Range(1, 1 << 20));
  app.add_option("--parallel", options->parallel, "Sequences decoding at once under an open load [64]")
      ->check(CLI::Range(1, 1024));
  app.add_option("--sla", options->sla, "How many users get so many tok/s each")
      ->delimiter(',')
      ->check(Within(1e-3, 1e6));
  app.add_option("--max-users", options->max_users, "Most users that are tried [256]")
      ->check(CLI::Range(1, 4096));
  app.footer(
      "\nExamples:\n"
      "  dspark simulate --profile load.json --sla 20,30,50");
  return [options] { return Run(*options); };
}

}  // namespace dspark
