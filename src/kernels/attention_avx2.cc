#include "kernels/attention_impl.h"

namespace dspark {

constinit const AttentionTable kAttentionAvx2 = AttentionOf<VecAvx2, 6>::Table();

}  // namespace dspark
