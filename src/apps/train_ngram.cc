#include "apps/train_ngram.h"

#include <limits>

#include "api/session.h"
#include "apps/commands.h"
#include "apps/output.h"
#include "data/ngram_counts.h"
#include "data/train_rows.h"

namespace dspark {
namespace {

struct NgramTraining {
  std::string target, out, system;
  std::vector<std::string> data;
  int order = 4;       // tokens of the longest context
  double size_mb = 4;  // of the file, at most
};

// One key's value. False: it has another type.
template <class T>
bool Take(const nlohmann::json& value, T* into) {
  const bool fits = std::is_same_v<T, std::string> ? value.is_string()
                    : std::is_same_v<T, int>       ? value.is_number_integer()
                    : std::is_same_v<T, double>    ? value.is_number()
                                                   : value.is_array();
  if (!fits) return false;
  if constexpr (std::is_same_v<T, std::vector<std::string>>) {
    for (const nlohmann::json& file : value) {
      if (!file.is_string()) return false;
    }
  }
  *into = value.get<T>();
  return true;
}

Result<NgramTraining> ParseKeys(const nlohmann::json& keys) {
  NgramTraining t;
  std::string kind;
  for (const auto& [key, value] : keys.items()) {
    const bool taken = key == "kind"      ? Take(value, &kind)
                       : key == "target"  ? Take(value, &t.target)
                       : key == "data"    ? Take(value, &t.data)
                       : key == "out"     ? Take(value, &t.out)
                       : key == "system"  ? Take(value, &t.system)
                       : key == "order"   ? Take(value, &t.order)
                       : key == "size_mb" ? Take(value, &t.size_mb)
                                          : false;
    if (taken) continue;
    if (!NgramDefaults().contains(key))
      return MakeError(
          "configuration: key {} does nothing for kind ngram; see dspark train --defaults kind=ngram", key);
    return MakeError("configuration: {} cannot be {}{}", key, value.dump(),
                     key == "data" ? "; give a list, such as 'data=[\"answers.jsonl\"]'" : "");
  }
  if (t.target.empty()) return MakeError("configuration: no target; give target=MODEL");
  if (t.data.empty()) return MakeError("configuration: no data; give data=[\"file.jsonl\"]");
  if (t.out.empty()) return MakeError("configuration: no out; give out=FILE");
  if (t.order < 1 || t.order > kMaxNgramOrder)
    return MakeError("configuration: order is {}, expected 1 to {}", t.order, kMaxNgramOrder);
  if (!(t.size_mb >= 0.001 && t.size_mb <= 1024))
    return MakeError("configuration: size_mb is {}, expected 0.001 to 1024", t.size_mb);
  return t;
}

Result<NgramCorpus> ReadCorpus(const NgramTraining& training, const ModelFiles& target) {
  if (!target.tokenizer)
    return MakeError("{}: has no tokenizer, so no text can be counted for it", training.target);
  DSPARK_ASSIGN_OR_RETURN(const TrainTemplate format,
                          ChooseTrainTemplate("model", training.system, target.chat_template));
  TrainRows rows(training.data, *target.tokenizer,
                 {.format = format, .max_length = std::numeric_limits<int>::max(), .min_loss_tokens = 1});
  NgramCorpus corpus;
  for (;;) {
    DSPARK_ASSIGN_OR_RETURN(const std::optional<TrainTokens> tokens, rows.Next());
    if (!tokens) break;
    if (corpus.tokens() + int64_t(tokens->ids.size()) >= NgramCorpus::kMostTokens)
      return MakeError("{}: more than {} tokens; give fewer files", training.data.back(),
                       NgramCorpus::kMostTokens);
    corpus.Add(*tokens);
  }
  for (const std::string& row : rows.rejected().first()) PrintMessage("{}\n", row);
  if (rows.rejected().count() > 0) PrintMessage("{} rows cannot be used\n", rows.rejected().count());
  return corpus;
}

}  // namespace

nlohmann::ordered_json NgramDefaults() {
  const NgramTraining t;
  return {{"kind", "ngram"},    {"target", t.target}, {"data", t.data},      {"out", t.out},
          {"system", t.system}, {"order", t.order},   {"size_mb", t.size_mb}};
}

Result<int> TrainNgram(const nlohmann::json& keys) {
  const auto parsed = ParseKeys(keys);
  if (!parsed) {
    PrintMessage("dspark train: {}\n", parsed.error().text);
    return kExitUsage;
  }
  const NgramTraining& training = *parsed;
  DSPARK_ASSIGN_OR_RETURN(const std::string path, ResolveModel(training.target));
  DSPARK_ASSIGN_OR_RETURN(const ModelFiles target, OpenModel(path));
  DSPARK_ASSIGN_OR_RETURN(const NgramCorpus corpus, ReadCorpus(training, target));
  const NgramCounts table = CountNgrams(corpus, training.order, target.config.vocab,
                                        NgramEntriesIn(int64_t(training.size_mb * 1e6)));
  if (table.entries.empty()) {
    return MakeError("{}: in {} conversations with {} answer tokens no context comes twice; give more data",
                     training.data.front(), corpus.conversations(), corpus.answer_tokens());
  }
  DSPARK_RETURN_IF_ERROR(WriteNgramFile({.order = training.order,
                                         .vocab = target.config.vocab,
                                         .target_width = target.config.d_model,
                                         .target_layers = target.config.layers,
                                         .vocabulary = VocabularyId(target.tokenizer.get())},
                                        table.entries, training.out));
  PrintOutput("{}: {} of {} contexts, {:.2f} MB; {} conversations, {} answer tokens\n", training.out,
              table.entries.size(), table.contexts, double(NgramBytes(int64_t(table.entries.size()))) / 1e6,
              corpus.conversations(), corpus.answer_tokens());
  return kExitOk;
}

}  // namespace dspark
