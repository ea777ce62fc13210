// Weights that are no numbers: a reply ends with an error where they come in, and nothing else changes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "draft/prompt_lookup.h"
#include "replies.h"

namespace dspark::test {
namespace {

using testing::HasSubstr;

std::string& DataOf(GgufBuilder& file, const std::string& tensor) {
  for (auto& t : file.tensors) {
    if (t.name == tensor) return t.data;
  }
  CheckFailed(__FILE__, __LINE__, tensor);
}

constexpr int32_t kBroken = 77;  // the token whose embedding holds a NaN

TinyModelOptions BrokenToken() {
  TinyModelOptions options;
  options.shape.embedding = TensorType::kF32;
  options.shape.tied = false;
  options.edit = [&](GgufBuilder& file) {
    const float nan = NAN;
    std::memcpy(&DataOf(file, "token_embd.weight")[(kBroken * 64 + 5) * sizeof(nan)], &nan, sizeof(nan));
  };
  return options;
}

Request MakeRequest(std::vector<int32_t> prompt, float temperature, float bias_of_broken) {
  Request request;
  request.prompt = std::move(prompt);
  request.sampling.temperature = temperature;
  request.sampling.logit_bias = {{kBroken, bias_of_broken}};
  request.max_tokens = 40;
  request.ignore_eos = true;
  return request;
}

TEST(BrokenModel, EndsTheSequencesThatMeetItAndNoOthers) {
  TinyModel model(BrokenToken());
  for (const float temperature : {0.0f, 0.8f}) {
    const Request sound = MakeRequest({30, 31, 30, 31}, temperature, -100);
    const Request prompted = MakeRequest({30, kBroken, 31}, temperature, -100);
    const Request drawn = MakeRequest({30, 31, 32}, temperature, 100);
    const Reply alone = Plain(model, sound);
    EXPECT_EQ(alone.tokens.size(), 40u);
    PromptLookup drafter;
    Engine engine(*model.target, *model.blocks, &drafter, model.files.tokenizer.get(), CheapRows(), {});
    std::vector<SequenceId> ids;
    for (const Request& request : {sound, prompted, drawn, sound}) ids.push_back(*engine.Submit(request));
    auto replies = RunAll(engine);
    // Again, in K/V blocks that held NaN.
    for (int i = 0; i < 2; ++i) EXPECT_EQ(RunOne(engine, sound).tokens, alone.tokens);

    EXPECT_EQ(replies[ids[0]].tokens, alone.tokens);
    EXPECT_EQ(replies[ids[3]].tokens, alone.tokens);
    EXPECT_EQ(replies[ids[1]].finish, FinishReason::kError);
    EXPECT_TRUE(replies[ids[1]].tokens.empty());
    EXPECT_THAT(replies[ids[1]].events.back().error, HasSubstr("logits at position 3 are not finite"));
    EXPECT_EQ(replies[ids[2]].finish, FinishReason::kError);
    EXPECT_EQ(replies[ids[2]].tokens, std::vector<int32_t>{kBroken});
    EXPECT_THAT(replies[ids[2]].events.back().error, HasSubstr("position 4"));
    EXPECT_EQ(replies[ids[2]].stats.completion_tokens, 1);
    EXPECT_EQ(model.blocks->free_blocks(), model.blocks->blocks());
  }
}

// Proposes the same tokens in every round.
class Stubborn : public Drafter {
 public:
  explicit Stubborn(std::vector<int32_t> tokens) : tokens_(std::move(tokens)) {}
  int max_tokens() const override { return int(tokens_.size()); }
  void Begin(SequenceId, std::span<const int32_t>) override {}
  void Propose(std::span<ProposeRequest> requests) override {
    for (ProposeRequest& r : requests) {
      r.proposal->tokens.assign(tokens_.begin(), tokens_.begin() + std::min(max_tokens(), r.max_tokens));
    }
  }
  void Observe(std::span<const ObservedRows>) override {}
  void End(SequenceId) override {}

 private:
  std::vector<int32_t> tokens_;
};

TEST(BrokenModel, RejectedDraftsDoNoHarmAndAcceptedOnesAreCommitted) {
  TinyModel model(BrokenToken());
  const Request sound = MakeRequest({30, 31, 32}, 0, -100);
  Stubborn wrong({kBroken, 40, 41});
  Engine engine(*model.target, *model.blocks, &wrong, nullptr, {}, {.fixed_draft = 3});
  EXPECT_EQ(RunOne(engine, sound).tokens, Plain(model, sound).tokens);

  // Token 50 until its penalty has grown, then the broken one: drafted in one block.
  Request request = MakeRequest({30, 31, 32}, 0, 85);
  request.sampling.logit_bias.push_back({50, 100});
  request.sampling.frequency_penalty = 2;
  const Reply plain = Plain(model, request);
  ASSERT_EQ(plain.finish, FinishReason::kError);
  ASSERT_GT(plain.tokens.size(), 3u);
  ASSERT_EQ(plain.tokens.back(), kBroken);
  std::vector<int32_t> drafts(plain.tokens.begin() + 1, plain.tokens.end());
  drafts.push_back(kBroken);
  Stubborn right(drafts);
  Engine speculative(*model.target, *model.blocks, &right, nullptr, {}, {.fixed_draft = 15});
  const Reply reply = RunOne(speculative, request);
  EXPECT_EQ(reply.tokens, plain.tokens);
  EXPECT_EQ(reply.finish, FinishReason::kError);
  EXPECT_EQ(reply.stats.rounds, 1);
  EXPECT_EQ(reply.stats.accepted, int(plain.tokens.size()) - 1);
  EXPECT_EQ(reply.events.back().error, plain.events.back().error);
}

// Activations are quantised between matrices: what went wrong must not be rounded to nothing there.
TEST(BrokenModel, OneBrokenBlockAnywhereIsNoticed) {
  for (const Isa isa : {Isa::kReference, Isa::kAvx2, Isa::kAvx512Vnni}) {
    if (!IsaSupported(isa)) continue;
    for (const TensorType type : {TensorType::kQ8_0, TensorType::kQ4_1, TensorType::kF16}) {
      for (const char* tensor :
           {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"}) {
        TinyModelOptions options{.isa = isa};
        options.shape.matrices = type;
        options.edit = [&](GgufBuilder& file) {
          const uint16_t nan = 0x7e00;  // fp16: the first block's scale, or the first value
          std::memcpy(DataOf(file, std::string("blk.0.") + tensor + ".weight").data(), &nan, sizeof(nan));
        };
        TinyModel model(options);
        for (const float temperature : {0.0f, 1.0f}) {
          const Reply reply = Plain(model, MakeRequest({30, 31, 32}, temperature, 0));
          EXPECT_EQ(reply.finish, FinishReason::kError)
              << IsaName(isa) << " " << InfoOf(type).name << " " << tensor << ": " << reply.tokens.size();
          EXPECT_TRUE(reply.tokens.empty());
        }
      }
    }
  }
}

}  // namespace
}  // namespace dspark::test
