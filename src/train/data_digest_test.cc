#include "train/data_digest.h"

#include <gtest/gtest.h>

#include "fixed_source.h"

namespace dspark::test {
namespace {

FixedSource FiveSamples() {
  FixedSource source(ModelConfig{}, {0});
  for (int i = 0; i < 4; ++i) source.Add({i, 2, 3}, {0, 1, 1});
  source.Add({9, 2, 3}, {0, 1, 1});
  return source;
}

// Five samples whose last one is this.
std::string DigestWith(std::vector<int32_t> ids, std::vector<uint8_t> loss_mask) {
  FixedSource source(ModelConfig{}, {0});
  for (int i = 0; i < 4; ++i) source.Add({i, 2, 3}, {0, 1, 1});
  source.Add(std::move(ids), std::move(loss_mask));
  return DataDigest(source).value();
}

TEST(DataDigest, KnowsIdsMasksLengthsAndNumber) {
  FixedSource source = FiveSamples();
  const std::string digest = DataDigest(source).value();
  EXPECT_EQ(digest, DigestWith({9, 2, 3}, {0, 1, 1}));
  EXPECT_NE(digest, DigestWith({9, 2, 4}, {0, 1, 1}));
  EXPECT_NE(digest, DigestWith({9, 2, 3}, {0, 0, 1}));
  EXPECT_NE(digest, DigestWith({9, 2}, {0, 1}));
  source.Add({1, 2, 3}, {0, 1, 1});
  EXPECT_NE(digest, DataDigest(source).value());
}

TEST(DataDigest, ReadsSomeOfManySpreadEvenly) {
  FixedSource a = FiveSamples(), b(ModelConfig{}, {0});
  for (int i = 0; i < 5; ++i) b.Add(i == 1 ? std::vector<int32_t>{7} : a.sample(i).ids, {0, 1, 1});
  EXPECT_EQ(DataDigest(a, 2).value(), DataDigest(b, 2).value());  // samples 0 and 2
  EXPECT_NE(DataDigest(a, 5).value(), DataDigest(b, 5).value());
}

}  // namespace
}  // namespace dspark::test
