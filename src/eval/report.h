// An evaluation as one HTML page that needs nothing beside itself: tables, and the paper's figures as inline
// SVG, readable on light and dark screens and on paper.
#pragma once

#include <string>

#include "eval/results.h"

namespace dspark {

// Table 1 (τ by suite and drafter), speeds, and Figures 2 to 6 for those drafters that have what a figure
// shows; where none has, a sentence says what is missing. The page is XML too: every tag is closed.
std::string RenderReport(const EvalResults& results);

}  // namespace dspark
