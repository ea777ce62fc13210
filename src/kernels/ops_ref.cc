#include "kernels/ops_impl.h"

namespace dspark {

constinit const OpsTable kOpsRef = OpsOf<VecRef>::Table();

}  // namespace dspark
