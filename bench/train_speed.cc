// Speed of training alone: steps on samples that cost nothing to make, of a real model's sizes.
//
//   train_speed MODEL [key=value of a training configuration ...]
#include <cstdio>
#include <ctime>
#include <nlohmann/json.hpp>

#include "core/clock.h"
#include "core/rng.h"
#include "train/trainer.h"

namespace dspark {
namespace {

constexpr int kTokens = 512, kPrompt = 100;

// Random states; ids of a text in which low ids are frequent. Made once.
class RandomSource : public SampleSource {
 public:
  RandomSource(const ModelConfig& target, std::vector<int> taps, int64_t size) {
    shape_ = {
        .tap_layers = std::move(taps), .d_model = target.d_model, .vocab = target.vocab, .target_name = ""};
    for (int64_t i = 0; i < size; ++i) samples_.push_back(Make(i));
  }
  const SampleShape& shape() const override { return shape_; }
  int64_t size() const override { return int64_t(samples_.size()); }
  Result<std::vector<TrainSample>> Read(const std::vector<int64_t>& indices) override {
    std::vector<TrainSample> samples;
    samples.reserve(indices.size());
    for (const int64_t index : indices) samples.push_back(samples_[size_t(index)]);
    return samples;
  }
  Result<std::vector<TrainSample>> ReadTokens(const std::vector<int64_t>& indices) override {
    std::vector<TrainSample> samples;
    samples.reserve(indices.size());
    for (const int64_t index : indices) {
      const TrainSample& whole = samples_[size_t(index)];
      TrainSample& tokens = samples.emplace_back();
      tokens.id = whole.id;
      tokens.ids = whole.ids;
      tokens.loss_mask = whole.loss_mask;
    }
    return samples;
  }

 private:
  TrainSample Make(int64_t index) const {
    TrainSample s;
    s.id = index;
    for (int t = 0; t < kTokens; ++t) {
      const float u = UniformFloat(uint64_t(index), uint64_t(t), Purpose::kTest);
      s.ids.push_back(int32_t(u * u * u * float(shape_.vocab - 1)));
      s.loss_mask.push_back(t >= kPrompt);
    }
    const auto values = [&](size_t n) {
      std::vector<float> v(n);
      for (size_t i = 0; i < n; ++i) v[i] = UniformFloat(uint64_t(index), i, Purpose::kTest, 1) * 2 - 1;
      return v;
    };
    s.taps = values(size_t(kTokens) * shape_.tap_layers.size() * size_t(shape_.d_model));
    s.last_hidden = values(size_t(kTokens) * size_t(shape_.d_model));
    return s;
  }

  SampleShape shape_;
  std::vector<TrainSample> samples_;
};

Result<int> Run(int argc, char** argv) {
  nlohmann::json json = {{"batch", 8}, {"group", 8}, {"steps", 4}};
  for (int i = 2; i < argc; ++i) {
    const std::string text = argv[i], key = text.substr(0, text.find('='));
    const std::string value = text.substr(std::min(text.size(), key.size() + 1));
    const auto parsed = nlohmann::json::parse(value, nullptr, false);
    json[key] = parsed.is_discarded() ? nlohmann::json(value) : parsed;
  }
  DSPARK_ASSIGN_OR_RETURN(const TrainConfig config, ParseTrainConfig(json, "command line"));
  DSPARK_ASSIGN_OR_RETURN(const ModelFiles target, OpenModel(argv[1]));
  DSPARK_ASSIGN_OR_RETURN(const DrafterConfig drafter, DrafterFor(config, target.config));
  RandomSource source(target.config, drafter.taps, config.batch);
  DSPARK_ASSIGN_OR_RETURN(const auto trainer, Trainer::Make(config, target, source));
  while (trainer->step() < config.steps) {
    const std::clock_t before = std::clock();  // of all threads: what others do to this machine stays out
    DSPARK_ASSIGN_OR_RETURN(const StepReport r, trainer->Step());
    const double ms = r.train_ms + r.optimizer_ms;
    const double cpu = double(std::clock() - before) / CLOCKS_PER_SEC;
    std::printf(
        "step %ld: %.1f anchors/s (%.1f per CPU second), passes %.0f ms, optimizer %.0f ms, loss %.3f\n",
        long(r.step), double(r.anchors) / ms * 1e3, double(r.anchors) / cpu, r.train_ms, r.optimizer_ms,
        r.loss);
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace
}  // namespace dspark

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: train_speed MODEL [key=value ...]\n");
    return 2;
  }
  const auto result = dspark::Run(argc, argv);
  if (!result) std::fprintf(stderr, "train_speed: %s\n", result.error().text.c_str());
  return result.ok() ? *result : 1;
}
