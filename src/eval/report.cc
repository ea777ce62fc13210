#include "eval/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "eval/report_figures.h"
#include "eval/report_page.h"
#include "eval/svg.h"

namespace dspark {
namespace {

// Names and texts come from users and files.
std::string TextCell(const std::string& text) {
  return fmt::format("<td class=\"t\">{}</td>", EscapeXml(text));
}
std::string TextHead(const std::string& text) {
  return fmt::format("<th class=\"t\">{}</th>", EscapeXml(text));
}
std::string Cell(const std::string& number) { return fmt::format("<td>{}</td>", number); }
std::string Head(const std::string& text) { return fmt::format("<th>{}</th>", EscapeXml(text)); }

std::string Number(double value, int digits) {
  return std::isfinite(value) ? fmt::format("{:.{}f}", value, digits) : "–";
}

std::string Settings(const EvalResults& r) {
  std::string html = "<dl>";
  const auto entry = [&](const char* what, const std::string& value) {
    html += fmt::format("<dt>{}</dt><dd>{}</dd>", what, EscapeXml(value));
  };
  entry("model", r.model);
  entry("machine", r.machine);
  entry("temperature", r.temperature > 0 ? fmt::format("{:g}", r.temperature) : "0 (greedy)");
  entry("answers", fmt::format("at most {} tokens, {} at once", r.max_tokens, r.concurrency));
  entry("prompts", fmt::format("{} prompts, {} answers; {}", r.Prompts(), r.Answers(),
                               r.max_turns > 0 ? fmt::format("at most {} turns of each", r.max_turns)
                                               : "all turns of each"));
  entry("policy", r.policy);
  entry("sampled drafts", fmt::format("accepted by {} as served; whole blocks always by token", r.accept));
  entry("seed", std::to_string(r.seed));
  return html + "</dl>\n";
}

std::string Losslessness(const EvalResults& r) {
  if (r.temperature > 0) {
    return "<p>Sampled answers: each lane draws its own text of the same distribution, so answers are not "
           "compared.</p>\n";
  }
  if (!r.Lossless()) return "<p class=\"bad\">No prompt was answered: nothing was compared.</p>\n";
  if (const int different = r.Different(); different > 0) {
    return fmt::format(
        "<p class=\"bad\">{} greedy answers differ from plain decoding's. That is a bug.</p>\n", different);
  }
  return "<p>All greedy answers, with every drafter and every length, are plain decoding's token for "
         "token.</p>\n";
}

std::vector<Figures> FiguresOfAll(const DrafterResult& drafter) {
  std::vector<Figures> all;
  all.reserve(drafter.suites.size());
  for (const SuiteResult& suite : drafter.suites) all.push_back(FiguresOf(suite));
  return all;
}

// With a question mark where it may be noise.
std::string SpeedUp(const Figures& f, double value) {
  if (!std::isfinite(value)) return "–";
  return fmt::format("{:.2f}×{}", value, MayBeNoise(f) ? " ?" : "");
}

std::string Quartiles(const Figures& f) {
  const SpeedEvidence e = EvidenceOf(f.ratios);
  return e.groups ? fmt::format("{:.2f}–{:.2f}", e.first_quartile, e.third_quartile) : "–";
}

// Drafters in rows, suites in columns and their mean behind them; the best of each column marked.
std::string SuiteTable(const EvalResults& r, double Figures::*figure, int digits) {
  if (r.drafters.empty()) return "";
  std::string html = "<div class=\"wide\"><table><thead><tr>" + TextHead("drafter");
  for (const SuiteResult& suite : r.drafters.front().suites)
    html += Head(fmt::format("{} (n = {})", suite.suite, suite.prompts));
  html += Head("mean") + "</tr></thead><tbody>";
  std::vector<std::vector<Figures>> rows;
  for (const DrafterResult& drafter : r.drafters) {
    rows.push_back(FiguresOfAll(drafter));
    rows.back().push_back(MeanFigures(rows.back()));
  }
  const auto is_best = [&](size_t d, size_t column) {
    const double value = rows[d][column].*figure;
    if (rows.size() < 2 || !std::isfinite(value)) return false;
    return std::ranges::none_of(rows, [&](const auto& row) { return row[column].*figure > value; });
  };
  for (size_t d = 0; d < rows.size(); ++d) {
    html += "<tr>" + TextCell(r.drafters[d].name);
    for (size_t column = 0; column < rows[d].size(); ++column) {
      const Figures& f = rows[d][column];
      const std::string number =
          figure == &Figures::speedup ? SpeedUp(f, f.speedup) : Number(f.*figure, digits);
      html += fmt::format("<td{}>{}</td>", is_best(d, column) ? " class=\"best\"" : "", number);
    }
    html += "</tr>";
  }
  return html + "</tbody></table></div>\n";
}

std::string SpeedTable(const EvalResults& r) {
  std::string html = "<details><summary>Suite by suite</summary><div class=\"wide\"><table><thead><tr>" +
                     TextHead("drafter") + TextHead("suite");
  for (const char* head : {"prompts", "answers", "groups", "speed-up", "median", "quartiles", "plain tok/s",
                           "tok/s", "τ served", "verify rate served", "verify rate", "drafts a round"})
    html += Head(head);
  html += "</tr></thead><tbody>";
  for (const DrafterResult& drafter : r.drafters) {
    for (const SuiteResult& suite : drafter.suites) {
      const Figures f = FiguresOf(suite);
      html += "<tr>" + TextCell(drafter.name) + TextCell(suite.suite) + Cell(std::to_string(suite.prompts)) +
              Cell(std::to_string(suite.answers)) + Cell(std::to_string(f.ratios.size())) +
              Cell(SpeedUp(f, f.speedup)) + Cell(SpeedUp(f, f.median_speedup)) + Cell(Quartiles(f)) +
              Cell(Number(f.plain_tok_per_s, 1)) + Cell(Number(f.spec_tok_per_s, 1)) +
              Cell(Number(f.served_tau, 2)) + Cell(Number(f.served_verify_rate, 2)) +
              Cell(Number(f.verify_rate, 2)) + Cell(Number(f.drafts_per_round, 2)) + "</tr>";
    }
  }
  return html + "</tbody></table></div></details>\n";
}

std::string DrafterTable(const EvalResults& r) {
  std::string html = "<div class=\"wide\"><table><thead><tr>";
  for (const char* head : {"drafter", "kind", "layers", "drafts a round at most", "confidence head", "from"})
    html += TextHead(head);
  html += "</tr></thead><tbody>";
  for (const DrafterResult& drafter : r.drafters) {
    const DrafterTraits& t = drafter.traits;
    html += "<tr>" + TextCell(drafter.name) +
            TextCell(t.kind + (t.with_lookup ? ", free drafts beside it" : "")) +
            TextCell(t.layers ? std::to_string(t.layers) : "–") + TextCell(std::to_string(t.block)) +
            TextCell(!t.confidence || t.layers == 0 ? "no"
                     : t.temperatures.empty()       ? "not calibrated"
                                                    : "calibrated") +
            TextCell(drafter.path) + "</tr>";
  }
  return html + "</tbody></table></div>\n";
}

// What the question mark means, where there is one.
std::string NoiseNote(const EvalResults& r) {
  for (const DrafterResult& drafter : r.drafters) {
    std::vector<Figures> all = FiguresOfAll(drafter);
    all.push_back(MeanFigures(all));
    if (!std::ranges::any_of(all, MayBeNoise)) continue;
    return " A question mark: may be noise, as a sign test over the groups of prompts cannot tell it from "
           "equal speed (p ≥ 0.05); more prompts would tell.";
  }
  return "";
}

}  // namespace

std::string RenderReport(const EvalResults& results) {
  std::string names;
  for (const DrafterResult& drafter : results.drafters)
    names += (names.empty() ? " with " : ", ") + drafter.name;
  std::string html =
      PageHead("Speculative decoding: " + results.model + names, "Speculative decoding, measured");
  html += Settings(results) + Losslessness(results) + DrafterTable(results);
  html +=
      "<section><h2>Accepted length τ (Table 1)</h2>\n<p class=\"caption\">Tokens committed per round, the "
      "extra one included, when every round verifies the whole block (at the end of an answer: as much of it "
      "as can still be said), sampled drafts token by token. n: prompts.</p>\n" +
      SuiteTable(results, &Figures::tau, 2) + "</section>\n";
  html +=
      "<section><h2>Speed</h2>\n<p class=\"caption\">Against plain decoding of the same prompts in the same "
      "run, lengths by the policy." +
      NoiseNote(results) + "</p>\n" + SuiteTable(results, &Figures::speedup, 2) + SpeedTable(results) +
      "</section>\n";
  html += ConditionalFigure(results) + DepthFigure(results) + BlockFigure(results) +
          ThresholdFigure(results) + ReliabilityFigure(results);
  html +=
      "<p class=\"note\">τ: tokens per round. Verify rate: tokens per row run for them. Means over suites "
      "are unweighted. docs/evaluation.md says how each figure is taken.</p>\n</body></html>\n";
  return html;
}

}  // namespace dspark
