#include "train/train_config.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <set>

#include "data/tap_choice.h"
#include "load/drafter_tensors.h"
#include "train/train_keys.h"

namespace dspark {
namespace {

using Json = nlohmann::ordered_json;

// Keys that a kind does not read: not printed, and an error where they are given.
bool DoesNothing(const std::string& kind, std::string_view key) {
  constexpr std::string_view kSteps[] = {"ttt_steps", "ttt_decay"};
  constexpr std::string_view kHeads[] = {"markov", "markov_rank", "confidence", "confidence_share"};
  constexpr std::string_view kBlocks[] = {"layers",  "block_size", "mask_token",
                                          "anchors", "decay",      "slot_weights"};
  const bool blocks = kind == "dspark" || kind == "dflash";
  return (blocks && std::ranges::count(kSteps, key)) ||
         (kind != "dspark" && std::ranges::count(kHeads, key)) ||
         (!blocks && std::ranges::count(kBlocks, key)) || (kind == "mtp" && key == "taps") ||
         (kind == "eagle3" && key == "init_layers");  // its layer reads pairs, no layer of the target does
}

bool IsInt(const nlohmann::json& value) {
  using Limits = std::numeric_limits<int>;
  return value.is_number_integer() && value.get<double>() >= Limits::min() &&
         value.get<double>() <= Limits::max();
}

struct Writer {
  const std::string& kind;
  Json json = {};
  template <class T, class... Rest>
  void Key(const char* key, const T& value, Rest...) {
    if (!DoesNothing(kind, key)) json[key] = value;
  }
  void Choice(const char* key, const std::string& value, std::initializer_list<const char*>) {
    Key(key, value);
  }
};

struct Reader {
  const nlohmann::json& json;
  const std::string& path;
  std::set<std::string> known = {};
  std::optional<Error> error = {};

