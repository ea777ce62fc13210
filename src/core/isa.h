// Which instruction set the kernels run with: an argument, chosen once at start, never a global.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace dspark {

enum class Isa {
  kReference,   // plain C++, the definition of every op
  kAvx2,        // AVX2 + FMA + F16C
  kAvx512Vnni,  // AVX-512 F, BW, VL, DQ, VNNI
};

// The best instruction set this processor and operating system support.
Isa DetectIsa();

// True when code for `isa` can run here.
bool IsaSupported(Isa isa);

// "reference", "avx2", "avx512_vnni": the names of --isa and of the reports.
std::string_view IsaName(Isa isa);
std::optional<Isa> IsaFromName(std::string_view name);

// The processor's own name, "AMD EPYC 9R14": "model name" of /proc/cpuinfo, "unknown" where it has none.
std::string CpuName();

}  // namespace dspark
