// Tokenizers of Hugging Face directories (tokenizer.json, targets.md §7).
#pragma once

#include <string>

#include "core/result.h"
#include "load/tokenizer.h"

namespace dspark {

// Reads a byte-level BPE tokenizer whose pre-tokenizer is one of PreTokenizer's. The post-processor is not
// applied: it would add BOS. Error: no such file, no JSON, or the first thing in it that we would not do
// exactly (with its key).
Result<TokenizerSpec> TokenizerSpecFromJson(const std::string& path);

}  // namespace dspark