  // The value of a key that is there and of the right kind.
  const nlohmann::json* Find(const char* key, bool (nlohmann::json::*is)() const noexcept, const char* kind) {
    known.insert(key);
    const auto it = json.find(key);
    if (it == json.end()) return nullptr;
    if (((*it).*is)()) return &*it;
    Wrong(key, kind);
    return nullptr;
  }
  void Wrong(const char* key, const std::string& expected) {
    if (!error) error = MakeError("{}: {} is {}, expected {}", path, key, json[key].dump(), expected);
  }
  void Key(const char* key, std::string* value) {
    if (const auto* found = Find(key, &nlohmann::json::is_string, "a text"))
      *value = found->get<std::string>();
  }
  void Key(const char* key, bool* value) {
    if (const auto* found = Find(key, &nlohmann::json::is_boolean, "true or false"))
      *value = found->get<bool>();
  }
  template <class T>
  requires std::is_arithmetic_v<T>
  void Key(const char* key, T* value, double low, double high) {
    const bool whole = std::is_integral_v<T>;
    const auto* found = Find(key, whole ? &nlohmann::json::is_number_integer : &nlohmann::json::is_number,
                             whole ? "a whole number" : "a number");
    if (!found) return;
    const double number = found->get<double>();
    if (!(number >= low && number <= high)) return Wrong(key, fmt::format("{} to {}", low, high));
    *value = found->get<T>();
  }
  template <class T>
  void Key(const char* key, std::vector<T>* values) {
    const auto* found = Find(key, &nlohmann::json::is_array, "a list");
    if (!found) return;
    values->clear();
    for (const auto& item : *found) {
      const bool fits = std::is_same_v<T, int> ? IsInt(item) : item.is_string();
      if (!fits) return Wrong(key, std::is_same_v<T, int> ? "a list of whole numbers" : "a list of texts");
      values->push_back(item.get<T>());
    }
  }
  void Choice(const char* key, std::string* value, std::initializer_list<const char*> choices) {
    Key(key, value);
    std::string all;
    for (const char* choice : choices) {
      if (*value == choice) return;
      all += (all.empty() ? "" : ", ") + std::string(choice);
    }
    Wrong(key, "one of " + all);
  }
};

// Reader takes pointers, Writer values.
struct ReadKeys {
  Reader& reader;
  template <class T, class... Rest>
  void Key(const char* key, T& value, Rest... rest) {
    reader.Key(key, &value, rest...);
  }
  void Choice(const char* key, std::string& value, std::initializer_list<const char*> choices) {
    reader.Choice(key, &value, choices);
  }
};

// That the target has the layers and the token which are named.
Status CheckIds(const TrainConfig& config, const ModelConfig& target) {
  const std::vector<int>& taps = config.taps;
  const bool ascending = std::ranges::is_sorted(taps, std::less_equal<int>());
  if (!taps.empty() && (!ascending || taps.front() < -1 || taps.back() > target.layers - 2)) {
    return MakeError(
        "training configuration: taps is [{}], expected layers from -1 (the embedding) to {}, ascending; of "
        "the target's {} layers the last cannot be tapped",
        fmt::join(taps, ", "), target.layers - 2, target.layers);
  }
  if (config.mask_token >= target.vocab) {
    return MakeError("training configuration: mask_token is {}, but the target's ids end at {}",
                     config.mask_token, target.vocab - 1);
  }
  return {};
}

}  // namespace

TrainConfig DefaultsOf(const std::string& kind) {
  TrainConfig config;
  config.kind = kind;
  if (kind == "dspark") return config;
  config.markov = "none";
  config.confidence = false;
  config.ce_share = 1;
  config.l1_share = 0;
  if (kind == "dflash") return config;
  config.layers = 1;
  if (kind == "mtp") config.ttt_steps = 1;
  return config;
}

Result<TrainConfig> ParseTrainConfig(const nlohmann::json& json, const std::string& path) {
  const auto kind = json.find("kind");
  TrainConfig config =
      DefaultsOf(kind != json.end() && kind->is_string() ? kind->get<std::string>() : "dspark");
  Reader reader{json, path};
  ReadKeys keys{reader};
  ForEachKey(config, keys);
  if (reader.error) return *reader.error;
  for (const auto& [key, value] : json.items()) {
    if (!reader.known.contains(key)) {
      return MakeError("{}: there is no key {}; dspark train --defaults lists all", path, key);
    }
    if (DoesNothing(config.kind, key)) {
      return MakeError("{}: {} does nothing for kind {}; leave it out", path, key, config.kind);
    }
  }
  if (config.batch % config.group != 0) {
    return MakeError("{}: batch {} is no multiple of group {}", path, config.batch, config.group);
  }
  if (config.loss != "l1" && config.l1_share == 0) {
    return MakeError("{}: loss {} does nothing with l1_share 0; leave it out or give l1_share", path,
                     config.loss);
  }
  if (config.slot_weights != "fixed" && config.ce_share == 0 && config.l1_share == 0) {
    return MakeError("{}: slot_weights {} does nothing with ce_share 0 and l1_share 0; leave it out", path,
                     config.slot_weights);
  }
  return config;
}

Json TrainConfigJson(const TrainConfig& config) {
  Writer writer{config.kind};
  ForEachKey(config, writer);
  return writer.json;
}

Result<DrafterConfig> DrafterFor(const TrainConfig& config, const ModelConfig& target) {
  DSPARK_RETURN_IF_ERROR(CheckIds(config, target));
  DrafterConfig c;
  const bool mtp = config.kind == "mtp", sequential = mtp || config.kind == "eagle3";
  c.kind = mtp ? DrafterKind::kMtp : sequential ? DrafterKind::kEagle3 : DrafterKind::kBlock;
  c.form = mtp ? "MTP directory" : "DeepSpec directory";
  c.backbone = target;
  c.backbone.architecture = "qwen3";
  c.backbone.layers = config.layers;
  c.backbone.qk_norm = true;
  c.backbone.tied_embeddings = c.backbone.rope_interleaved = false;
  c.backbone.rope_freq_divisors.clear();  // DeepSpec's configurations say nothing of scaled rope
  c.target_width = target.d_model;
  c.target_vocab = target.vocab;
  c.target_layers = target.layers;
  if (!mtp) c.taps = config.taps.empty() ? AutoTaps(target.layers) : config.taps;
  c.block_size = sequential ? config.ttt_steps : config.block_size;
  c.mask_token = config.mask_token < 0 ? target.vocab - 1 : config.mask_token;
  c.markov_rank = config.markov == "none" ? 0 : config.markov_rank;
  c.markov = config.markov == "gated"     ? MarkovHead::kGated
             : config.markov == "rnn"     ? MarkovHead::kRnn
             : config.markov == "vanilla" ? MarkovHead::kVanilla
                                          : MarkovHead::kNone;
  c.confidence = config.confidence;
  c.confidence_with_markov = config.confidence && c.markov != MarkovHead::kNone;
  c.frozen_copies = true;
  c.own_embedding = c.own_head = !mtp;
  DSPARK_RETURN_IF_ERROR(CheckDrafterConfig(c, "training configuration"));
  if (!config.init_layers.empty() && int(config.init_layers.size()) != config.layers) {
    return MakeError("training configuration: init_layers names {} layers for {}", config.init_layers.size(),
                     config.layers);
  }
  for (const int layer : config.init_layers) {
    if (layer < 0 || layer >= target.layers) {
      return MakeError("training configuration: init_layers names layer {}, but the target has 0 to {}",
                       layer, target.layers - 1);
    }
  }
  return c;
}

}  // namespace dspark
