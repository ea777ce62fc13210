// The paper's figures from an evaluation: each a piece of HTML with its heading, charts and caption.
#pragma once

#include <string>

#include "eval/results.h"

namespace dspark {

// P(next draft kept | all before it were) by position, one chart for each domain.
std::string ConditionalFigure(const EvalResults& results);
// τ by the drafter's layers, and by its block length: drafters that differ in nothing else that we know of.
std::string DepthFigure(const EvalResults& results);
std::string BlockFigure(const EvalResults& results);
// Static confidence thresholds: verify rate and τ by threshold, one line for each domain.
std::string ThresholdFigure(const EvalResults& results);
// Reliability of the confidences, position by position, before and after temperatures.
std::string ReliabilityFigure(const EvalResults& results);

}  // namespace dspark
