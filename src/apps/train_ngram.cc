#include "apps/train_ngram.h"

#include <algorithm>
#include <filesystem>
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

constexpr double kLeastMb = 0.001, kMostMb = 1024;

// One key's value. False: it is not of that type, or not in [low, high].
bool Take(const nlohmann::json& value, std::string* into) {
  if (value.is_string()) *into = value.get<std::string>();
  return value.is_string();
}

bool Take(const nlohmann::json& value, std::vector<std::string>* into) {
  const bool fits =
      value.is_array() && std::ranges::all_of(value, [](const auto& v) { return v.is_string(); });
  if (fits) *into = value.get<std::vector<std::string>>();
  return fits;
}

template <class T>
bool Take(const nlohmann::json& value, double low, double high, T* into) {
  if (std::is_integral_v<T> ? !value.is_number_integer() : !value.is_number()) return false;
  const bool fits = value.get<double>() >= low && value.get<double>() <= high;
  if (fits) *into = value.get<T>();
  return fits;
}

std::string Expected(const std::string& key) {
  if (key == "data") return "a list, such as 'data=[\"answers.jsonl\"]'";
  if (key == "order") return fmt::format("1 to {}", kMaxNgramOrder);
  if (key == "size_mb") return fmt::format("{} to {}", kLeastMb, kMostMb);
  return "a text";
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
                       : key == "order"   ? Take(value, 1, kMaxNgramOrder, &t.order)
                       : key == "size_mb" ? Take(value, kLeastMb, kMostMb, &t.size_mb)
                                          : false;
    if (taken) continue;
    if (!NgramDefaults().contains(key))
      return MakeError(
          "configuration: key {} does nothing for kind ngram; see dspark train --defaults kind=ngram", key);
    return MakeError("configuration: {} is {}, expected {}", key, value.dump(), Expected(key));
  }
  if (t.target.empty()) return MakeError("configuration: no target; give target=MODEL");
  if (t.data.empty()) return MakeError("configuration: no data; give data=[\"file.jsonl\"]");
  if (t.out.empty()) return MakeError("configuration: no out; give out=FILE");
  return t;
}

// That the table replaces nothing that it is made of, by whatever path. `target`: a file or a directory.
Status CheckNotRead(const NgramTraining& training, const std::string& target) {
  std::error_code ignored;
  std::vector<std::filesystem::path> read(training.data.begin(), training.data.end());
  read.emplace_back(target);
  for (const auto& file : std::filesystem::directory_iterator(target, ignored)) read.push_back(file.path());
  for (const std::filesystem::path& file : read) {
    if (std::filesystem::equivalent(file, training.out, ignored))
      return MakeError("{}: is read and written at once; give out another name", training.out);
  }
  return {};
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

// What was counted, as the file says it: names without folders, which are of one machine.
std::string DataText(const NgramTraining& training, const NgramCorpus& corpus) {
  std::string names;
  for (const std::string& path : training.data)
    names += (names.empty() ? "" : ", ") + std::filesystem::path(path).filename().string();
  return fmt::format("{}: {} conversations, {} answer tokens", names, corpus.conversations(),
                     corpus.answer_tokens());
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
  DSPARK_RETURN_IF_ERROR(CheckNotRead(training, path));
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
                                         .vocabulary = VocabularyId(target.tokenizer.get()),
                                         .data = DataText(training, corpus)},
                                        table.entries, training.out));
  PrintOutput("{}: {} of {} contexts, {:.2f} MB; {} conversations, {} answer tokens\n", training.out,
              table.entries.size(), table.contexts, double(NgramBytes(int64_t(table.entries.size()))) / 1e6,
              corpus.conversations(), corpus.answer_tokens());
  return kExitOk;
}

}  // namespace dspark
