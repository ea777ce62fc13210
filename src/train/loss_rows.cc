#include "train/loss_rows.h"

#include "train/loss_rows_impl.h"

namespace dspark {

extern const LossRowKernels<float> kLossRowsFloatAvx2, kLossRowsFloatAvx512;
extern const LossRowKernels<uint16_t> kLossRowsBf16Avx2, kLossRowsBf16Avx512;

const LossRowKernels<float>& LossRowsFloat(Isa isa) {
  static constexpr LossRowKernels<float> kReference = LossRowOps<VecRef, float>::Kernels();
  return isa == Isa::kAvx512Vnni ? kLossRowsFloatAvx512 : isa == Isa::kAvx2 ? kLossRowsFloatAvx2 : kReference;
}

const LossRowKernels<uint16_t>& LossRowsBf16(Isa isa) {
  static constexpr LossRowKernels<uint16_t> kReference = LossRowOps<VecRef, uint16_t>::Kernels();
  return isa == Isa::kAvx512Vnni ? kLossRowsBf16Avx512 : isa == Isa::kAvx2 ? kLossRowsBf16Avx2 : kReference;
}

}  // namespace dspark
