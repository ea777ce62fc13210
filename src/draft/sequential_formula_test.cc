// Eagle3's original form and MTP against PyTorch (tools/make_draft_testdata.py), which computes every row
// anew from the whole text before it.
#include <gtest/gtest.h>

#include "golden_tensors.h"
#include "load/drafter_tensors.h"
#include "sequential_fixture.h"

namespace dspark::test {
namespace {

constexpr int kWidth = 16, kRows = 12, kDrafts = 4, kVocab = 40, kDraftVocab = 20;
constexpr float kTolerance = 1e-5f;

std::string TestData(const std::string& name) {
  return std::string(DSPARK_SOURCE_DIR) + "/src/draft/testdata/" + name;
}

ModelConfig Backbone(int vocab) {
  ModelConfig config;
  config.layers = 1;
  config.d_model = kWidth;
  config.heads = 2;
  config.kv_heads = 1;
  config.head_dim = 8;
  config.d_ffn = 24;
  config.vocab = vocab;
  return config;
}

struct FormulaModel {
  FormulaModel(const std::string& file, const DrafterConfig& config)
      : golden(TestData(file)), target(Backbone(kVocab), {}, {}) {
    files.path = file;
    files.config = config;
    MappedWeights::Tensors tensors;
    for (const auto& [name, shape] : DrafterShapes(config)) {
      const SafeTensor& tensor = golden.Find(name);
      tensors[name] = {name, *tensor.type, tensor.shape, tensor.bytes};
    }
    files.weights = std::make_unique<MappedWeights>(file, std::vector<MappedFile>(), std::move(tensors));
  }

  // y of the observed rows and the logits before every draft of the recorded chain; greedy drafts.
  void Check(SequentialDrafter& drafter, const std::string& recorded) {
    std::vector<int32_t> text = golden.Ints("io.next");
    text.insert(text.begin(), 0);  // no row reads the first token
    const std::vector<float> taps = golden.Floats("io.taps");
    const size_t width = taps.size() / kRows;
    const std::vector<float> expected = golden.Floats(recorded + ".states");
    drafter.Begin(1, {});
    for (int row = 0; row < kRows; ++row) {
      ObserveRows(drafter, 1, row, row + 1, text, taps, width);
      EXPECT_LT(MaxDifference(SequentialDrafterPeer::State(drafter, 1),
                              std::span(expected).subspan(size_t(row) * kWidth, kWidth)),
                kTolerance)
          << recorded << ", row " << row;
    }
    RecordingSampler sampler(golden.Ints("io.chain"));
    EXPECT_EQ(ProposeAlone(drafter, 1, &sampler).size(), kDrafts);
    EXPECT_LT(MaxDifference(sampler.logits, golden.Floats(recorded + ".logits")), kTolerance) << recorded;
    if (recorded == "plain") {
      EXPECT_EQ(ProposeAlone(drafter, 1, nullptr).tokens, golden.Ints("greedy.chain"));
    }
    drafter.End(1);
  }

  GoldenTensors golden;
  LendingTarget target;
  ThreadPool pool{2};
  DrafterFiles files;
  DrafterLimits limits{.max_context = 64, .block_tokens = 16, .kv_type = KvType::kF32, .candidates = 0};
};

DrafterConfig ThreeTaps(const GoldenTensors& golden) {
  DrafterConfig config;
  config.kind = DrafterKind::kEagle3;
  config.backbone = Backbone(kDraftVocab);
  config.target_width = kWidth;
  config.target_vocab = kVocab;
  config.taps = {1, 3, 4};
  config.block_size = kDrafts;
  config.own_embedding = config.own_head = true;
  config.draft_to_target = golden.Ints("d2t");
  return config;
}

TEST(Eagle3, ThreeTapsEqualTheFormula) {
  DrafterConfig config = ThreeTaps(GoldenTensors(TestData("eagle3_three_taps.safetensors")));
  struct Case {
    const char* name;
    bool bias, before_residual, head_norm;
  };
  for (const Case& c : {Case{"plain", false, false, true}, Case{"biased", true, false, true},
                        Case{"normed", false, true, true}, Case{"bare_head", false, false, false}}) {
    config.fc_bias = c.bias;
    config.norm_before_residual = c.before_residual;
    config.head_norm = c.head_norm;
    FormulaModel model("eagle3_three_taps.safetensors", config);
    auto drafter = Eagle3::Load(model.files, model.target, model.pool, model.limits);
    ASSERT_TRUE(drafter) << drafter.error().text;
    EXPECT_EQ(std::vector<int>((*drafter)->tap_layers().begin(), (*drafter)->tap_layers().end()),
              config.taps);
    EXPECT_EQ((*drafter)->max_tokens(), kDrafts);
    model.Check(static_cast<SequentialDrafter&>(**drafter), c.name);
  }
}

TEST(Mtp, EqualsTheFormula) {
  DrafterConfig config;
  config.kind = DrafterKind::kMtp;
  config.backbone = Backbone(kVocab);
  config.target_width = kWidth;
  config.target_vocab = kVocab;
  config.block_size = kDrafts;
  FormulaModel model("mtp.safetensors", config);
  // Embedding and head are the target's.
  const LendingTarget target(Backbone(kVocab),
                             PackFloats(kVocab, kWidth, model.golden.Floats("token_embd.weight")),
                             PackFloats(kVocab, kWidth, model.golden.Floats("output.weight")));
  auto drafter = Mtp::Load(model.files, target, model.pool, model.limits);
  ASSERT_TRUE(drafter) << drafter.error().text;
  ASSERT_EQ((*drafter)->tap_layers().size(), 1u);
  EXPECT_EQ((*drafter)->tap_layers()[0], target.config().layers);  // the final norm
  model.Check(static_cast<SequentialDrafter&>(**drafter), "plain");
}

}  // namespace
}  // namespace dspark::test
