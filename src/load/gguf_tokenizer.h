// The tokenizer inside a GGUF file: llama.cpp's tokenizer.ggml.* keys as a TokenizerSpec.
#pragma once

#include <optional>

#include "core/result.h"
#include "load/gguf.h"
#include "load/tokenizer.h"

namespace dspark {

// Nothing when the file has no tokenizer (tokenizer.ggml.model missing, "none" or "no_vocab"). Token types: 3
// (control) become special added tokens, 4 (user-defined) added tokens that are not special, 5 (unused) empty
// ids. Error: a tokenizer model or pre-tokenizer we do not know (named, with those we do), or keys that
// disagree.
Result<std::optional<TokenizerSpec>> TokenizerSpecFromGguf(const Gguf& gguf);

}  // namespace dspark
