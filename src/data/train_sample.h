// What a drafter is trained on: one conversation with the target's hidden states beside it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/result.h"

namespace dspark {

// A reduced teacher: of each row the target's k likeliest next tokens, the likeliest first, with the
// logarithms of their probabilities at temperature 1 among all its tokens. Rows that no loss asks for hold
// zeros.
struct TopTokens {
  std::vector<int32_t> ids;  // [T, k], different in a row
  std::vector<float> log_p;  // [T, k]
};

// T tokens of one conversation (data_pipeline.md §4, §5.7).
struct TrainSample {
  int64_t id = 0;
  std::vector<int32_t> ids;        // [T]
  std::vector<uint8_t> loss_mask;  // [T], 1: an assistant's token
  std::vector<float> taps;         // [T, m * d]: the tapped layers' outputs side by side, ids ascending
  std::vector<float> last_hidden;  // [T, d]: output of the target's final norm
  TopTokens top = {};              // where the shape says so, in place of last_hidden
  int left_out = 0;                // tokens of the conversation behind these, which no loss reads
};

// What every sample of a source has in common.
struct SampleShape {
  std::vector<int> tap_layers;  // m ids, ascending (drafters.md §1.1)
  int d_model = 0;
  int vocab = 0;
  std::string target_name;  // as the source was made for
  int teacher_top = 0;      // k of TrainSample::top; 0: last_hidden is the teacher
  // False: samples end with the last supervised token and do not say what was left out (a compact cache's
  // version 1), so that Eagle3 cannot be trained.
  bool knows_length = true;
};

// Where a trainer takes its samples from: a cache on disk or the running target. Random access; Read of the
// same indices gives the same samples in every run.
class SampleSource {
 public:
  virtual ~SampleSource() = default;
  virtual const SampleShape& shape() const = 0;
  virtual int64_t size() const = 0;
  // The samples of `indices` (each < size()), in that order. A live target runs them together. Error: a file
  // that cannot be read or holds something else than its index says.
  virtual Result<std::vector<TrainSample>> Read(const std::vector<int64_t>& indices) = 0;
  // The same without hidden states: id, ids and loss_mask only. Cheap; nothing is run. Errors as Read's.
  virtual Result<std::vector<TrainSample>> ReadTokens(const std::vector<int64_t>& indices) = 0;
};

}  // namespace dspark
