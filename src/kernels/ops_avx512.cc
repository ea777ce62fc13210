#include "kernels/ops_impl.h"

namespace dspark {

constinit const OpsTable kOpsAvx512 = OpsOf<VecAvx512>::Table();

}  // namespace dspark
