#include "eval/results.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace dspark {
namespace {

using Json = nlohmann::json;

constexpr double kUndefined = std::numeric_limits<double>::quiet_NaN();

// Between the two values nearest to it, in proportion. `sorted` ascends.
double Quantile(const std::vector<double>& sorted, double share) {
  if (sorted.empty()) return kUndefined;
  const double at = share * double(sorted.size() - 1);
  const size_t below = size_t(at), above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (at - double(below)) * (sorted[above] - sorted[below]);
}

double Median(std::vector<double> values) {
  std::ranges::sort(values);
  return Quantile(values, 0.5);
}

// Of those values that are numbers.
double Mean(const std::vector<double>& values) {
  double sum = 0;
  int count = 0;
  for (const double v : values) {
    if (std::isnan(v)) continue;
    sum += v;
    ++count;
  }
  return count ? sum / count : kUndefined;
}

// Position by position, over the suites that have it.
std::vector<double> MeanOf(const std::vector<Figures>& suites, std::vector<double> Figures::*list) {
  size_t positions = 0;
  for (const Figures& f : suites) positions = std::max(positions, (f.*list).size());
  std::vector<double> means;
  for (size_t k = 0; k < positions; ++k) {
    std::vector<double> values;
    for (const Figures& f : suites) {
      if (k < (f.*list).size()) values.push_back((f.*list)[k]);
    }
    means.push_back(Mean(values));
  }
  return means;
}

// JSON has no NaN.
Json Number(double value) { return std::isfinite(value) ? Json(value) : Json(); }

Json Numbers(const std::vector<double>& values) {
  Json list = Json::array();
  for (const double v : values) list.push_back(Number(v));
  return list;
}

Json FiguresJson(const Figures& f) {
  const SpeedEvidence evidence = EvidenceOf(f.ratios);
  return {{"tau", Number(f.tau)},
          {"verify_rate", Number(f.verify_rate)},
          {"drafts_per_round", Number(f.drafts_per_round)},
          {"unconditional", Numbers(f.unconditional)},
          {"conditional", Numbers(f.conditional)},
          {"served_tau", Number(f.served_tau)},
          {"served_verify_rate", Number(f.served_verify_rate)},
          {"speedup", Number(f.speedup)},
          {"median_speedup", Number(f.median_speedup)},
          {"speedup_groups", evidence.groups},
          {"speedup_quartiles", Numbers({evidence.first_quartile, evidence.third_quartile})},
          {"speedup_sign_p", evidence.sign_p},
          {"speedup_certain", evidence.certain()},
          {"plain_tok_per_s", Number(f.plain_tok_per_s)},
          {"spec_tok_per_s", Number(f.spec_tok_per_s)}};
}

Json StatsJson(const AcceptanceStats& s) {
  return {{"rounds", s.rounds},           {"committed", s.committed},   {"drafted", s.drafted},
          {"verified_at", s.verified_at}, {"reached_at", s.reached_at}, {"accepted_at", s.accepted_at}};
}

Json PositionJson(const PositionCalibration& p) {
  Json points = Json::array();
  for (const ReliabilityPoint& point : p.reliability) {
    points.push_back({{"bin", point.bin},
                      {"predicted", point.predicted},
                      {"observed", point.observed},
                      {"rounds", point.rounds}});
  }
  return {{"rounds", p.rounds},
          {"ece", Number(p.ece)},
          {"auroc", Number(p.auroc)},
          {"brier", Number(p.brier)},
          {"predicted", Number(p.predicted)},
          {"observed", Number(p.observed)},
          {"reliability", points}};
}

Json CalibrationTableJson(const std::vector<PositionCalibration>& positions) {
  Json list = Json::array();
  for (const PositionCalibration& p : positions) list.push_back(PositionJson(p));
  Json mean = PositionJson(SummarizeCalibration(positions));
  mean.erase("reliability");
  return {{"positions", list}, {"mean", mean}};
}

Json SweepJson(const std::vector<SweepPoint>& sweep) {
  Json list = Json::array();
  for (const SweepPoint& point : sweep) {
    list.push_back({{"threshold", point.threshold},
                    {"tau", point.stats.Tau()},
                    {"verify_rate", point.stats.VerifyRate()},
                    {"drafts_per_round", point.stats.DraftsPerRound()}});
  }
  return list;
}

Json SuiteJson(const SuiteResult& s, const DrafterTraits& traits) {
  Json json = FiguresJson(FiguresOf(s));
  json.update({{"suite", s.suite},
               {"domain", s.domain},
               {"prompts", s.prompts},
               {"answers", s.answers},
               {"cut", s.cut},
               {"different", s.different},
               {"whole", StatsJson(s.whole)},
               {"served", StatsJson(s.served)}});
  if (traits.with_lookup) {
    json["whole_lookup"] = StatsJson(s.whole_lookup);
    json["whole_own"] = StatsJson(s.OwnRounds());
  }
  if (traits.confidence && !s.confidence.empty()) {
    json["confidence"] = CalibrationJson(s.confidence, traits.block, traits.temperatures);
    json["threshold_sweep"] =
        SweepJson(SweepThresholds(s.confidence, s.without_confidence, traits.temperatures));
  }
  return json;
}

Json DrafterJson(const DrafterResult& drafter) {
  const DrafterTraits& t = drafter.traits;
  Json json{
      {"name", drafter.name},         {"path", drafter.path},   {"kind", t.kind},
      {"layers", t.layers},           {"block", t.block},       {"confidence_temperatures", t.temperatures},
      {"with_lookup", t.with_lookup}, {"suites", Json::array()}};
  std::vector<Figures> all;
  for (const SuiteResult& suite : drafter.suites) {
    json["suites"].push_back(SuiteJson(suite, t));
    all.push_back(FiguresOf(suite));
  }
  json["all"] = FiguresJson(MeanFigures(all));
  return json;
}

}  // namespace

