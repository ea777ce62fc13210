#include "kv/prefix_cache.h"

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <random>

namespace dspark {
namespace {

constexpr int kBlock = 16;
constexpr KvLayout kTarget = {.layers = 2, .kv_heads = 1, .head_dim = 4, .block_tokens = kBlock};
constexpr KvLayout kDrafter = {.layers = 1, .kv_heads = 1, .head_dim = 4, .block_tokens = kBlock};

// Stands for a row's K/V: a function of all tokens up to it, and for a drafter of the next one too.
uint32_t RowMark(std::span<const int32_t> tokens, int row, bool drafter) {
  uint32_t mark = drafter;
  for (int i = 0; i <= row + drafter; ++i) mark = mark * 31 + uint32_t(tokens[size_t(i)]) + 7;
  return mark;
}

class Text {
 public:
  Text(BlockPool& target, BlockPool& drafter, bool drafts, std::vector<int32_t> t)
      : tokens(std::move(t)), kv(target), context(drafter), drafts_(drafts) {}

  KvTable* Context() { return drafts_ ? &context : nullptr; }
  // Writes the next rows as a forward pass would.
  bool Run(int count) {
    if (!kv.Reserve(rows + count) || (drafts_ && !context.Reserve(rows + count))) return false;
    for (int end = rows + count; rows < end; ++rows) {
      Write(kv, rows, RowMark(tokens, rows, false));
      if (drafts_) Write(context, rows, RowMark(tokens, rows, true));
    }
    return true;
  }
  void Check() const {
    for (int row = 0; row < rows; ++row) {
      ASSERT_EQ(Read(kv, row), RowMark(tokens, row, false)) << "row " << row;
      if (!drafts_) continue;
      ASSERT_EQ(Read(context, row), RowMark(tokens, row, true)) << "row " << row;
    }
  }

  std::vector<int32_t> tokens;
  KvTable kv, context;
  PrefixCache::Place place;
  int rows = 0;

