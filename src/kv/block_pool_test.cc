#include "kv/block_pool.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <deque>
#include <random>
#include <set>
#include <utility>

namespace dspark {
namespace {

KvLayout SmallLayout(int block_tokens, KvType type = KvType::kF16) {
  return {.layers = 2, .kv_heads = 1, .head_dim = 4, .block_tokens = block_tokens, .type = type};
}

// A table and what the test believes about it: `mark` is written at both ends of every block it holds.
struct Modelled {
  KvTable table;
  int tokens = 0;
  std::vector<std::byte> marks = {};
};

class Model {
 public:
  Model(const KvLayout& layout, int blocks, uint32_t seed)
      : layout_(layout), pool_(layout_, blocks), generator_(seed) {}

  void Step() {
    const uint32_t action = generator_() % 16;
    if (sequences_.empty() || (action == 0 && sequences_.size() < 12)) {
      sequences_.push_back({KvTable(pool_)});
    } else if (action < 9) {
      Reserve(Any());
    } else if (action < 13) {
      Truncate(Any());
    } else if (action == 13) {
      sequences_.erase(sequences_.begin() + long(generator_() % sequences_.size()));
    } else {
      Move();
    }
    Check();
  }

  int refusals() const { return refusals_; }

 private:
  Modelled& Any() { return sequences_[generator_() % sequences_.size()]; }
  int Blocks(int tokens) const { return (tokens + layout_.block_tokens - 1) / layout_.block_tokens; }

  void Reserve(Modelled& s) {
    const int tokens = s.tokens + int(generator_() % uint32_t(5 * layout_.block_tokens));
    const int held = int(s.marks.size()), wanted = Blocks(tokens);
    const bool fits = wanted - held <= pool_.free_blocks();
    refusals_ += !fits;
    ASSERT_EQ(s.table.Reserve(tokens), fits);
    if (!fits) return;
    s.tokens = std::max(tokens, s.tokens);
    for (int i = held; i < wanted; ++i) {
      s.marks.push_back(std::byte(generator_()));
      s.table.blocks()[size_t(i)][0] = s.marks.back();
      s.table.blocks()[size_t(i)][layout_.BlockBytes() - 1] = s.marks.back();
    }
  }

  void Truncate(Modelled& s) {
    s.tokens = int(generator_() % uint32_t(s.tokens + 1));
    s.table.Truncate(s.tokens);
    s.marks.resize(size_t(Blocks(s.tokens)));
  }

  void Move() {
    Modelled& from = Any();
    Modelled& to = Any();
    if (&from == &to) return;
    if (generator_() % 2) {
      to = std::move(from);
    } else {
      KvTable table = std::move(from.table);
      to.table = std::move(table);
      to.tokens = from.tokens;
      to.marks = from.marks;
    }
    from.tokens = 0;
    from.marks.clear();
  }

  void Check() {
    std::set<const std::byte*> owned;
    for (const auto& s : sequences_) {
      ASSERT_EQ(s.table.blocks().size(), s.marks.size());
      ASSERT_EQ(s.table.capacity(), int(s.marks.size()) * layout_.block_tokens);
      ASSERT_GE(s.table.capacity(), s.tokens);
      for (size_t i = 0; i < s.marks.size(); ++i) {
        const std::byte* block = s.table.blocks()[i];
        ASSERT_TRUE(owned.insert(block).second) << "a block has two owners";
        ASSERT_EQ(block[0], s.marks[i]);
        ASSERT_EQ(block[layout_.BlockBytes() - 1], s.marks[i]);
      }
    }
    ASSERT_EQ(int(owned.size()) + pool_.free_blocks(), pool_.blocks());
  }

  KvLayout layout_;
  BlockPool pool_;
  std::mt19937 generator_;
  std::deque<Modelled> sequences_;
  int refusals_ = 0;
};

TEST(BlockPool, AgreesWithAModelOverRandomSteps) {
  for (uint32_t seed = 0; seed < 8; ++seed) {
    const KvType type = seed % 4 < 2 ? KvType::kF16 : KvType::kF32;
    Model model(SmallLayout(seed % 2 ? 16 : 32, type), seed < 2 ? 3 : 40, seed);
    for (int step = 0; step < 4000; ++step) {
      model.Step();
      ASSERT_FALSE(testing::Test::HasFatalFailure()) << "seed " << seed << " step " << step;
    }
    EXPECT_GT(model.refusals(), 0) << seed;
  }
}

TEST(BlockPool, RefusalChangesNothing) {
  BlockPool pool(SmallLayout(16), 4);
  KvTable a(pool), b(pool);
  ASSERT_TRUE(a.Reserve(33));
  EXPECT_FALSE(b.Reserve(17));
  EXPECT_EQ(b.capacity(), 0);
  EXPECT_EQ(pool.free_blocks(), 1);
  ASSERT_TRUE(b.Reserve(16));
  EXPECT_EQ(pool.free_blocks(), 0);
}

TEST(BlockPool, ReserveNeverShrinksAndTruncateKeepsPartialBlocks) {
  BlockPool pool(SmallLayout(16), 4);
  KvTable table(pool);
  ASSERT_TRUE(table.Reserve(40));
  ASSERT_TRUE(table.Reserve(1));
  EXPECT_EQ(table.capacity(), 48);
  table.Truncate(17);
  EXPECT_EQ(table.capacity(), 32);
  table.Truncate(0);
  EXPECT_EQ(pool.free_blocks(), 4);
}

TEST(BlockPool, TakesTheMemoryItsLayoutAsksFor) {
  constexpr size_t kBlockElements = 2 * 2 * 4 * 16;  // K and V, layers, head_dim, tokens
  EXPECT_EQ(BlockPool(SmallLayout(16), 3).Bytes(), 3 * kBlockElements * 2);
  EXPECT_EQ(BlockPool(SmallLayout(16, KvType::kF32), 3).Bytes(), 3 * kBlockElements * 4);
}

TEST(BlockPool, BlocksAreAlignedForVectorLoads) {
  BlockPool pool({.layers = 3, .kv_heads = 3, .head_dim = 2, .block_tokens = 16}, 5);
  KvTable table(pool);
  ASSERT_TRUE(table.Reserve(80));
  for (const std::byte* block : table.blocks()) EXPECT_EQ(reinterpret_cast<uintptr_t>(block) % 32, 0u);
}

TEST(BlockPoolDeathTest, TruncateBeyondCapacityIsABug) {
  BlockPool pool(SmallLayout(16), 4);
  KvTable table(pool);
  ASSERT_TRUE(table.Reserve(16));
  EXPECT_DEATH(table.Truncate(17), "check failed");
}

}  // namespace
}  // namespace dspark
