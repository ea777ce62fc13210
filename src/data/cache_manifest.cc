#include "data/cache_manifest.h"

#include <algorithm>

#include "data/compact_sample.h"
#include "data/sample_bytes.h"
#include "load/json_file.h"
#include "load/json_section.h"

namespace dspark {
namespace {

using Json = nlohmann::json;

constexpr const char* kCompactFormat = "dspark-compact";
// Version 1 of the compact form does not know lengths (SampleShape).
constexpr int kDeepSpecVersion = 2, kCompactVersion = 2;

// The keys whose values the form fixes.
Json FixedKeys(const CacheManifest& manifest) {
  if (manifest.form == CacheForm::kDeepSpec) {
    return {{"version", kDeepSpecVersion},
            {"hidden_dtype", "bfloat16"},
            {"token_dtype", "int32"},
            {"mask_dtype", "uint8"},
            {"index_record_size", sizeof(DeepSpecRecord)}};
  }
  return {{"format", kCompactFormat},
          {"version", manifest.shape.knows_length ? kCompactVersion : 1},
          {"index_record_size", sizeof(StoredSample)},
          {"kept_channels", kKeptChannels}};
}

Status CheckFixedKeys(const JsonSection& section, const CacheManifest& manifest) {
  const Json fixed = FixedKeys(manifest);
  for (const auto& [key, value] : fixed.items()) {
    const Json* found = section.Find(key.c_str());
    if (!found || *found != value) return section.Wrong(key.c_str(), value.dump());
  }
  return {};
}

Status CheckShards(const JsonSection& section, int shards) {
  const Json* list = section.Find("shards");
  if (!list || !list->is_array() || list->size() != size_t(shards))
    return section.Wrong("shards", "a list of num_shards objects");
  for (int i = 0; i < shards; ++i) {
    const Json expected = {{"shard_id", i}, {"file_name", ShardName(i)}};
    if ((*list)[size_t(i)] != expected) return section.Wrong("shards", expected.dump() + " in its place");
  }
  return {};
}

}  // namespace

std::string ShardName(int shard) { return fmt::format("shard-{:05d}.bin", shard); }

Json ManifestJson(const CacheManifest& manifest) {
  Json json = FixedKeys(manifest);
  json["num_samples"] = manifest.samples;
  json["num_shards"] = manifest.shards;
  json["target_layer_ids"] = manifest.shape.tap_layers;
  json["hidden_size"] = manifest.shape.d_model;
  json["target_model_name_or_path"] = manifest.shape.target_name;
  json["source_jsonl_paths"] = manifest.sources;
  json["chat_template"] = manifest.chat_template;
  json["max_length"] = manifest.max_length;
  json["min_loss_tokens"] = manifest.min_loss_tokens;
  json["project_name"] = manifest.project_name;
  json["exp_name"] = manifest.exp_name;
  json["git_sha"] = manifest.git_sha;
  json["shards"] = Json::array();
  for (int i = 0; i < manifest.shards; ++i)
    json["shards"].push_back({{"shard_id", i}, {"file_name", ShardName(i)}});
  if (manifest.form == CacheForm::kCompact) {
    json["vocab_size"] = manifest.shape.vocab;
    json["teacher_top_k"] = manifest.shape.teacher_top;
  }
  return json;
}

Result<CacheManifest> ReadManifest(const std::string& path) {
  DSPARK_ASSIGN_OR_RETURN(const Json json, ReadJsonObject(path));
  const JsonSection section{json, path};
  CacheManifest manifest;
  manifest.form = json.contains("format") ? CacheForm::kCompact : CacheForm::kDeepSpec;
  manifest.shape.knows_length = manifest.form == CacheForm::kDeepSpec || json.value("version", Json()) != 1;
  DSPARK_RETURN_IF_ERROR(CheckFixedKeys(section, manifest));
  DSPARK_ASSIGN_OR_RETURN(manifest.samples, section.Size("num_samples"));
  DSPARK_ASSIGN_OR_RETURN(manifest.shards, section.Size("num_shards"));
  DSPARK_RETURN_IF_ERROR(CheckShards(section, manifest.shards));
  SampleShape& shape = manifest.shape;
  DSPARK_ASSIGN_OR_RETURN(shape.tap_layers, section.Numbers("target_layer_ids"));
  const bool ascends = std::ranges::is_sorted(shape.tap_layers, std::less_equal<int>());
  if (shape.tap_layers.empty() || !ascends || shape.tap_layers[0] < -1)
    return section.Wrong("target_layer_ids", "layer ids from -1 on, ascending");
  DSPARK_ASSIGN_OR_RETURN(shape.d_model, section.Size("hidden_size"));
  if (shape.d_model > kMaxCacheWidth) return section.Wrong("hidden_size", "at most 65536");
  DSPARK_ASSIGN_OR_RETURN(shape.target_name, section.Text("target_model_name_or_path", ""));
  if (manifest.form == CacheForm::kCompact) {
    DSPARK_ASSIGN_OR_RETURN(shape.vocab, section.Size("vocab_size"));
    const Json* top = section.Find("teacher_top_k");
    const int most = std::min(shape.vocab, kMaxTeacherTop);
    if (top && (!top->is_number_integer() || *top < 0 || *top > most))
      return section.Wrong("teacher_top_k", fmt::format("0 to {}", most));
    if (top) shape.teacher_top = top->get<int>();
  }
  DSPARK_ASSIGN_OR_RETURN(manifest.chat_template, section.Text("chat_template", ""));
  return manifest;
}

}  // namespace dspark
