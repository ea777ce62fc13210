// Which blocks of a sample are trained on, and what each of their slots shall predict (drafters.md §3.2–3.4).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace dspark {

// Positions a block may begin at: a and a + 1 are both supervised.
std::vector<int> AnchorCandidates(std::span<const uint8_t> loss_mask);

// At most `most` candidates drawn without replacement, ascending: those with the smallest keys. keys: [T -
// 1], one per position.
std::vector<int> SampleAnchors(std::span<const uint8_t> loss_mask, std::span<const float> keys, int most);

// Keys that depend on nothing but their arguments: uniform in [0, 1), [T - 1].
std::vector<float> AnchorKeys(uint64_t seed, int64_t epoch, int64_t sample, size_t length);

// The slots of B blocks, block by block: γ slots each.
struct BlockSlots {
  int blocks = 0, gamma = 0;
  std::vector<int> anchors;       // [B], ascending
  std::vector<int32_t> labels;    // [B * γ], the token a slot predicts; of an invalid slot the text's last
  std::vector<int32_t> previous;  // [B * γ], the token before it
  std::vector<uint8_t> valid;     // [B * γ], supervised; within a block never again after the first 0
  std::vector<float> weights;     // [B * γ], exp(-j / decay), 0 where not valid

  int slots() const { return blocks * gamma; }
  double WeightSum() const;
};

// ids and loss_mask: [T]; every anchor < T - 1.
BlockSlots MakeBlockSlots(std::span<const int32_t> ids, std::span<const uint8_t> loss_mask,
                          std::span<const int> anchors, int gamma, float decay);

}  // namespace dspark
