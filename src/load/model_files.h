// Opens a model: a GGUF file, or a Hugging Face directory (config.json + model.safetensors).
#pragma once

#include <memory>
#include <string>

#include "core/result.h"
#include "load/model_config.h"
#include "load/tensor_source.h"
#include "load/tokenizer.h"

namespace dspark {

struct ModelFiles {
  ModelConfig config;
  std::unique_ptr<TensorSource> weights;
  std::unique_ptr<Tokenizer> tokenizer;  // null when the files hold none (then only token ids work)
  std::string chat_template;             // Jinja text as found; empty when there is none
};

// Error: one line with the path, what is wrong in it (key, tensor, offset), and the cure.
Result<ModelFiles> OpenModel(const std::string& path);

}  // namespace dspark
