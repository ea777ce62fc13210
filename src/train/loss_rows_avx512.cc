#include "train/loss_rows_impl.h"

namespace dspark {

extern constinit const LossRowKernels<float> kLossRowsFloatAvx512 = LossRowOps<VecAvx512, float>::Kernels();
extern constinit const LossRowKernels<uint16_t> kLossRowsBf16Avx512 =
    LossRowOps<VecAvx512, uint16_t>::Kernels();

}  // namespace dspark
