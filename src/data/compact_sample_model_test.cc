// What 8 bits cost the default model's hidden states.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "data/compact_sample.h"
#include "data/live_source.h"
#include "data/sample_bytes.h"
#include "data/tap_choice.h"
#include "test_data.h"

namespace dspark {
namespace {

// Root of the squared error over the squared size of a row's channels, the `kKeptChannels` largest left out:
// those are hundreds of times larger than what they stand beside, and would hide its error.
double ErrorOfTheRest(const float* row, const float* got, size_t d) {
  std::vector<float> sizes(row, row + d);
  std::ranges::sort(sizes, {}, [](float x) { return std::abs(x); });
  const float most = std::abs(sizes[d - kKeptChannels - 1]);
  double error = 0, size = 0;
  for (size_t i = 0; i < d; ++i) {
    if (std::abs(row[i]) > most) continue;
    error += std::pow(row[i] - got[i], 2);
    size += std::pow(row[i], 2);
  }
  return std::sqrt(error / size);
}

// The row in int8 with one scale and nothing kept apart.
std::vector<float> PlainInt8(const float* row, size_t d) {
  float most = 0;
  for (size_t i = 0; i < d; ++i) most = std::max(most, std::abs(row[i]));
  std::vector<float> got(d);
  for (size_t i = 0; i < d; ++i) got[i] = std::nearbyint(row[i] * 127 / most) * most / 127;
  return got;
}

// The default model's states and lists of `top` tokens for two short answers; `bytes`: as they are stored.
struct Stored {
  explicit Stored(int top) {
    const auto files = OpenModel(test::DefaultModelPath()).value();
    ThreadPool pool(2);
    const TargetLimits limits{.max_rows = 128, .max_logit_rows = 128, .max_context = 512, .max_taps = 6};
    const auto target = LoadTarget(files, pool, limits).value();
    BlockPool blocks(target->kv_layout(), Teacher::BlocksFor(*target, 512));
    Teacher teacher(*target, blocks, AutoTaps(files.config.layers), top);
    const TrainTemplate format = *ChooseTrainTemplate("model", "", files.chat_template);
    const std::string code =
        "def add(a, b):\n    return a + b\n\nThe function adds two numbers: add(2, 3) is 5.\n";
    const TrainTokens tokens = TokenizeForTraining(
        *files.tokenizer, format,
        {{"user", "Write a function that adds two numbers."},
         {"assistant", code},
         {"user", "Why is the sky blue?"},
         {"assistant",
          "Air scatters short waves of light more than long ones, so blue comes from everywhere."}},
        512);
    const TrainTokens* samples[] = {&tokens};
    sample = std::move(teacher.Run(samples).value()[0]);
    shape = {teacher.tap_layers(), files.config.d_model, files.config.vocab, "", top};
    bytes = CompactBytes(sample, shape);
    length = CompactLength(sample.loss_mask, shape);
    parsed = ParseCompact({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}, length, shape,
                          SampleParts::kAll)
                 .value();
  }
  TrainSample sample, parsed;
  SampleShape shape;
  std::string bytes;
  int length = 0;
};

// Another model's answers, so the lists hold less than of its own (docs/formats.md).
TEST(ModelCompactSample, ListsHoldMostOfTheProbability) {
  DSPARK_SKIP_WITHOUT_MODEL();
  const Stored stored(64);
  double mass = 0;
  const auto rows = TeacherRows(stored.parsed.loss_mask);
  for (const int row : rows) {
    for (int j = 0; j < 64; ++j) mass += std::exp(double(stored.parsed.top.log_p[size_t(row * 64 + j)]));
  }
  mass /= double(rows.size());
  const double ratio = double(stored.bytes.size()) / double(DeepSpecBytes(stored.sample).size());
  fmt::print("{:.4f} of the probability, {} bytes a token, {:.3f} of DeepSpec's\n", mass,
             stored.bytes.size() / size_t(stored.length), ratio);
  EXPECT_GT(mass, 0.9);
  EXPECT_LT(mass, 1.001);
  EXPECT_LT(ratio, 0.42);
}

TEST(ModelCompactSample, KeepsHiddenStates) {
  DSPARK_SKIP_WITHOUT_MODEL();
  const Stored stored(0);
  const auto& [sample, parsed, shape, bytes, length] = stored;

  const size_t d = size_t(shape.d_model), m = shape.tap_layers.size();
  for (size_t layer = 0; layer < m; ++layer) {
    double kept = 0, plain = 0, worst = 0;
    for (int t = 0; t < length; ++t) {
      const size_t at = (size_t(t) * m + layer) * d;
      const double error = ErrorOfTheRest(&sample.taps[at], &parsed.taps[at], d);
      kept += error / length;
      worst = std::max(worst, error);
      plain += ErrorOfTheRest(&sample.taps[at], PlainInt8(&sample.taps[at], d).data(), d) / length;
    }
    fmt::print("layer {}: error {:.4f} of the rest, at most {:.4f}; without kept channels {:.4f}\n",
               shape.tap_layers[layer], kept, worst, plain);
    EXPECT_LT(kept, 0.02);
    EXPECT_LT(worst, 0.1);
  }
  const double ratio = double(bytes.size()) / double(DeepSpecBytes(sample).size());
  fmt::print("{} tokens, {} bytes a token, {:.3f} of DeepSpec's\n", length, bytes.size() / size_t(length),
             ratio);
  EXPECT_LT(ratio, 0.55);
}

}  // namespace
}  // namespace dspark
