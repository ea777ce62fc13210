// dspark train kind=ngram: counts a table drafter. It needs no torch, and dspark does it itself.
#pragma once

#include <nlohmann/json.hpp>

#include "core/result.h"

namespace dspark {

// The keys with their defaults, as TrainNgram takes them.
nlohmann::ordered_json NgramDefaults();

// Reads the conversations, counts, and writes the file. Returns an exit code. Error: one line.
Result<int> TrainNgram(const nlohmann::json& keys);

}  // namespace dspark
