#include "train/loss_rows_impl.h"

namespace dspark {

extern constinit const LossRowKernels<float> kLossRowsFloatAvx2 = LossRowOps<VecAvx2, float>::Kernels();
extern constinit const LossRowKernels<uint16_t> kLossRowsBf16Avx2 = LossRowOps<VecAvx2, uint16_t>::Kernels();

}  // namespace dspark
