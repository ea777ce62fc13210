// What the memory of this machine gives when it is only read: the limit of one-row decoding.
#pragma once

#include "core/thread_pool.h"

namespace dspark {

// GB/s (10^9) of all workers reading a 512 MB buffer front to back, the best of five passes.
double ReadBandwidth(ThreadPool& pool);

}  // namespace dspark
