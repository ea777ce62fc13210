#include "load/tokenizer_json.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "load/bpe.h"
#include "load/json_file.h"
#include "load/pre_tokenizer.h"
#include "load/printable.h"

namespace dspark {
namespace {

using Json = nlohmann::json;

// What `object` holds under `key`; null when it is no object or has no such key.
const Json& At(const Json& object, const char* key) {
  static const Json kNull;
  if (!object.is_object()) return kNull;
  const auto it = object.find(key);
  return it == object.end() ? kNull : *it;
}

bool Flag(const Json& object, const char* key, bool otherwise = false) {
  const Json& value = At(object, key);
  return value.is_boolean() ? value.get<bool>() : otherwise;
}

std::string Text(const Json& value) { return value.is_string() ? value.get<std::string>() : std::string(); }

bool IsType(const Json& object, const char* type) { return Text(At(object, "type")) == type; }

// An unset option: null, false, zero or the empty string.
bool IsUnset(const Json& value) {
  return value.is_null() || value == Json(false) || value == Json("") || (value.is_number() && value == 0);
}

// The members of a "Sequence", or the one thing itself.
std::vector<Json> Members(const Json& value, const char* key) {
  if (!IsType(value, "Sequence")) return value.is_null() ? std::vector<Json>{} : std::vector<Json>{value};
  const Json& members = At(value, key);
  return members.is_array() ? members.get<std::vector<Json>>() : std::vector<Json>{};
}

Error Unsupported(const TokenizerSpec& spec, std::string_view what) {
  return MakeError(
      "{}: {} is not supported, only the byte-level BPE of GPT-2, SmolLM, Llama 3 and Qwen 2 is; give "
      "the prompt as token ids (--prompt-ids)",
      spec.where, Printable(what, 200));
}

Error Damaged(const TokenizerSpec& spec, std::string_view what) {
  return MakeError("{}: {}; download the file again", spec.where, Printable(what, 200));
}

Status ReadNormalizer(const Json& json, TokenizerSpec* spec) {
  for (const Json& step : Members(At(json, "normalizer"), "normalizers")) {
    if (!IsType(step, "NFC")) return Unsupported(*spec, "normalizer " + step.dump());
    spec->nfc = true;
  }
  return {};
}

// "Split" into the matches of a pattern: as they are, or by removing what is between them (nothing, here).
bool IsSplitByPattern(const Json& step) {
  if (!IsType(step, "Split")) return false;
  const std::string behavior = Text(At(step, "behavior"));
  const bool invert = Flag(step, "invert");
  return (behavior == "Isolated" && !invert) || (behavior == "Removed" && invert);
}

std::optional<PreTokenizer> FindPreTokenizer(const std::vector<Json>& steps) {
  if (steps.empty() || steps.size() > 2) return std::nullopt;
  const Json& last = steps.back();
  if (!IsType(last, "ByteLevel") || Flag(last, "add_prefix_space", true)) return std::nullopt;
  if (Flag(last, "use_regex", true)) {
    if (steps.size() == 1) return PreTokenizer::kGpt2;
    const bool digits = IsType(steps[0], "Digits") && Flag(steps[0], "individual_digits");
    return digits ? std::optional(PreTokenizer::kSmolLm) : std::nullopt;
  }
  if (steps.size() == 1 || !IsSplitByPattern(steps[0])) return std::nullopt;
  const std::string pattern = Text(At(At(steps[0], "pattern"), "Regex"));
  for (const PreTokenizer kind : {PreTokenizer::kGpt2, PreTokenizer::kLlama3, PreTokenizer::kQwen2}) {
    if (pattern == PublishedPattern(kind)) return kind;
  }
  return std::nullopt;
}

Status ReadPreTokenizer(const Json& json, TokenizerSpec* spec) {
  const Json& value = At(json, "pre_tokenizer");
  const auto kind = FindPreTokenizer(Members(value, "pretokenizers"));
  if (!kind) return Unsupported(*spec, "pre_tokenizer " + value.dump());
  spec->pre = *kind;
  return {};
}

// Ids leave few holes in real files; a wild one must not make a vocabulary of gigabytes.
Result<int32_t> CheckId(const Json& id, std::string_view text, const TokenizerSpec& spec) {
  constexpr int32_t kLimit = 1 << 20;
  if (!id.is_number_integer() || id < 0 || id >= kLimit)
    return Damaged(spec, fmt::format("token \"{}\" has the id {}", text, id.dump()));
  return id.get<int32_t>();
}

Status ReadVocabulary(const Json& model, TokenizerSpec* spec) {
  const Json& vocab = At(model, "vocab");
  if (!vocab.is_object() || vocab.empty()) return Damaged(*spec, "model.vocab is missing or empty");
  for (const auto& [text, json_id] : vocab.items()) {
    DSPARK_ASSIGN_OR_RETURN(const int32_t id, CheckId(json_id, text, *spec));
    if (size_t(id) >= spec->tokens.size()) spec->tokens.resize(id + 1);
    if (!spec->tokens[id].empty())
      return Damaged(*spec, fmt::format("\"{}\" and \"{}\" both have the id {}", text, spec->tokens[id], id));
    spec->tokens[id] = text;
  }
  return {};
}

Status ReadMerges(const Json& model, TokenizerSpec* spec) {
  const Json& merges = At(model, "merges");
  if (!merges.is_array()) return Damaged(*spec, "model.merges is missing");
  for (const Json& merge : merges) {
    if (merge.is_string()) {
      spec->merges.push_back(merge.get<std::string>());
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      spec->merges.push_back(Text(merge[0]) + " " + Text(merge[1]));
    } else {
      return Damaged(*spec, fmt::format("merge {} is no pair: {}", spec->merges.size(), merge.dump()));
    }
  }
  return {};
}

Status ReadAdded(const Json& json, TokenizerSpec* spec) {
  const Json& all = At(json, "added_tokens");
  if (all.is_null()) return {};
  if (!all.is_array()) return Damaged(*spec, "added_tokens is not a list");
  for (const Json& entry : all) {
    TokenizerSpec::Added added{
        .text = Text(At(entry, "content")), .id = 0, .special = Flag(entry, "special")};
    DSPARK_ASSIGN_OR_RETURN(added.id, CheckId(At(entry, "id"), added.text, *spec));
    added.strip_left = Flag(entry, "lstrip");
    added.strip_right = Flag(entry, "rstrip");
    added.single_word = Flag(entry, "single_word");
    added.normalized = Flag(entry, "normalized");
    if (size_t(added.id) >= spec->tokens.size()) spec->tokens.resize(added.id + 1);
    spec->added.push_back(std::move(added));
  }
  return {};
}

// With an unknown token, bytes the vocabulary lacks would become it instead of being dropped.
bool HasAllBytes(const TokenizerSpec& spec) {
  std::vector<bool> found(256);
  std::string bytes;
  for (const std::string& token : spec.tokens) {
    bytes.clear();
    if (AppendSpelledBytes(token, &bytes) && bytes.size() == 1) found[uint8_t(bytes[0])] = true;
  }
  return std::count(found.begin(), found.end(), true) == 256;
}

Status ReadModel(const Json& model, TokenizerSpec* spec) {
  const std::string type = Text(At(model, "type"));  // old files have none
  if (!type.empty() && type != "BPE") return Unsupported(*spec, "model.type " + type);
  for (const char* key : {"dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"}) {
    if (!IsUnset(At(model, key))) return Unsupported(*spec, fmt::format("model.{}", key));
  }
  spec->ignore_merges = Flag(model, "ignore_merges");
  DSPARK_RETURN_IF_ERROR(ReadVocabulary(model, spec));
  DSPARK_RETURN_IF_ERROR(ReadMerges(model, spec));
  if (!IsUnset(At(model, "unk_token")) && !HasAllBytes(*spec))
    return Unsupported(*spec, "model.unk_token for bytes without a token");
  return {};
}

}  // namespace

Result<TokenizerSpec> TokenizerSpecFromJson(const std::string& path) {
  DSPARK_ASSIGN_OR_RETURN(const Json json, ReadJsonObject(path));
  TokenizerSpec spec;
  spec.where = path;
  DSPARK_RETURN_IF_ERROR(ReadModel(At(json, "model"), &spec));
  DSPARK_RETURN_IF_ERROR(ReadNormalizer(json, &spec));
  DSPARK_RETURN_IF_ERROR(ReadPreTokenizer(json, &spec));
  const Json& decoder = At(json, "decoder");
  if (!decoder.is_null() && !IsType(decoder, "ByteLevel"))
    return Unsupported(spec, "decoder " + decoder.dump());
  DSPARK_RETURN_IF_ERROR(ReadAdded(json, &spec));
  return spec;
}

}  // namespace dspark