int EvalResults::Prompts() const {
  int prompts = 0;
  if (drafters.empty()) return 0;
  for (const SuiteResult& suite : drafters.front().suites) prompts += suite.prompts;
  return prompts;
}

int EvalResults::Answers() const {
  int answers = 0;
  if (drafters.empty()) return 0;
  for (const SuiteResult& suite : drafters.front().suites) answers += suite.answers;
  return answers;
}

std::optional<bool> EvalResults::Lossless() const {
  if (temperature > 0 || Answers() == 0) return std::nullopt;
  return Different() == 0;
}

int EvalResults::Different() const {
  int different = 0;
  for (const DrafterResult& drafter : drafters) {
    for (const SuiteResult& suite : drafter.suites) different += suite.different;
  }
  return different;
}

SpeedEvidence EvidenceOf(std::vector<double> ratios) {
  std::ranges::sort(ratios);
  SpeedEvidence e{.groups = int(ratios.size()),
                  .first_quartile = Quantile(ratios, 0.25),
                  .third_quartile = Quantile(ratios, 0.75),
                  .sign_p = 1};
  const int slower = int(std::ranges::count_if(ratios, [](double r) { return r < 1; }));
  const int faster = int(std::ranges::count_if(ratios, [](double r) { return r > 1; }));
  const int n = slower + faster;
  double tail = 0;  // of the binomial distribution with share 1/2
  for (int k = 0; k <= std::min(slower, faster); ++k)
    tail += std::exp(std::lgamma(n + 1) - std::lgamma(k + 1) - std::lgamma(n - k + 1) - n * std::log(2.0));
  e.sign_p = std::min(1.0, 2 * tail);
  return e;
}

