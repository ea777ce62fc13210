// Checkpoints beside those that DeepSpec's own trainer wrote for the same target.
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "core/mapped_file.h"
#include "fixed_source.h"
#include "load/json_file.h"
#include "load/safetensors.h"
#include "temp_dir.h"
#include "test_data.h"
#include "train/trainer.h"

namespace dspark::test {
namespace {

using nlohmann::json;

std::string GoldenPath(const std::string& name) { return GoldenDir() + "/drafters/" + name; }

// The configuration that makes a golden drafter's form.
TrainConfig ConfigOf(const json& golden) {
  TrainConfig config;
  config.taps = golden["target_layer_ids"].get<std::vector<int>>();
  config.anchors = golden["num_anchors"];
  config.mask_token = golden["mask_token_id"];
  config.confidence = golden["enable_confidence_head"];
  config.markov = golden.value("markov_head_type", "none");
  config.markov_rank = std::max(1, golden["markov_rank"].get<int>());
  config.precision = "f32";
  config.batch = config.group = 1;
  return config;
}

using Header = std::map<std::string, std::pair<std::string, std::vector<int64_t>>>;  // dtype and shape

Header HeaderOf(const std::string& path) {
  const MappedFile file = MappedFile::Open(path).value();
  Header header;
  const Safetensors stored = ParseSafetensors(file.bytes(), path).value();
  for (const SafeTensor& tensor : stored.tensors)
    header[tensor.name] = {std::string(tensor.dtype), tensor.shape};
  return header;
}

class GoldenCheckpoint : public testing::TestWithParam<const char*> {};

INSTANTIATE_TEST_SUITE_P(Drafters, GoldenCheckpoint,
                         testing::Values("dspark_vanilla", "dspark_gated", "dspark_rnn", "dflash"),
                         [](const auto& drafter) { return std::string(drafter.param); });

TEST_P(GoldenCheckpoint, HasTheReferencesTensorsAndKeys) {
  DSPARK_SKIP_WITHOUT_GOLDEN("drafters");
  const std::string golden_dir = GoldenPath(GetParam());
  const json golden = ReadJsonObject(golden_dir + "/config.json").value();
  const TrainConfig config = ConfigOf(golden);
  const ModelFiles target = OpenModel(GoldenPath("target_qwen3")).value();
  FixedSource source(target.config, config.taps);
  source.AddCounting(20, 3);
  const TempDir out;
  const auto trainer = Trainer::Make(config, target, source);
  ASSERT_TRUE(trainer.ok()) << trainer.error().text;
  ASSERT_TRUE((*trainer)->Save(out.path()).ok());

  const std::string ours_dir = out.path() + "/step_latest";
  EXPECT_EQ(HeaderOf(ours_dir + "/model.safetensors"), HeaderOf(golden_dir + "/model.safetensors"));
  const json ours = ReadJsonObject(ours_dir + "/config.json").value();
  std::set<std::string> keys, golden_keys;
  for (const auto& [key, value] : ours.items()) {
    keys.insert(key);
    if (key == "transformers_version" || !golden.contains(key)) continue;
    EXPECT_EQ(value, golden[key]) << key;
  }
  for (const auto& [key, _] : golden.items()) golden_keys.insert(key);
  EXPECT_EQ(keys, golden_keys);
  EXPECT_EQ(ours["rms_norm_eps"].dump(), "1e-06");
}

}  // namespace
}  // namespace dspark::test
