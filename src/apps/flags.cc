#include "apps/flags.h"

#include <fmt/format.h>

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

}  // namespace dspark
