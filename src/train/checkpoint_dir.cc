#include "train/checkpoint_dir.h"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <vector>

namespace dspark {
namespace {

namespace fs = std::filesystem;

// N of step_N, or -1.
int64_t StepOf(const fs::path& path) {
  const std::string name = path.filename();
  const std::string digits = name.starts_with("step_") ? name.substr(5) : "";
  const bool number = digits.find_first_not_of("0123456789") == std::string::npos;
  return !number || digits.empty() || digits.size() > 18 ? -1 : std::stoll(digits);
}

// Every DIR/step_N, the highest N first.
std::vector<fs::path> StepsIn(const std::string& dir) {
  std::vector<fs::path> steps;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(dir, error)) {
    if (StepOf(entry.path()) >= 0) steps.push_back(entry.path());
  }
  std::ranges::sort(steps, std::ranges::greater(), StepOf);
  return steps;
}

bool IsWhole(const fs::path& step) {
  std::error_code error;
  return fs::is_regular_file(step / "training.json", error) &&
         fs::is_regular_file(step / "training.safetensors", error);
}

}  // namespace

Result<std::string> FindCheckpoint(const std::string& dir) {
  const fs::path latest = fs::path(dir) / "step_latest";
  if (IsWhole(latest)) return latest.string();
  const std::vector<fs::path> steps = StepsIn(dir);
  const auto whole = std::ranges::find_if(steps, IsWhole);
  if (whole != steps.end()) return whole->string();
  if (steps.empty()) return std::string();
  return MakeError(
      "{}: {} has no training.json and training.safetensors to go on from, nor has another step; bring them "
      "back, or give another out",
      dir, steps[0].filename().string());
}

void RemoveOldCheckpoints(const std::string& dir, int64_t newest, int kept) {
  std::vector<fs::path> others = StepsIn(dir);
  std::erase_if(others, [&](const fs::path& step) { return StepOf(step) == newest; });
  std::error_code ignored;
  for (size_t i = size_t(kept) - 1; i < others.size(); ++i) fs::remove_all(others[i], ignored);
}

}  // namespace dspark
