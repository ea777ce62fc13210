#include "train/adamw.h"

#include <gtest/gtest.h>

#include "train/train_config.h"

namespace dspark::test {
namespace {

TEST(AdamW, WeightDecayShrinksWhatHasNoGradient) {
  ModelConfig target;
  target.layers = 4;
  target.vocab = 16;
  target.d_model = target.d_ffn = 8;
  target.heads = target.kv_heads = 1;
  target.head_dim = 8;
  target.max_context = 64;
  TrainConfig config;
  config.taps = {0, 1};
  config.markov_rank = 4;
  const auto drafter = DrafterFor(config, target);
  ASSERT_TRUE(drafter.ok()) << drafter.error().text;
  Parameters parameters(*drafter, torch::kFloat32, 1, torch::zeros({16, 8}));
  AdamW adam(&parameters, {.weight_decay = 0.5});
  std::vector<torch::Tensor> before, gradients;
  for (const Parameter& p : parameters.all()) {
    before.push_back(p.master.clone());
    gradients.push_back(torch::zeros_like(p.master));
  }
  EXPECT_EQ(adam.Step(gradients, 0.1), 0);
  for (size_t i = 0; i < before.size(); ++i)
    EXPECT_TRUE(torch::allclose(parameters.all()[i].master, before[i] * 0.95)) << parameters.all()[i].name;
}

}  // namespace
}  // namespace dspark::test
