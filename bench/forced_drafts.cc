// What drafting the text that a JSON schema forces is worth: rounds and tokens per second of constrained
// replies, with and without it, alone and beside prompt lookup or a trained drafter.
//
//   forced_drafts MODEL [DRAFTER] [--runs N] [--temp T]
//
// One sequence at a time; plain decoding beside. Every prompt is run by each contender in turn, `--runs`
// times (default 5), so that what disturbs the machine disturbs all alike; figures are medians over runs.
// Greedy replies must be those of plain decoding, token for token, or the program fails.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>

#include "draft/prompt_lookup.h"
#include "draft/registry.h"
#include "engine/engine.h"
#include "grammar/response_constraint.h"
#include "prompts.h"

namespace dspark {
namespace {

constexpr const char* kSchema = R"({
  "type": "object",
  "properties": {
    "product_name": {"type": "string", "maxLength": 40},
    "category": {"enum": ["electronics", "clothing", "groceries", "furniture", "books"]},
    "manufacturer": {
      "type": "object",
      "properties": {"company_name": {"type": "string", "maxLength": 30}, "country_of_origin": {"type": "string", "maxLength": 20}},
      "required": ["company_name", "country_of_origin"]
    },
    "price_in_dollars": {"type": "integer", "minimum": 1, "maximum": 9999},
    "is_available": {"type": "boolean"},
    "short_description": {"type": "string", "maxLength": 120}
  },
  "required": ["product_name", "category", "manufacturer", "price_in_dollars", "is_available", "short_description"]
})";

constexpr const char* kProducts[] = {
    "a mountain bike", "a novel about the sea", "green tea",     "a laptop",
    "a winter coat",   "an oak table",          "running shoes", "a desk lamp"};

// Counts the rounds whose drafts were forced text.
class ForcedRounds : public RoundObserver {
 public:
  void OnRound(const RoundRecord& round) override {
    if (round.origin != DraftOrigin::kForced) return;
    drafted += round.drafted;
    accepted += round.accepted;
  }
  int drafted = 0, accepted = 0;
};

struct Contender {
  std::string name;
  Drafter* drafter = nullptr;
  bool forced = false;
  ForcedRounds seen{};
  std::unique_ptr<BlockPool> blocks{};
  std::unique_ptr<Engine> engine{};
  double ms = 0;  // of the present run
  int tokens = 0, rounds = 0;
  std::vector<double> rates{}, rounds_per_reply{};
  std::vector<int32_t> reply{};  // the newest
};

struct Options {
  std::string model, drafter;
  int runs = 5;
  float temperature = 0;
};

struct Bench {
  ModelFiles files;
  ThreadPool pool{UsableCores()};
  std::unique_ptr<Target> target;
  CostTable costs;
  PromptLookup lookup{};
  std::unique_ptr<Drafter> trained;
  std::vector<Request> requests;
};

void MakeRequests(const Options& options, Bench* bench) {
  const ModelFiles& files = bench->files;
  const ReplyForm form{.content = ReplyForm::Content::kJsonSchema,
                       .schema = nlohmann::ordered_json::parse(kSchema)};
  std::string param;
  const auto constraint = Must(
      MakeResponseConstraint(form, std::make_shared<TokenTrie>(*files.tokenizer, files.config.eos), &param));
  const ChatFormat format = Must(DetectChatFormat(files.chat_template));
  for (const char* product : kProducts) {
    Request request;
    const std::vector<ChatMessage> messages = {
        {"system", fmt::format("You answer with a JSON object that keeps to this schema:\n{}", kSchema)},
        {"user", fmt::format("Describe {} that a shop sells.", product)}};
    request.prompt = files.tokenizer->Encode(RenderChat(format, messages, true), true);
    request.sampling.temperature = options.temperature;
    request.seed = bench->requests.size();
    request.max_tokens = 300;
    request.reproducible = true;
    request.constraint = constraint;
    bench->requests.push_back(std::move(request));
  }
}

