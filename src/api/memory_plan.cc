#include "api/memory_plan.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <fstream>
#include <limits>

namespace dspark {
namespace {

constexpr int kShortestContext = 16;  // that --ctx takes

// The number that a file of the kernel's begins with; infinity for "max" and where there is no such file.
double NumberIn(const std::string& path) {
  double number = 0;
  return std::ifstream(path) >> number ? number : std::numeric_limits<double>::infinity();
}

// The least limit of a control group and those above it: `mount`/`group`/`file` and so on up to `mount`. In a
// container the path may be the host's and not exist here; then what lies at `mount` itself counts.
double GroupLimit(const std::string& mount, std::string group, const std::string& file) {
  double least = NumberIn(mount + "/" + file);
  for (size_t slash; (slash = group.rfind('/')) != std::string::npos; group.resize(slash)) {
    least = std::min(least, NumberIn(fmt::format("{}{}/{}", mount, group, file)));
  }
  return least;
}

// Whether the address space has room: rlimits and the kernel's own view of over-commitment included.
bool Reservable(double bytes) {
  if (bytes >= double(std::numeric_limits<ptrdiff_t>::max())) return false;
  void* p = mmap(nullptr, size_t(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return false;
  munmap(p, size_t(bytes));
  return true;
}

std::string Size(double bytes) {
  return bytes < 1e9 ? fmt::format("{:.1f} MB", bytes / 1e6) : fmt::format("{:.1f} GB", bytes / 1e9);
}

}  // namespace

Result<int> ChooseContext(const ModelConfig& config, int asked) {
  if (asked > config.max_context) {
    return MakeError("--ctx {}: the model was made for {} positions; use at most that", asked,
                     config.max_context);
  }
  return asked > 0 ? asked : std::min(config.max_context, kDefaultContext);
}

Result<MemoryPlan> PlanMemory(const ModelFiles& files, const TargetLimits& limits, const KvNeed& need,
                              int threads, const DraftSource& source) {
  DSPARK_ASSIGN_OR_RETURN(const TargetPlan target, PlanTarget(files, limits, threads));
  const KvLayout& layout = target.kv_layout;
  return MemoryPlan{.context = limits.max_context,
                    .weights = double(target.memory.weight_bytes),
                    .kv = double(layout.BlockBytes()) * double(need.Blocks(layout, limits.max_context)),
                    .kv_per_token = double(layout.BlockBytes()) / layout.block_tokens,
                    .workspace = double(target.memory.workspace_bytes),
                    .drafter = source.Bytes(files.config, limits, need.sequences)};
}

double MachineMemory(const std::string& root) {
  double least = std::numeric_limits<double>::infinity();
  std::ifstream meminfo(root + "/proc/meminfo");
  for (std::string line; std::getline(meminfo, line);) {
    if (line.starts_with("MemTotal:")) least = std::stod(line.substr(9)) * 1024;
  }
  // Lines "number:controllers:path"; version 2's have no controllers.
  std::ifstream groups(root + "/proc/self/cgroup");
  const std::string mount = root + "/sys/fs/cgroup";
  for (std::string line; std::getline(groups, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1),
                      path = line.substr(second + 1);
    if (controllers.empty()) least = std::min(least, GroupLimit(mount, path, "memory.max"));
    if (controllers == "memory") {
      least = std::min(least, GroupLimit(mount + "/memory", path, "memory.limit_in_bytes"));
    }
  }
  return least;
}

Status CheckMemory(const ModelFiles& files, const TargetLimits& limits, const KvNeed& need, int threads,
                   const DraftSource& source, double machine) {
  DSPARK_ASSIGN_OR_RETURN(const MemoryPlan plan, PlanMemory(files, limits, need, threads, source));
  const auto fits = [&](const MemoryPlan& p) { return p.Total() <= machine && Reservable(p.Total()); };
  if (fits(plan)) return {};
  std::string cure = "take a smaller model";
  TargetLimits shorter = limits;
  for (int context = int(std::bit_floor(unsigned(limits.max_context))); context >= kShortestContext;
       context /= 2) {
    shorter.max_context = context;
    DSPARK_ASSIGN_OR_RETURN(const MemoryPlan smaller, PlanMemory(files, shorter, need, threads, source));
    if (!fits(smaller)) continue;
    cure = fmt::format("use --ctx {} or less", context);
    break;
  }
  return MakeError(
      "{}: {} needed at context {} (weights {}, K/V {}, workspace {}{}) and {}; {}", files.weights->path(),
      Size(plan.Total()), plan.context, Size(plan.weights), Size(plan.kv), Size(plan.workspace),
      plan.drafter > 0 ? fmt::format(", drafter {}", Size(plan.drafter)) : "",
      plan.Total() > machine ? fmt::format("this machine has {}", Size(machine))
                             : std::string("the system does not give that much (ulimit -v, overcommit)"),
      cure);
}

}  // namespace dspark
