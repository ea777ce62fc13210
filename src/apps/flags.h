// What CLI11 lacks for flags.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/result.h"
#include "verify/sampling.h"

namespace dspark {

// A flag that may be repeated and takes exactly one value each time, verbatim. CLI11's own list options take
// every word that follows, and split values such as "[a,b]".
CLI::Option* AddRepeatedText(CLI::App& app, const std::string& name, std::vector<std::string>* values,
                             const std::string& help);

// An option whose empty value ("") is a value: the optional is set whenever the option is given.
CLI::Option* AddText(CLI::App& app, const std::string& name, std::optional<std::string>* value,
                     const std::string& help);

// Checks a number in [low, high] as CLI::Range does, which lets "nan" through.
CLI::Validator Within(double low, double high);

// Checks a whole number of 63 bits; CLI11 takes a larger one for the largest.
CLI::Validator SeedNumber();

// Checks what `parse` (std::string → Status or Result) makes of a value, in its words.
template <class Parse>
CLI::Validator Parses(Parse parse) {
  const auto complaint = [parse](const std::string& text) -> std::string {
    const auto parsed = parse(text);
    return parsed.ok() ? "" : parsed.error().text;
  };
  return CLI::Validator(complaint, "");
}

// For final callbacks: an error becomes one of the command line.
void RequireOk(const Status& status);

// --temp, --top-k, --top-p, --min-p, --repeat-penalty; what `params` holds is their default.
void AddSamplingFlags(CLI::App& app, SamplingParams* params);

}  // namespace dspark
