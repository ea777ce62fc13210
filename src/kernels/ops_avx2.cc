#include "kernels/ops_impl.h"

namespace dspark {

constinit const OpsTable kOpsAvx2 = OpsOf<VecAvx2>::Table();

}  // namespace dspark
