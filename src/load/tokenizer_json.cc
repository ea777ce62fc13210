#include "load/tokenizer_json.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/mapped_file.h"
#include "load/bpe.h"
#include "load/pre_tokenizer.h"

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

Status ReadNormalizer(const Json& json, TokenizerSpec* spec) {
  for (const Json& step : Members(At(json, "normalizer"), "normalizers")) {
    if (!IsType(step, "NFC"))
      return MakeError("{}: normalizer \"{}\" is not supported, only NFC is", spec->where,
                       Text(At(step, "type")));
    spec->nfc = true;
  }
  return {};
}

// "Split" into the matches of a pattern: as they are, or by removing what lies between them, which is
// nothing.
bool IsSplitByPattern(const Json& step) {
  if (!IsType(step, "Split")) return false;
  const std::string behavior = Text(At(step, "behavior"));
  const bool invert = Flag(step, "invert");
  return (behavior == "Isolated" && !invert) || (behavior == "Removed" && invert);
}

Status ReadPreTokenizer(const Json& json, TokenizerSpec* spec) {
  const Json& all = At(json, "pre_tokenizer");
  const std::vector<Json> steps = Members(all, "pretokenizers");
  const auto unsupported = [&] {
    return MakeError(
        "{}: this pre_tokenizer is not supported (known: the byte-level ones of GPT-2, SmolLM, Llama 3"
        " and Qwen 2): {}",
        spec->where, all.dump(-1, ' ', true).substr(0, 200));
  };
  if (steps.empty() || !IsType(steps.back(), "ByteLevel") || Flag(steps.back(), "add_prefix_space", true))
    return unsupported();
  const bool gpt2_regex = Flag(steps.back(), "use_regex", true);
  if (steps.size() == 1 && gpt2_regex) {
    spec->pre = PreTokenizer::kGpt2;
    return {};
  }
  if (steps.size() != 2) return unsupported();
  if (gpt2_regex && IsType(steps[0], "Digits") && Flag(steps[0], "individual_digits")) {
    spec->pre = PreTokenizer::kSmolLm;
    return {};
  }
  if (gpt2_regex || !IsSplitByPattern(steps[0])) return unsupported();
  const std::string pattern = Text(At(At(steps[0], "pattern"), "Regex"));
  for (const PreTokenizer kind : {PreTokenizer::kGpt2, PreTokenizer::kLlama3, PreTokenizer::kQwen2}) {
    if (pattern != PublishedPattern(kind)) continue;
    spec->pre = kind;
    return {};
  }
  return unsupported();
}

// Ids leave few holes in real files; a wild one must not make a vocabulary of gigabytes.
Result<int32_t> CheckId(const Json& id, std::string_view text, const TokenizerSpec& spec) {
  constexpr int32_t kLimit = 1 << 20;
  if (!id.is_number_integer() || id < 0 || id >= kLimit)
    return MakeError("{}: token \"{}\" has id {}; ids are whole numbers from 0 to {}", spec.where, text,
                     id.dump(-1, ' ', true).substr(0, 40), kLimit - 1);
  return id.get<int32_t>();
}

Status ReadVocabulary(const Json& model, TokenizerSpec* spec) {
  const Json& vocab = At(model, "vocab");
  if (!vocab.is_object() || vocab.empty())
    return MakeError("{}: model.vocab is missing or empty", spec->where);
  for (const auto& [text, json_id] : vocab.items()) {
    DSPARK_ASSIGN_OR_RETURN(const int32_t id, CheckId(json_id, text, *spec));
    if (size_t(id) >= spec->tokens.size()) spec->tokens.resize(id + 1);
    if (!spec->tokens[id].empty())
      return MakeError("{}: tokens \"{}\" and \"{}\" have the same id {}", spec->where, spec->tokens[id],
                       text, id);
    spec->tokens[id] = text;
  }
  return {};
}

Status ReadMerges(const Json& model, TokenizerSpec* spec) {
  const Json& merges = At(model, "merges");
  if (!merges.is_array()) return MakeError("{}: model.merges is missing", spec->where);
  for (const Json& merge : merges) {
    if (merge.is_string()) {
      spec->merges.push_back(merge.get<std::string>());
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      spec->merges.push_back(Text(merge[0]) + " " + Text(merge[1]));
    } else {
      return MakeError("{}: merge {} is neither \"left right\" nor [left, right]", spec->where,
                       spec->merges.size());
    }
  }
  return {};
}

Status ReadAdded(const Json& json, TokenizerSpec* spec) {
  const Json& all = At(json, "added_tokens");
  if (all.is_null()) return {};
  if (!all.is_array()) return MakeError("{}: added_tokens is not a list", spec->where);
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
  if (const std::string type = Text(At(model, "type"));
      type != "BPE" && !(type.empty() && !At(model, "merges").is_null()))
    return MakeError("{}: model.type \"{}\" is not supported, only byte-level BPE is", spec->where, type);
  for (const char* key : {"dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"}) {
    if (!IsUnset(At(model, key)))
      return MakeError("{}: model.{} is set; only byte-level BPE without it is supported", spec->where, key);
  }
  spec->ignore_merges = Flag(model, "ignore_merges");
  DSPARK_RETURN_IF_ERROR(ReadVocabulary(model, spec));
  DSPARK_RETURN_IF_ERROR(ReadMerges(model, spec));
  if (!IsUnset(At(model, "unk_token")) && !HasAllBytes(*spec))
    return MakeError("{}: model.unk_token is set and some bytes have no token; that is not supported",
                     spec->where);
  return {};
}

}  // namespace

Result<TokenizerSpec> TokenizerSpecFromJson(const std::string& path) {
  DSPARK_ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path));
  const std::span<const uint8_t> bytes = file.bytes();
  Json json;
  try {
    json = Json::parse(bytes.begin(), bytes.end());
  } catch (const Json::parse_error& e) {
    return MakeError("{}: not JSON at byte {}; download the file again", path, e.byte);
  }
  TokenizerSpec spec;
  spec.where = path;
  DSPARK_RETURN_IF_ERROR(ReadModel(At(json, "model"), &spec));
  DSPARK_RETURN_IF_ERROR(ReadNormalizer(json, &spec));
  DSPARK_RETURN_IF_ERROR(ReadPreTokenizer(json, &spec));
  const Json& decoder = At(json, "decoder");
  if (!decoder.is_null() && !IsType(decoder, "ByteLevel"))
    return MakeError("{}: decoder \"{}\" is not supported, only ByteLevel is", path,
                     Text(At(decoder, "type")));
  DSPARK_RETURN_IF_ERROR(ReadAdded(json, &spec));
  return spec;
}

}  // namespace dspark
