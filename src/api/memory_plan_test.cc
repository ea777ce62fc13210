#include "api/memory_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tiny_model.h"

namespace dspark::test {
namespace {

using testing::HasSubstr;

TEST(MemoryPlan, IsWhatATargetTakes) {
  const TinyModelOptions variants[] = {
      {},
      {.threads = 1, .max_context = 4096, .max_rows = 512},
      {.threads = 5, .max_context = 3000, .block_tokens = 64, .max_taps = 2},
      {.shape = {.layers = 3, .heads = 6, .head_dim = 48, .d_ffn = 96}, .kv_type = KvType::kF32},
      {.shape = {.matrices = TensorType::kF16, .tied = false}, .weights = WeightFormat::kInt8}};
  for (const TinyModelOptions& options : variants) {
    const TinyModel model(options);
    const auto plan = PlanTarget(model.files, model.target->limits(), options.threads);
    ASSERT_TRUE(plan.ok()) << plan.error().text;
    EXPECT_EQ(plan->memory.weight_bytes, model.target->memory().weight_bytes);
    EXPECT_EQ(plan->memory.workspace_bytes, model.target->memory().workspace_bytes);
    EXPECT_EQ(plan->kv_layout.BlockBytes(), model.target->kv_layout().BlockBytes());

    const int sequences = 3, context = options.max_context;
    const auto all = PlanMemory(model.files, model.target->limits(), sequences, options.threads);
    ASSERT_TRUE(all.ok());
    const int blocks = (context + options.block_tokens - 1) / options.block_tokens;
    EXPECT_EQ(all->kv, double(BlockPool(plan->kv_layout, blocks * sequences).Bytes()));
    EXPECT_EQ(all->kv_per_token * options.block_tokens * blocks * sequences, all->kv);
    EXPECT_EQ(all->Total(), all->kv + double(plan->memory.weight_bytes + plan->memory.workspace_bytes));
  }
}

TEST(MemoryPlan, ContextIsAskedForOrTheModelsOwn) {
  ModelConfig small, large;
  small.max_context = 2048;
  large.max_context = 131072;
  EXPECT_EQ(ChooseContext(small, 0).value(), 2048);
  EXPECT_EQ(ChooseContext(large, 0).value(), kDefaultContext);
  EXPECT_EQ(ChooseContext(large, 100000).value(), 100000);
  EXPECT_THAT(ChooseContext(small, 2049).error().text, HasSubstr("--ctx 2049: the model was made for 2048"));
}

TEST(MemoryPlan, RefusesWhatTheMachineDoesNotHave) {
  const TinyModel model({.shape = {.max_context = 1 << 20}});
  TargetLimits limits{.max_context = 1 << 20};
  const auto plan = [&](int context) {
    limits.max_context = context;
    return PlanMemory(model.files, limits, 1, 2).value().Total();
  };
  const double whole = plan(1 << 20), half = plan(1 << 19);
  ASSERT_LT(half, whole);
  limits.max_context = 1 << 20;
  const auto check = [&](double machine) { return CheckMemory(model.files, limits, 1, 2, {}, machine); };
  EXPECT_TRUE(check(whole).ok());
  EXPECT_TRUE(check(INFINITY).ok());
  EXPECT_THAT(check(whole - 1).error().text, HasSubstr("; use --ctx 524288 or less"));
  EXPECT_THAT(check(half - 1).error().text, HasSubstr("; use --ctx 262144 or less"));
  EXPECT_THAT(check(1e5).error().text, HasSubstr("this machine has 0.1 MB; take a smaller model"));
}

// More sequences than any address space holds, whatever memory the machine has.
TEST(MemoryPlan, RefusesWhatHasNoAddresses) {
  const TinyModel model;
  const auto plan = CheckMemory(model.files, {.max_context = 1 << 20}, 1 << 27, 2, {}, INFINITY);
  ASSERT_FALSE(plan.ok());
  EXPECT_THAT(plan.error().text, HasSubstr("the system does not give that much"));
}

TEST(MemoryPlan, MachineMemoryIsTheLeastOfMachineAndGroups) {
  const TempDir dir;
  const std::string& root = dir.path();
  EXPECT_EQ(MachineMemory(root), INFINITY);
  WriteFile(root + "/proc/meminfo", "MemTotal:       16000 kB\nMemFree:  1 kB\n");
  EXPECT_EQ(MachineMemory(root), 16000 * 1024);

  WriteFile(root + "/proc/self/cgroup", "0::/a.slice/b.scope\n");
  EXPECT_EQ(MachineMemory(root), 16000 * 1024) << "no limits";
  WriteFile(root + "/sys/fs/cgroup/a.slice/b.scope/memory.max", "max\n");
  WriteFile(root + "/sys/fs/cgroup/a.slice/memory.max", "5000000\n");
  EXPECT_EQ(MachineMemory(root), 5000000) << "the group above";
  WriteFile(root + "/sys/fs/cgroup/a.slice/b.scope/memory.max", "4000000\n");
  EXPECT_EQ(MachineMemory(root), 4000000);
  WriteFile(root + "/sys/fs/cgroup/memory.max", "3000000\n");
  EXPECT_EQ(MachineMemory(root), 3000000) << "a container sees its own group at the mount";

  WriteFile(root + "/proc/self/cgroup", "9:cpu,cpuacct:/x\n4:memory:/y\n0::/\n");
  WriteFile(root + "/sys/fs/cgroup/memory/y/memory.limit_in_bytes", "2000000\n");
  EXPECT_EQ(MachineMemory(root), 2000000);
  WriteFile(root + "/sys/fs/cgroup/memory/y/memory.limit_in_bytes", "9223372036854771712\n");
  EXPECT_EQ(MachineMemory(root), 3000000);
}

TEST(MemoryPlan, ThisMachineHasSome) { EXPECT_GT(MachineMemory(), 1e8); }

}  // namespace
}  // namespace dspark::test
