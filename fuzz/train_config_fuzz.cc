// Any bytes as a training configuration: what is read is written as one that reads the same, and makes a
// drafter for a small target or an error.
#include <cstdint>

#include "core/check.h"
#include "train/train_config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace dspark;
  const auto json = nlohmann::json::parse(data, data + size, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return 0;
  const auto read = ParseTrainConfig(json, "input");
  if (!read) return 0;
  const auto written = TrainConfigJson(*read);
  const auto again = ParseTrainConfig(nlohmann::json(written), "again");
  DSPARK_CHECK(again.ok());
  DSPARK_CHECK(TrainConfigJson(*again) == written);
  ModelConfig target;
  target.layers = 6;
  target.d_model = 64;
  target.heads = 4;
  target.kv_heads = 2;
  target.head_dim = 16;
  target.d_ffn = 128;
  target.vocab = 295;
  target.max_context = 512;
  (void)DrafterFor(*read, target).ok();
  return 0;
}
