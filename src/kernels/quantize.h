// How plain weights become quantised ones when a model is loaded.
#pragma once

#include "core/tensor_type.h"
#include "kernels/matmul.h"

namespace dspark {

// 32 values as levels of a quantised format, by the rules of ggml's quantisers (ggml-quants.c,
// quantize_row_*_ref), so that the bytes are those of a GGUF made from the same floats:
//   kInt8     Q8_0: scale = amax / 127, level = 128 + round(x / scale), halves away from zero
//   kInt4     Q4_0: scale = (the value of largest magnitude) / -8, level = min(15, trunc(x / scale + 8.5))
//   kInt4Min  Q4_1: scale = (max - min) / 15, level = min(15, trunc((x - min) / scale + 0.5))
// NaN counts as 0; scale and min saturate at fp16's largest finite value.
BlockLevels QuantizeWeights(WeightFormat format, const float* values);

}  // namespace dspark
