// dspark convert: a drafter in another form.
#include <CLI/CLI.hpp>
#include <map>
#include <optional>

#include "api/session.h"
#include "apps/commands.h"
#include "apps/flags.h"
#include "apps/output.h"
#include "apps/write_drafter.h"
#include "load/gguf.h"
#include "load/model_files.h"
#include "load/ngram_file.h"

namespace dspark {
namespace {

struct ConvertOptions {
  std::string in, out, type, target;
  bool with_embedding = false, with_head = false;
};

const std::map<std::string, TensorType>& Types() {
  static const std::map<std::string, TensorType> types = {{"f32", TensorType::kF32},
                                                          {"f16", TensorType::kF16},
                                                          {"bf16", TensorType::kBF16},
                                                          {"q8_0", TensorType::kQ8_0},
                                                          {"q4_0", TensorType::kQ4_0}};
  return types;
}

// A GGUF with a tokenizer; nothing for any other file.
std::optional<GgufFile> OpenIfTokenizer(const std::string& path) {
  auto opened = OpenGgufFile(path);
  if (!opened || !opened->gguf.FindKey("tokenizer.ggml.model")) return {};
  return std::move(opened).value();
}

TensorType TypeOf(const ConvertOptions& options) {
  if (!options.type.empty()) return Types().at(options.type);
  return options.out.ends_with(".gguf") ? TensorType::kF16 : TensorType::kBF16;
}

Result<int> Run(const ConvertOptions& options) {
  if (LooksLikeNgramFile(options.in))
    return MakeError("{}: is a counted table, which has this one form; -md takes it as it is", options.in);
  DSPARK_ASSIGN_OR_RETURN(const DrafterFiles drafter, OpenDrafter(options.in));
  DrafterWriteOptions write{
      .type = TypeOf(options), .with_embedding = options.with_embedding, .with_head = options.with_head};
  ModelFiles target;
  std::optional<GgufFile> tokenizer = OpenIfTokenizer(options.in);
  if (!options.target.empty()) {
    DSPARK_ASSIGN_OR_RETURN(const std::string path, ResolveModel(options.target));
    DSPARK_ASSIGN_OR_RETURN(target, OpenModel(path));
    DSPARK_RETURN_IF_ERROR(CheckDrafterFits(drafter, target.config));
    write.target = target.weights.get();
    if (!tokenizer) tokenizer = OpenIfTokenizer(path);
  }
  if (tokenizer) write.tokenizer = &tokenizer->gguf;
  DSPARK_RETURN_IF_ERROR(WriteDrafter(drafter, write, options.out));
  PrintOutput("{}: written from a {}\n", options.out, drafter.config.form);
  return kExitOk;
}

}  // namespace

Command AddConvert(CLI::App& app) {
  auto options = std::make_shared<ConvertOptions>();
  app.add_option("in", options->in,
                 "A drafter: GGUF, or DeepSpec, DFlash, speculators or SpecForge directory")
      ->required();
  app.add_option("out", options->out, "x.gguf for llama.cpp's form, else a directory of DeepSpec's form")
      ->required();
  app.add_option("--type", options->type,
                 "Matrices: f32, f16, q8_0 or q4_0 in GGUF [f16]; f32 or bf16 in a directory [bf16]")
      ->check(CLI::IsMember({"f32", "f16", "bf16", "q8_0", "q4_0"}));
  app.add_option("--target", options->target,
                 "The model it drafts for, as -m takes it: its embedding and head are not stored twice in a\n"
                 "GGUF, and fill what a directory wants; a GGUF gets its tokenizer, without which llama.cpp\n"
                 "cannot use the file");
  app.add_flag("--with-embedding", options->with_embedding, "Store the embedding in a GGUF in any case");
  app.add_flag("--with-head", options->with_head, "Store the head in a GGUF in any case");
  app.final_callback([options] { RequireOk(CheckMatrixType(TypeOf(*options), options->out)); });
  app.footer(
      "\nExamples:\n"
      "  dspark convert drafter/step_latest drafter.gguf --target model.gguf --type q8_0\n"
      "  dspark convert drafter.gguf directory --target model.gguf");
  return [options] { return Run(*options); };
}

}  // namespace dspark