 private:
  static std::byte* At(const KvTable& table, int row) {
    return table.blocks()[size_t(row / kBlock)] + size_t(row % kBlock) * sizeof(uint32_t);
  }
  static void Write(KvTable& table, int row, uint32_t mark) {
    std::memcpy(At(table, row), &mark, sizeof mark);
  }
  static uint32_t Read(const KvTable& table, int row) {
    uint32_t mark;
    std::memcpy(&mark, At(table, row), sizeof mark);
    return mark;
  }
  bool drafts_;
};

std::vector<int32_t> Counting(int n, int from = 0) {
  std::vector<int32_t> tokens;
  for (int i = 0; i < n; ++i) tokens.push_back(from + i);
  return tokens;
}

struct Pools {
  explicit Pools(int blocks) : target(kTarget, blocks), drafter(kDrafter, 2 * blocks), cache(target) {}
  std::unique_ptr<Text> New(std::vector<int32_t> tokens, bool drafts = true) {
    auto text = std::make_unique<Text>(target, drafter, drafts, std::move(tokens));
    const auto found = cache.Adopt(text->tokens, &text->kv, text->Context());
    text->rows = found.rows;
    text->place = found.place;
    text->Check();
    return text;
  }
  void Publish(Text& text) { cache.Publish(text.tokens, text.rows, &text.kv, text.Context(), &text.place); }
  BlockPool target, drafter;
  PrefixCache cache;
};

TEST(PrefixCache, SharesFullBlocksAndCopiesAPart) {
  Pools pools(16);
  auto first = pools.New(Counting(50));
  EXPECT_EQ(first->rows, 0);
  ASSERT_TRUE(first->Run(50));
  pools.Publish(*first);
  EXPECT_EQ(pools.cache.nodes(), 3);  // 48 rows; the token behind each block is known

  EXPECT_EQ(pools.New(Counting(50))->rows, 48);
  EXPECT_EQ(pools.New(Counting(49))->rows, 48);
  // The last token is run in any case, and the row before it may know another next token.
  EXPECT_EQ(pools.New(Counting(48))->rows, 32 + 15);
  auto other = Counting(60);
  other[45] = 1000;
  EXPECT_EQ(pools.New(other)->rows, 32 + 12);
  other[36] = 1000;
  EXPECT_EQ(pools.New(other)->rows, 32) << "a part of 3 rows is not worth a copy";
  other[32] = 1000;
  EXPECT_EQ(pools.New(other)->rows, 16 + 15) << "the token behind the block is another";
  EXPECT_EQ(pools.New(Counting(9, 1))->rows, 0);
  first.reset();
  EXPECT_EQ(pools.cache.idle_blocks(), 3);
  EXPECT_EQ(pools.target.free_blocks(), 13);
}

TEST(PrefixCache, ADrafterGetsOnlyWhatADrafterSaw) {
  Pools pools(16);
  auto plain = pools.New(Counting(40), /*drafts=*/false);
  ASSERT_TRUE(plain->Run(40));
  pools.Publish(*plain);
  EXPECT_EQ(pools.New(Counting(40))->rows, 0);
  auto drafting = pools.New(Counting(40));
  ASSERT_TRUE(drafting->Run(40));
  pools.Publish(*drafting);
  EXPECT_EQ(pools.cache.nodes(), 2) << "the same text is there once";
  EXPECT_EQ(drafting->kv.blocks()[0], plain->kv.blocks()[0]);
  EXPECT_EQ(pools.New(Counting(40))->rows, 32);
  EXPECT_EQ(pools.New(Counting(40), false)->rows, 32);
}

TEST(PrefixCache, GivesBackWhatWasNotUsedForLongest) {
  Pools pools(8);
  for (const int from : {0, 1000, 2000}) {  // two blocks each
    auto text = pools.New(Counting(33, from));
    ASSERT_TRUE(text->Run(33));
    pools.Publish(*text);
  }
  EXPECT_EQ(pools.target.free_blocks(), 2);
  pools.New(Counting(33, 0));  // used again
  EXPECT_TRUE(pools.cache.MakeRoom(3));
  EXPECT_EQ(pools.New(Counting(33, 1000))->rows, 16) << "leaves first";
  EXPECT_TRUE(pools.cache.MakeRoom(5));
  EXPECT_EQ(pools.New(Counting(33, 2000))->rows, 0);
  EXPECT_EQ(pools.New(Counting(33, 0))->rows, 32);
  auto held = pools.New(Counting(33, 0));
  EXPECT_FALSE(pools.cache.MakeRoom(8)) << "two blocks are in use";
  EXPECT_TRUE(pools.cache.MakeRoom(6));
  held->Check();
  EXPECT_EQ(pools.drafter.blocks() - pools.drafter.free_blocks(), 2) << "the drafter's go with the target's";
}

// Texts over few tokens come, run, publish and go; what a table holds is always its own text's.
TEST(PrefixCache, RandomTextsKeepTheirRows) {
  Pools pools(24);
  std::mt19937 random(11);
  std::vector<std::unique_ptr<Text>> texts;
  int hits = 0, refused = 0;
  for (int step = 0; step < 4000; ++step) {
    const auto action = random() % 8;
    if (texts.size() < 6 && action < 2) {
      std::vector<int32_t> tokens(20 + random() % 100);
      int32_t choice = int32_t(random() % 3);
      for (auto& token : tokens) {
        if (random() % 24 == 0) choice = int32_t(random() % 3);
        token = choice;
      }
      texts.push_back(pools.New(std::move(tokens), random() % 3 > 0));
      hits += texts.back()->rows > 0;
    } else if (texts.empty()) {
      continue;
    } else if (action == 7) {
      texts.erase(texts.begin() + long(random() % texts.size()));
    } else {
      Text& text = *texts[random() % texts.size()];
      const int more = std::min(int(random() % 24), int(text.tokens.size()) - 1 - text.rows);
      const int blocks = kTarget.BlocksFor(text.rows + more) - text.kv.capacity() / kBlock;
      if (more > 0 && !pools.cache.MakeRoom(blocks)) {
        ++refused;
        texts.erase(texts.begin() + long(random() % texts.size()));
        continue;
      }
      ASSERT_TRUE(text.Run(std::max(more, 0)));
      pools.Publish(text);
      text.Check();
    }
    int held = 0;
    for (const auto& text : texts) held = std::max(held, int(text->kv.blocks().size()));
    ASSERT_LE(held, 24 - pools.target.free_blocks() - pools.cache.idle_blocks());
    ASSERT_GE(pools.cache.idle_blocks(), 0);
  }
  EXPECT_GT(hits, 200);
  EXPECT_GT(refused, 0);
  for (auto& text : texts) text->Check();
  texts.clear();
  EXPECT_EQ(pools.cache.idle_blocks() + pools.target.free_blocks(), 24);
  EXPECT_TRUE(pools.cache.MakeRoom(24));
  EXPECT_EQ(pools.cache.nodes(), 0);
  EXPECT_EQ(pools.drafter.free_blocks(), pools.drafter.blocks());
}

}  // namespace
}  // namespace dspark
