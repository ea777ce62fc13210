// The id that stands for tokens not yet drafted.
#pragma once

#include <string>

#include "load/model_files.h"

namespace dspark {

struct MaskToken {
  int id = 0;
  std::string why;  // one line for the user
};

// An id that texts do not contain, so that its embedding says nothing else (drafters.md §1.5 has a row behind
// the tokenizer's last id, or a mask token). The lowest of the first kind there is: a row without a token; a
// control token called mask, reserved or unused; a control token that is neither in the chat template nor
// ends or begins or pads a text; the last id, which a text may contain.
MaskToken ChooseMaskToken(const ModelFiles& target);

}  // namespace dspark
