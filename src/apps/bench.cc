// dspark bench: what a pass over the model costs, beside what the memory of this machine allows.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <nlohmann/json.hpp>

#include "api/session.h"
#include "apps/bandwidth.h"
#include "apps/commands.h"
#include "apps/output.h"
#include "apps/session_flags.h"
#include "core/clock.h"

namespace dspark {
namespace {

struct BenchOptions {
  SessionOptions session;
  std::vector<int> rows{1, 2, 4, 8, 16};
  int prefill = 512, depth = 64, repeat = 7;
  bool json = false;
};

// One kind of pass: `rows` tokens at once after `depth` tokens of context. Verify wants the logits of all
// rows, prefill of the last only.
struct Shape {
  std::string what;  // decode, verify, prefill
  int rows = 0, depth = 0;
  std::vector<double> ms;  // of every repetition
};

double TimeOnce(Session& session, KvTable& kv, const std::vector<int32_t>& tokens, const Shape& shape) {
  const double start = NowMs();
  const Segment segment{.tokens = {tokens.data() + shape.depth, size_t(shape.rows)},
                        .position = shape.depth,
                        .kv = &kv,
                        .logits_from = shape.what == "prefill" ? shape.rows - 1 : 0};
  session.target->Forward({&segment, 1}, {});
  return NowMs() - start;
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

// Every shape in turn, over and over, so that what disturbs the machine disturbs all alike; the first turn
// warms up.
Status Measure(Session& session, const BenchOptions& options, std::vector<Shape>* shapes) {
  int longest = 0;
  for (const Shape& shape : *shapes) longest = std::max(longest, shape.depth + shape.rows);
  if (longest > session.target->limits().max_context) {
    return MakeError("--depth and rows reach position {}; the context holds {}", longest,
                     session.target->limits().max_context);
  }
  std::vector<int32_t> tokens(longest);
  for (int i = 0; i < longest; ++i) tokens[i] = (i * 7919 + 13) % session.files.config.vocab;
  KvTable kv(*session.blocks);
  DSPARK_CHECK(kv.Reserve(longest));
  for (int turn = 0; turn <= options.repeat; ++turn) {
    for (Shape& shape : *shapes) {
      const double ms = TimeOnce(session, kv, tokens, shape);
      if (turn > 0) shape.ms.push_back(ms);
    }
  }
  return {};
}

// Bytes of weights that a pass reads: everything but an embedding that is only looked up.
double WeightBytes(const Session& session) { return double(session.target->memory().weight_bytes); }

void PrintTable(const Session& session, const std::vector<Shape>& shapes, double bandwidth) {
  const ModelConfig& c = session.files.config;
  PrintOutput("{}\n{}, {} threads, DRAM {:.1f} GB/s; {} layers, width {}, weights {:.1f} MB\n\n",
              session.model_path, IsaName(session.pool->isa()), session.pool->threads(), bandwidth, c.layers,
              c.d_model, WeightBytes(session) / 1e6);
  PrintOutput("{:<8} {:>5} {:>10} {:>11} {:>8} {:>12}\n", "what", "rows", "ms", "tok/s", "GB/s", "× one row");
  const double one = shapes.empty() ? 0 : Median(shapes.front().ms);
  for (const Shape& shape : shapes) {
    const double ms = Median(shape.ms);
    PrintOutput("{:<8} {:>5} {:>10.3f} {:>11.1f} {:>8.1f} {:>12.2f}\n", shape.what, shape.rows, ms,
                shape.rows * 1000 / ms, WeightBytes(session) / ms / 1e6, ms / one);
  }
}

nlohmann::json ToJson(const Session& session, const std::vector<Shape>& shapes, double bandwidth) {
  const ModelConfig& c = session.files.config;
  nlohmann::json json{{"machine",
                       {{"cpu", CpuName()},
                        {"isa", IsaName(session.pool->isa())},
                        {"threads", session.pool->threads()},
                        {"dram_gb_per_s", bandwidth}}},
                      {"model",
                       {{"path", session.model_path},
                        {"architecture", c.architecture},
                        {"layers", c.layers},
                        {"d_model", c.d_model},
                        {"vocab", c.vocab},
                        {"weight_bytes", session.target->memory().weight_bytes}}},
                      {"results", nlohmann::json::array()}};
  for (const Shape& shape : shapes) {
    const double ms = Median(shape.ms);
    json["results"].push_back({{"what", shape.what},
                               {"rows", shape.rows},
                               {"depth", shape.depth},
                               {"ms", ms},
                               {"ms_all", shape.ms},
                               {"tok_per_s", shape.rows * 1000 / ms},
                               {"gb_per_s", WeightBytes(session) / ms / 1e6}});
  }
  return json;
}

Result<int> Run(BenchOptions options) {
  options.session.draft.no_spec = true;
  DSPARK_ASSIGN_OR_RETURN(auto session, Session::Open(options.session));
  std::vector<Shape> shapes;
  for (int rows : options.rows) shapes.push_back({rows == 1 ? "decode" : "verify", rows, options.depth, {}});
  if (options.prefill > 0) shapes.push_back({"prefill", options.prefill, 0, {}});
  DSPARK_RETURN_IF_ERROR(Measure(*session, options, &shapes));
  const double bandwidth = ReadBandwidth(*session->pool);
  if (options.json) {
    PrintOutput("{}\n", ToJson(*session, shapes, bandwidth).dump());
  } else {
    PrintTable(*session, shapes, bandwidth);
  }
  return kExitOk;
}

}  // namespace

Command AddBench(CLI::App& app) {
  auto options = std::make_shared<BenchOptions>();
  AddSessionFlags(app, &options->session);
  app.add_option("--rows", options->rows, "Rows of a decode or verify pass, logits for all [1,2,4,8,16]")
      ->delimiter(',')
      ->check(CLI::Range(1, 64));
  app.add_option("--prefill", options->prefill,
                 "Rows of a prefill pass, logits for the last; 0 for none [512]")
      ->check(CLI::Range(0, 512));
  app.add_option("--depth", options->depth, "Context before a decode or verify pass [64]")
      ->check(CLI::Range(0, 1 << 20));
  app.add_option("--repeat", options->repeat, "Repetitions; the median counts [7]")
      ->check(CLI::Range(1, 1000));
  app.add_flag("--json", options->json, "One JSON object");
  CLI::App* serve = app.add_subcommand("serve", "Measure a server under load, policies beside each other");
  const Command run_serve = AddBenchServe(*serve);
  app.footer(
      "\nExamples:\n"
      "  dspark bench -m model.gguf --rows 1,4,8\n"
      "  dspark bench serve -m model.gguf --suite prompts.jsonl");
  return [options, serve, run_serve] { return serve->parsed() ? run_serve() : Run(*options); };
}

}  // namespace dspark