void RunOne(const Request& request, Contender* c) {
  if (!c->engine->Submit(request).ok()) std::abort();
  c->reply.clear();
  while (!c->engine->Idle()) {
    for (const TokenEvent& event : c->engine->Step()) {
      c->reply.push_back(event.token);
      if (!event.stats) continue;
      c->ms += event.stats->decode_ms;
      c->tokens += event.stats->committed;
      c->rounds += event.stats->rounds;
    }
  }
}

void Run(const Bench& bench, std::vector<Contender>* contenders) {
  for (Contender& c : *contenders) c.ms = c.tokens = c.rounds = 0;
  for (const Request& request : bench.requests) {
    for (Contender& c : *contenders) {
      RunOne(request, &c);
      if (c.reply == contenders->front().reply) continue;
      std::fprintf(stderr, "%s: a reply differs from the plain one\n", c.name.c_str());
      std::exit(1);
    }
  }
  for (Contender& c : *contenders) {
    c.rates.push_back(c.tokens * 1000.0 / c.ms);
    c.rounds_per_reply.push_back(double(c.rounds) / double(bench.requests.size()));
  }
}

double Median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

void Print(const std::vector<Contender>& contenders, size_t replies) {
  const Contender& plain = contenders.front();
  fmt::print(
      "{} tokens a reply\n\n| drafts | rounds a reply | tok/s | against plain | forced: verified, kept |\n"
      "|---|---|---|---|---|\n",
      plain.tokens / int(replies));
  for (const Contender& c : contenders) {
    std::vector<double> ratios;
    for (size_t i = 0; i < c.rates.size(); ++i) ratios.push_back(c.rates[i] / plain.rates[i]);
    fmt::print("| {} | {:.1f} | {:.0f} | {:.2f}× ({:.2f} … {:.2f}) | {}, {} |\n", c.name,
               Median(c.rounds_per_reply), Median(c.rates), Median(ratios), *std::ranges::min_element(ratios),
               *std::ranges::max_element(ratios), c.seen.drafted, c.seen.accepted);
  }
}

}  // namespace
}  // namespace dspark

int main(int argc, char** argv) {
  using namespace dspark;
  Options options;
  CLI::App app{"What drafting forced text is worth"};
  app.add_option("model", options.model)->required();
  app.add_option("drafter", options.drafter);
  app.add_option("--runs", options.runs);
  app.add_option("--temp", options.temperature);
  CLI11_PARSE(app, argc, argv);
  Bench bench;
  bench.files = Must(OpenModel(options.model));
  bench.target = Must(LoadTarget(bench.files, bench.pool, {.max_context = 2048, .max_taps = 8}));
  BlockPool pool(bench.target->kv_layout(), 64);
  bench.costs = MeasureCosts(*bench.target, pool);
  MakeRequests(options, &bench);
  std::vector<Contender> contenders;
  contenders.push_back({.name = "none"});
  contenders.push_back({.name = "forced text", .forced = true});
  contenders.push_back({.name = "prompt lookup", .drafter = &bench.lookup});
  contenders.push_back({.name = "prompt lookup, forced text", .drafter = &bench.lookup, .forced = true});
  if (!options.drafter.empty()) {
    bench.trained = Must(
        LoadDrafter(Must(OpenDrafter(options.drafter)), *bench.target, bench.pool, {.max_context = 2048}));
    contenders.push_back({.name = "trained", .drafter = bench.trained.get()});
    contenders.push_back({.name = "trained, forced text", .drafter = bench.trained.get(), .forced = true});
  }
  for (Contender& c : contenders) {
    c.blocks = std::make_unique<BlockPool>(bench.target->kv_layout(), 64);
    c.engine = std::make_unique<Engine>(*bench.target, *c.blocks, c.drafter, bench.files.tokenizer.get(),
                                        bench.costs,
                                        EngineOptions{.max_sequences = 1,
                                                      .draft_forced = c.forced,
                                                      .prefix_cache = true,
                                                      .pool = &bench.pool,
                                                      .observer = &c.seen});
  }
  for (int run = 0; run < options.runs; ++run) Run(bench, &contenders);
  Print(contenders, bench.requests.size());
  return 0;
}
