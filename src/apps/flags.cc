#include "apps/flags.h"

#include <fmt/format.h>

#include <charconv>
#include <limits>

namespace dspark {

CLI::Option* AddRepeatedText(CLI::App& app, const std::string& name, std::vector<std::string>* values,
                             const std::string& help) {
  const auto store = [values](const CLI::results_t& given) {
    *values = given;
    return true;
  };
  return app.add_option(name, store, help)->type_name("TEXT")->take_all()->allow_extra_args(false);
}

CLI::Option* AddText(CLI::App& app, const std::string& name, std::optional<std::string>* value,
                     const std::string& help) {
  const auto store = [value](const CLI::results_t& given) {
    *value = given.front();
    return true;
  };
  return app.add_option(name, store, help)->type_name("TEXT")->allow_extra_args(false);
}

CLI::Validator Within(double low, double high) {
  const auto complaint = [low, high](const std::string& text) -> std::string {
    double value = 0;
    if (CLI::detail::lexical_cast(text, value) && value >= low && value <= high) return "";  // false for NaN
    return fmt::format("{} is not a number from {} to {}", text, low, high);
  };
  return CLI::Validator(complaint, fmt::format("{} to {}", low, high));
}

CLI::Validator SeedNumber() {
  const auto complaint = [](const std::string& text) -> std::string {
    int64_t seed = 0;
    const char* end = text.data() + text.size();
    const auto parsed = std::from_chars(text.data(), end, seed);
    if (parsed.ec == std::errc() && parsed.ptr == end && seed >= 0) return "";
    return fmt::format("{} is not a whole number from 0 to {}", text, std::numeric_limits<int64_t>::max());
  };
  return CLI::Validator(complaint, "");
}

void RequireOk(const Status& status) {
  if (!status) throw CLI::ValidationError(status.error().text);
}

void AddSamplingFlags(CLI::App& app, SamplingParams* params) {
  const auto help = [](const char* what, float standard) { return fmt::format("{} [{}]", what, standard); };
  app.add_option("--temp", params->temperature, help("Temperature; 0 is greedy", params->temperature))
      ->check(Within(0, 100));
  app.add_option("--top-k", params->top_k,
                 help("Keep the k likeliest tokens; 0 is off", float(params->top_k)))
      ->check(CLI::Range(0, 1 << 30));
  app.add_option("--top-p", params->top_p, help("Keep the likeliest tokens up to this mass", params->top_p))
      ->check(Within(0, 1));
  app.add_option("--min-p", params->min_p,
                 help("Drop tokens below this share of the likeliest one", params->min_p))
      ->check(Within(0, 1));
  app.add_option("--repeat-penalty", params->repetition_penalty,
                 help("Divide logits of tokens already seen", params->repetition_penalty))
      ->check(Within(0.01, 100));
}

}  // namespace dspark
