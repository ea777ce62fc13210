#include "load/model_config.h"

#include <cmath>
#include <numbers>
#include <string_view>
#include <utility>

namespace dspark {
namespace {

Status CheckSizes(const ModelConfig& c, const std::string& path) {
  const std::pair<std::string_view, int> sizes[] = {
      {"layer count", c.layers},     {"hidden size", c.d_model},       {"head count", c.heads},
      {"KV head count", c.kv_heads}, {"head size", c.head_dim},        {"feed-forward size", c.d_ffn},
      {"vocabulary size", c.vocab},  {"context length", c.max_context}};
  for (const auto& [name, size] : sizes) {
    if (size <= 0 || size > kMaxModelSize) {
      return MakeError("{}: the {} is {}, outside 1 to {}; the file is damaged", path, name, size,
                       kMaxModelSize);
    }
  }
  if (c.heads % c.kv_heads != 0) {
    return MakeError("{}: {} heads cannot share {} KV heads evenly; the file is damaged", path, c.heads,
                     c.kv_heads);
  }
  if (int64_t{c.heads} * c.head_dim > kMaxModelSize) {
    return MakeError("{}: {} heads of size {} are too many; the file is damaged", path, c.heads, c.head_dim);
  }
  if (c.head_dim % 2 != 0) {
    return MakeError("{}: the head size {} is odd, rotary embedding needs pairs; the file is damaged", path,
                     c.head_dim);
  }
  return {};
}

Status CheckRope(const ModelConfig& c, const std::string& path) {
  if (!std::isfinite(c.rope_theta) || c.rope_theta <= 0) {
    return MakeError("{}: the rope base frequency is {}, not a positive number; the file is damaged", path,
                     c.rope_theta);
  }
  if (c.rope_freq_divisors.empty()) return {};
  if (c.rope_freq_divisors.size() != size_t(c.head_dim) / 2) {
    return MakeError("{}: {} rope frequency divisors for {} pairs; the file is damaged", path,
                     c.rope_freq_divisors.size(), c.head_dim / 2);
  }
  for (const float divisor : c.rope_freq_divisors) {
    if (!std::isfinite(divisor) || divisor <= 0) {
      return MakeError("{}: a rope frequency divisor is {}, not a positive number; the file is damaged", path,
                       divisor);
    }
  }
  return {};
}

}  // namespace

Status CheckConfig(const ModelConfig& config, const std::string& path) {
  DSPARK_RETURN_IF_ERROR(CheckSizes(config, path));
  DSPARK_RETURN_IF_ERROR(CheckRope(config, path));
  if (!(config.rms_eps > 0 && config.rms_eps < 1)) {
    return MakeError("{}: the RMS norm epsilon is {}, outside 0 to 1; the file is damaged", path,
                     config.rms_eps);
  }
  std::vector<int32_t> ids = config.eos;
  if (config.bos) ids.push_back(*config.bos);
  for (const int32_t id : ids) {
    if (id < 0 || id >= config.vocab) {
      return MakeError("{}: the begin or end token {} is outside the vocabulary of {}; the file is damaged",
                       path, id, config.vocab);
    }
  }
  return {};
}

std::vector<float> RopeFreqDivisors(const RopeScaling& scaling, float theta, int head_dim) {
  std::vector<float> divisors;
  const double longest = scaling.original_context / double(scaling.low);
  const double shortest = scaling.original_context / double(scaling.high);
  for (int i = 0; i < head_dim / 2; ++i) {
    const double wavelength = 2 * std::numbers::pi * std::pow(double(theta), 2.0 * i / head_dim);
    double kept = (scaling.original_context / wavelength - scaling.low) / (scaling.high - scaling.low);
    if (wavelength < shortest) kept = 1;
    if (wavelength > longest) kept = 0;
    divisors.push_back(float(1 / (kept + (1 - kept) / scaling.factor)));
  }
  return divisors;
}

}  // namespace dspark
