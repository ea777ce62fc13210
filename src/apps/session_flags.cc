#include "apps/session_flags.h"

#include <CLI/CLI.hpp>

#include "api/default_model.h"
#include "apps/flags.h"

namespace dspark {

void AddSessionFlags(CLI::App& app, SessionOptions* options) {
  app.add_option("-m,--model", options->model,
                 "Model: a GGUF file, a Hugging Face directory, or " + DefaultModelPackage().name +
                     ", which is the default model");
  app.add_option("-c,--ctx", options->context, "Context length in tokens [the model's own, at most 8192]")
      ->check(CLI::Range(16, 1 << 20));
  app.add_option("-t,--threads", options->threads, "Threads [the cores this process may use]")
      ->check(CLI::Range(1, 512));
  app.add_option("--weights", options->weights,
                 "Pack the weights as f32, bf16, int8 or int4 [as in the file]")
      ->check(Parses(ResolveWeights));
  app.add_option("--kv", options->kv, "Keep K and V in f16 or f32, twice the memory [f16]")
      ->check(Parses(ResolveKv));
  app.add_option("--isa", options->isa, "Instruction set: reference, avx2 or avx512_vnni [the best there is]")
      ->check(Parses(ResolveIsa));
}

void AddDraftWeightsFlag(CLI::App& app, DraftOptions* options) {
  app.add_option(
         "--draft-weights", options->weights,
         "Pack the drafter's weights as f32, bf16, int8 or int4 [as in its file]; int4 drafts with a 4-bit "
         "copy of the head")
      ->check(Parses(ResolveWeights));
}

void AddPolicyFlags(CLI::App& app, DraftOptions* options) {
  CLI::Option* policy =
      app.add_option("--policy", options->policy,
                     "How many drafts are verified: adaptive (what pays), zos (as many as paid two steps "
                     "ago), fixed:N, threshold:P and cumulative:P (by the drafter's confidence; without such "
                     "a head by how many were kept so far), off [adaptive]")
          ->check(Parses(CheckPolicy));
  app.add_option("--draft-max", options->draft_max, "The same as --policy fixed:N")
      ->check(CLI::Range(0, kLongestDraft))
      ->excludes(policy);
  app.add_option("--accept", options->accept, "Sampled drafts are accepted by block or by token [block]")
      ->check(CLI::IsMember({"block", "token"}));
}

void AddDraftFlags(CLI::App& app, DraftOptions* options) {
  app.add_option(
      "--draft", options->draft,
      "Drafters, with commas between them: a trained one's file or directory, a counted table, lookup "
      "(prompt lookup); or none, or auto: lookup and the table that comes with dspark for this model [auto]; "
      "also -md");
  AddDraftWeightsFlag(app, options);
  app.add_flag("--no-spec", options->no_spec, "Plain decoding, the same as --draft none");
  app.add_flag("--no-lookup", options->no_lookup, "The drafters alone, without prompt lookup beside them");
  AddPolicyFlags(app, options);
}

}  // namespace dspark
