#include "kernels/attention_impl.h"

namespace dspark {

constinit const AttentionTable kAttentionAvx512 = AttentionOf<VecAvx512, kTileQueries>::Table();

}  // namespace dspark
