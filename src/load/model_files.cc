#include "load/model_files.h"

#include <filesystem>
#include <utility>

#include "core/mapped_file.h"
#include "load/drafter_files.h"
#include "load/gguf.h"
#include "load/gguf_model.h"
#include "load/gguf_tokenizer.h"
#include "load/hf_config.h"
#include "load/hf_weights.h"
#include "load/json_file.h"
#include "load/mapped_weights.h"
#include "load/no_config.h"
#include "load/tokenizer_json.h"

namespace dspark {
namespace {

// Every id the tokenizer gives must have a row in the embedding.
Result<std::unique_ptr<Tokenizer>> MakeTokenizer(TokenizerSpec spec, int vocab) {
  if (spec.tokens.size() > size_t(vocab)) {
    return MakeError("{}: {} tokens but only {} rows in the embedding; the file is damaged", spec.where,
                     spec.tokens.size(), vocab);
  }
  return Tokenizer::Make(std::move(spec));
}

Result<ModelFiles> OpenGguf(const std::string& path) {
  DSPARK_ASSIGN_OR_RETURN(GgufFile opened, OpenGgufFile(path));
  const Gguf& gguf = opened.gguf;
  ModelFiles model;
  DSPARK_ASSIGN_OR_RETURN(model.config, ConfigFromGguf(gguf));
  DSPARK_ASSIGN_OR_RETURN(std::optional<TokenizerSpec> spec, TokenizerSpecFromGguf(gguf));
  if (spec) {
    DSPARK_ASSIGN_OR_RETURN(model.tokenizer, MakeTokenizer(std::move(*spec), model.config.vocab));
  }
  DSPARK_ASSIGN_OR_RETURN(const std::string_view chat_template,
                          gguf.GetOr<std::string_view>("tokenizer.chat_template", ""));
  model.chat_template = chat_template;
  MappedWeights::Tensors tensors;
  for (const TensorView& tensor : gguf.tensors) tensors.emplace(tensor.name, tensor);
  std::vector<MappedFile> files;
  files.push_back(std::move(opened.file));
  auto weights = std::make_unique<MappedWeights>(path, std::move(files), std::move(tensors));
  DSPARK_RETURN_IF_ERROR(CheckTensors(model.config, *weights));
  model.weights = std::move(weights);
  return model;
}

Result<ModelFiles> OpenDirectory(const std::string& dir) {
  if (!FileExists(dir + "/config.json")) return NoConfigError(dir, "model");
  ModelFiles model;
  DSPARK_ASSIGN_OR_RETURN(model.config, ConfigFromHf(dir));
  DSPARK_ASSIGN_OR_RETURN(std::unique_ptr<MappedWeights> weights, OpenHfWeights(dir, model.config));
  DSPARK_RETURN_IF_ERROR(CheckTensors(model.config, *weights));
  model.weights = std::move(weights);
  DSPARK_ASSIGN_OR_RETURN(model.chat_template, ChatTemplateFromHf(dir));
  if (const std::string path = dir + "/tokenizer.json"; FileExists(path)) {
    DSPARK_ASSIGN_OR_RETURN(TokenizerSpec spec, TokenizerSpecFromJson(path));
    DSPARK_ASSIGN_OR_RETURN(model.tokenizer, MakeTokenizer(std::move(spec), model.config.vocab));
  }
  return model;
}

}  // namespace

Result<ModelFiles> OpenModel(const std::string& path) {
  std::error_code error;
  auto opened = std::filesystem::is_directory(path, error) ? OpenDirectory(path) : OpenGguf(path);
  if (!opened && LooksLikeDrafter(path)) {
    return MakeError("{}: is a drafter, not a model; give it with -md, and the model it was made for with -m",
                     path);
  }
  return opened;
}

}  // namespace dspark
