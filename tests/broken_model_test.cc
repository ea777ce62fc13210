// Weights that are no numbers: a reply ends with an error where they come in, and nothing else changes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "draft/prompt_lookup.h"
#include "replies.h"

namespace dspark::test {
namespace {

using testing::HasSubstr;

constexpr int32_t kBroken = 77;  // the token behind which a sequence's logits are no numbers

// A model whose activations overflow at one token, and stay so for that sequence.
class OverflowingTarget : public Target {
 public:
  explicit OverflowingTarget(Target& inner) : inner_(inner) {}
  const ModelConfig& config() const override { return inner_.config(); }
  const TargetLimits& limits() const override { return inner_.limits(); }
  KvLayout kv_layout() const override { return inner_.kv_layout(); }
  TargetMemory memory() const override { return inner_.memory(); }
  const PackedMatrix& embedding() const override { return inner_.embedding(); }
  const PackedMatrix& head() const override { return inner_.head(); }
  Isa isa() const override { return inner_.isa(); }

  ForwardOutput Forward(std::span<const Segment> segments, std::span<const int> tap_layers) override {
    const ForwardOutput output = inner_.Forward(segments, tap_layers);
    int row = 0;
    for (const Segment& segment : segments) {
      const auto [at, first] = broken_from_.try_emplace(segment.kv, kNever);
      if (segment.position <= at->second) at->second = kNever;  // that token was taken back
      for (int i = 0; i < int(segment.tokens.size()); ++i) {
        if (segment.tokens[size_t(i)] == kBroken) at->second = std::min(at->second, segment.position + i);
        if (i < segment.logits_from) continue;
        float* logits = output.logits + size_t(row++) * output.logits_stride;
        if (segment.position + i >= at->second) std::fill_n(logits, config().vocab, NAN);
      }
    }
    return output;
  }

 private:
  static constexpr int kNever = 1 << 30;
  Target& inner_;
  std::map<const KvTable*, int> broken_from_;  // position
};

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
  TinyModel model;
  OverflowingTarget target(*model.target);
  for (const float temperature : {0.0f, 0.8f}) {
    const Request sound = MakeRequest({30, 31, 30, 31}, temperature, -100);
    const Request prompted = MakeRequest({30, kBroken, 31}, temperature, -100);
    const Request drawn = MakeRequest({30, 31, 32}, temperature, 100);
    const Reply alone = Plain(model, sound);
    EXPECT_EQ(alone.tokens.size(), 40u);
    PromptLookup drafter;
    Engine engine(target, *model.blocks, &drafter, model.files.tokenizer.get(), CheapRows(), {});
    std::vector<SequenceId> ids;
    for (const Request& request : {sound, prompted, drawn, sound}) ids.push_back(*engine.Submit(request));
    auto replies = RunAll(engine);
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
  TinyModel model;
  OverflowingTarget target(*model.target);
  const Request sound = MakeRequest({30, 31, 32}, 0, -100);
  Stubborn wrong({kBroken, 40, 41});
  Engine engine(target, *model.blocks, &wrong, nullptr, {}, {.fixed_draft = 3});
  EXPECT_EQ(RunOne(engine, sound).tokens, Plain(model, sound).tokens);

  // Token 50 until its penalty has grown, then the broken one: drafted in one block.
  Request request = MakeRequest({30, 31, 32}, 0, 85);
  request.sampling.logit_bias.push_back({50, 100});
  request.sampling.frequency_penalty = 2;
  Engine one_by_one(target, *model.blocks, nullptr, nullptr, {}, {});
  const Reply plain = RunOne(one_by_one, request);
  ASSERT_EQ(plain.finish, FinishReason::kError);
  ASSERT_GT(plain.tokens.size(), 3u);
  ASSERT_EQ(plain.tokens.back(), kBroken);
  std::vector<int32_t> drafts(plain.tokens.begin() + 1, plain.tokens.end());
  drafts.push_back(kBroken);
  Stubborn right(drafts);
  Engine speculative(target, *model.blocks, &right, nullptr, {}, {.fixed_draft = 15});
  const Reply reply = RunOne(speculative, request);
  EXPECT_EQ(reply.tokens, plain.tokens);
  EXPECT_EQ(reply.finish, FinishReason::kError);
  EXPECT_EQ(reply.stats.rounds, 1);
  EXPECT_EQ(reply.stats.accepted, int(plain.tokens.size()) - 1);
  EXPECT_EQ(reply.events.back().error, plain.events.back().error);
}

std::string& DataOf(GgufBuilder& file, const std::string& tensor) {
  for (auto& t : file.tensors) {
    if (t.name == tensor) return t.data;
  }
  CheckFailed(__FILE__, __LINE__, tensor);
}

TEST(BrokenModel, WeightsThatAreNoNumbersAreRefusedByName) {
  for (const TensorType type : {TensorType::kQ8_0, TensorType::kQ4_1, TensorType::kF16}) {
    for (const char* tensor :
         {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"}) {
      const std::string name = std::string("blk.0.") + tensor + ".weight";
      TinyLlama shape;
      shape.matrices = type;
      const TempDir dir;
      GgufBuilder file = BuildTinyLlama(1, shape);
      const uint16_t nan = 0x7e00;  // fp16: the first block's scale, or the first value
      std::memcpy(DataOf(file, name).data(), &nan, sizeof(nan));
      auto files = OpenModel(WriteFile(dir.path() + "/tiny.gguf", file.Build()));
      ASSERT_TRUE(files.ok());
      ThreadPool pool(2);
      const auto target = LoadTarget(*files, pool, {.max_context = 64});
      ASSERT_FALSE(target.ok());
      EXPECT_THAT(target.error().text, HasSubstr(name + " holds NaN or infinity"));
    }
  }
}

}  // namespace
}  // namespace dspark::test
