// What every reply of a run is asked with, whoever gives it.
#pragma once

#include "verify/sampling.h"

namespace dspark {

struct ReplyOptions {
  SamplingParams sampling;
  int max_tokens = 4096;  // of a reply; the context may end it before
  bool no_think = false;  // answer at once, where the model's template knows thoughts
};

}  // namespace dspark