Figures FiguresOf(const SuiteResult& s) {
  const auto measured = [](const AcceptanceStats& stats, double figure) {
    return stats.rounds ? figure : kUndefined;
  };
  Figures f{.tau = measured(s.whole, s.whole.Tau()),
            .verify_rate = measured(s.whole, s.whole.VerifyRate()),
            .drafts_per_round = measured(s.whole, s.whole.DraftsPerRound()),
            .served_tau = measured(s.served, s.served.Tau()),
            .served_verify_rate = measured(s.served, s.served.VerifyRate()),
            .unconditional = s.OwnRounds().Unconditional(),
            .conditional = s.OwnRounds().Conditional(),
            .speedup = kUndefined,
            .median_speedup = Median(s.ratios),
            .plain_tok_per_s = s.plain.Rate(),
            .spec_tok_per_s = s.speculative.Rate(),
            .ratios = s.ratios};
  if (f.plain_tok_per_s > 0) f.speedup = f.spec_tok_per_s / f.plain_tok_per_s;
  return f;
}

Figures MeanFigures(const std::vector<Figures>& suites) {
  Figures mean;
  for (auto figure : {&Figures::tau, &Figures::verify_rate, &Figures::drafts_per_round, &Figures::served_tau,
                      &Figures::served_verify_rate, &Figures::speedup, &Figures::median_speedup,
                      &Figures::plain_tok_per_s, &Figures::spec_tok_per_s}) {
    std::vector<double> values;
    values.reserve(suites.size());
    for (const Figures& f : suites) values.push_back(f.*figure);
    mean.*figure = Mean(values);
  }
  for (const Figures& f : suites) mean.ratios.insert(mean.ratios.end(), f.ratios.begin(), f.ratios.end());
  mean.unconditional = MeanOf(suites, &Figures::unconditional);
  mean.conditional = MeanOf(suites, &Figures::conditional);
  return mean;
}

bool MayBeNoise(const Figures& figures) {
  return std::isfinite(figures.speedup) && !EvidenceOf(figures.ratios).certain();
}

std::vector<SweepPoint> SweepThresholds(const std::vector<ConfidenceRound>& rounds,
                                        const AcceptanceStats& without,
                                        const std::vector<float>& temperatures) {
  constexpr int kSteps = 20;
  std::vector<SweepPoint> sweep;
  for (int i = 0; i < kSteps; ++i) {
    SweepPoint& point = sweep.emplace_back();
    point.threshold = double(i) / kSteps;
    point.stats = without;
    for (const ConfidenceRound& round : rounds) {
      int length = 0;
      for (; length < round.verified; ++length) {
        const size_t k = size_t(length);
        const double z = double(round.logits[k]) / (temperatures.empty() ? 1.0 : double(temperatures[k]));
        if (1 / (1 + std::exp(-z)) < point.threshold) break;
      }
      const bool shorter = length < round.accepted;
      point.stats.Add(length, std::min(length, round.accepted), shorter ? length + 1 : round.committed);
    }
  }
  return sweep;
}

std::vector<std::string> DomainsOf(const EvalResults& results) {
  std::vector<std::string> domains;
  for (const DrafterResult& drafter : results.drafters) {
    for (const SuiteResult& suite : drafter.suites) {
      if (!std::ranges::count(domains, suite.domain)) domains.push_back(suite.domain);
    }
  }
  return domains;
}

Json CalibrationJson(const std::vector<ConfidenceRound>& rounds, int positions,
                     const std::vector<float>& temperatures) {
  Json json{{"before", CalibrationTableJson(MeasureCalibration(rounds, positions))}};
  if (!temperatures.empty())
    json["after"] = CalibrationTableJson(MeasureCalibration(rounds, positions, temperatures));
  return json;
}

Json ToJson(const EvalResults& results) {
  const std::optional<bool> lossless = results.Lossless();
  Json json{{"model", results.model},
            {"machine", results.machine},
            {"policy", results.policy},
            {"temperature", results.temperature},
            {"max_tokens", results.max_tokens},
            {"concurrency", results.concurrency},
            {"max_turns", results.max_turns > 0 ? Json(results.max_turns) : Json()},
            {"accept", results.accept},
            {"seed", results.seed},
            {"prompts", results.Prompts()},
            {"answers", results.Answers()},
            {"lossless", lossless ? Json(*lossless) : Json()},
            {"drafters", Json::array()}};
  for (const DrafterResult& drafter : results.drafters) json["drafters"].push_back(DrafterJson(drafter));
  return json;
}

}  // namespace dspark
