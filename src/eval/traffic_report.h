// A load test as one HTML page that needs nothing beside itself.
#pragma once

#include <string>

#include "eval/traffic_figures.h"

namespace dspark {

// The paper's Figure 7 (throughput against speed for one user, a line for each policy) and Figure 8 (verify
// length and rows of a pass against load), and a table of all that was measured. The page is XML too.
std::string RenderTrafficReport(const TrafficResults& results);

}  // namespace dspark
