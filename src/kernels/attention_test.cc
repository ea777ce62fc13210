#include "kernels/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <deque>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "core/float16.h"

namespace dspark {
namespace {

std::vector<Isa> SupportedIsas() {
  std::vector<Isa> isas;
  for (Isa isa : {Isa::kReference, Isa::kAvx2, Isa::kAvx512Vnni}) {
    if (IsaSupported(isa)) isas.push_back(isa);
  }
  return isas;
}

// What memory never written by a test holds: ±65504 read as fp16, ±2.7e36 as fp32.
constexpr uint16_t kLarge = 0x7bff;

// One sequence: q, k and v of all its positions, and blocks of its own filled with garbage.
struct Sequence {
  std::vector<float> q, k, v;  // [length][heads * head_dim], [length][kv_heads * head_dim] twice
  std::deque<std::vector<std::byte>> memory;
  std::vector<std::byte*> blocks;
};

struct Case {
  AttentionShape shape;
  std::vector<int> lengths;  // of the sequences
  uint32_t seed = 1;

  int QWidth() const { return shape.heads * shape.layout.head_dim; }
  int KvWidth() const { return shape.layout.kv_heads * shape.layout.head_dim; }
};

Case MakeCase(KvType type, int heads, int kv_heads, int head_dim, std::vector<int> lengths,
              int block_tokens = 32, uint32_t seed = 1) {
  return {
      {{.layers = 2, .kv_heads = kv_heads, .head_dim = head_dim, .block_tokens = block_tokens, .type = type},
       heads,
       1 / std::sqrt(float(head_dim))},
      std::move(lengths),
      seed};
}

std::vector<Sequence> MakeSequences(const Case& c) {
  std::mt19937 generator(c.seed);
  std::normal_distribution<float> normal(0, 1.5f);
  std::vector<Sequence> sequences(c.lengths.size());
  for (size_t s = 0; s < sequences.size(); ++s) {
    const size_t length = size_t(c.lengths[s]);
    for (auto* x : {&sequences[s].q, &sequences[s].k, &sequences[s].v}) {
      x->resize(length * size_t(x == &sequences[s].q ? c.QWidth() : c.KvWidth()));
      for (float& value : *x) value = normal(generator);
    }
    for (int begin = 0; begin < c.lengths[s]; begin += c.shape.layout.block_tokens) {
      auto& block = sequences[s].memory.emplace_back(c.shape.layout.BlockBytes());
      for (size_t i = 0; i < block.size(); i += 2) {
        const uint16_t garbage = kLarge | (i % 3 ? 0x8000 : 0);
        std::memcpy(&block[i], &garbage, sizeof(garbage));
      }
      sequences[s].blocks.push_back(block.data());
    }
  }
  return sequences;
}

constexpr int kLayer = 1;

// Runs the sequences' positions in batches and returns every row's result, per sequence. A batch takes the
// next `batch_rows[i]` positions of sequence i at most (cycling through `batch_rows` where it is shorter).
std::vector<std::vector<float>> RunBatches(const Case& c, Isa isa, int threads,
                                           const std::vector<int>& batch_rows) {
  auto sequences = MakeSequences(c);
  ThreadPool pool(threads, isa);
  const int longest = *std::max_element(c.lengths.begin(), c.lengths.end());
  int max_rows = 0;
  for (size_t s = 0; s < sequences.size(); ++s) max_rows += batch_rows[s % batch_rows.size()];
  AttentionWorkspace workspace(c.shape, max_rows, longest, threads);

  const size_t q_width = size_t(c.QWidth()), kv_width = size_t(c.KvWidth());
  const size_t q_stride = q_width + 5, kv_stride = kv_width + 3, out_stride = q_width + 1;
  std::vector<float> q(size_t(max_rows) * q_stride), k(size_t(max_rows) * kv_stride), v(k), out(q);
  std::vector<std::vector<float>> results(sequences.size());
  std::vector<int> done(sequences.size(), 0);
  while (true) {
    std::vector<AttentionSegment> segments;
    int row = 0;
    for (size_t s = 0; s < sequences.size(); ++s) {
      const int rows = std::min(batch_rows[s % batch_rows.size()], c.lengths[s] - done[s]);
      if (rows == 0) continue;
      segments.push_back({sequences[s].blocks, row, rows, done[s]});
      for (int i = 0; i < rows; ++i, ++row) {
        const size_t from = size_t(done[s] + i), to = size_t(row);
        std::memcpy(&q[to * q_stride], &sequences[s].q[from * q_width], q_width * sizeof(float));
        std::memcpy(&k[to * kv_stride], &sequences[s].k[from * kv_width], kv_width * sizeof(float));
        std::memcpy(&v[to * kv_stride], &sequences[s].v[from * kv_width], kv_width * sizeof(float));
      }
    }
    if (segments.empty()) return results;
    pool.Run([&](Worker& worker) {
      StoreKv(worker, c.shape.layout, kLayer, segments, k.data(), v.data(), kv_stride);
      worker.Barrier();
      Attention(worker, c.shape, kLayer, segments, q.data(), q_stride, out.data(), out_stride, workspace);
    });
    size_t segment = 0;
    for (size_t s = 0; s < sequences.size(); ++s) {
      if (done[s] == c.lengths[s]) continue;
      for (int i = 0; i < segments[segment].rows; ++i) {
        const float* from = &out[size_t(segments[segment].first_row + i) * out_stride];
        results[s].insert(results[s].end(), from, from + q_width);
      }
      done[s] += segments[segment++].rows;
    }
  }
}

bool SameBits(const std::vector<std::vector<float>>& a, const std::vector<std::vector<float>>& b) {
  if (a.size() != b.size()) return false;
  for (size_t s = 0; s < a.size(); ++s) {
    if (a[s].size() != b[s].size() ||
        std::memcmp(a[s].data(), b[s].data(), a[s].size() * sizeof(float)) != 0) {
      return false;
    }
  }
  return true;
}

// x as K/V memory holds it.
float Kept(KvType type, float x) { return type == KvType::kF16 ? HalfToFloat(FloatToHalf(x)) : x; }

// Row `position`, head `head` of a sequence in double precision, from K and V as memory holds them.
std::vector<double> Exact(const Case& c, const Sequence& s, int position, int head) {
  const int head_dim = c.shape.layout.head_dim, kv_head = head / (c.shape.heads / c.shape.layout.kv_heads);
  const auto kv = [&](const std::vector<float>& x, int key, int d) {
    return double(Kept(c.shape.layout.type, x[size_t(key * c.KvWidth() + kv_head * head_dim + d)]));
  };
  std::vector<double> score(size_t(position) + 1), out(size_t(head_dim), 0.0);
  for (int key = 0; key <= position; ++key) {
    for (int d = 0; d < head_dim; ++d) {
      score[size_t(key)] +=
          double(s.q[size_t(position * c.QWidth() + head * head_dim + d)]) * kv(s.k, key, d);
    }
    score[size_t(key)] *= double(c.shape.scale);
  }
  const double max = *std::max_element(score.begin(), score.end());
  double sum = 0;
  for (double& x : score) sum += x = std::exp(x - max);
  for (int key = 0; key <= position; ++key) {
    for (int d = 0; d < head_dim; ++d) out[size_t(d)] += score[size_t(key)] / sum * kv(s.v, key, d);
  }
  return out;
}

// Twice what is reached. fp32 is compared with K and V as given, which fp16 misses tenfold.
constexpr double kTolerance = 1e-5;

void ExpectNearExact(const Case& c, const std::vector<std::vector<float>>& results) {
  const auto sequences = MakeSequences(c);
  for (size_t s = 0; s < sequences.size(); ++s) {
    for (int position = 0; position < c.lengths[s]; position += position < 40 ? 1 : 37) {
      for (int head = 0; head < c.shape.heads; ++head) {
        const auto exact = Exact(c, sequences[s], position, head);
        for (size_t d = 0; d < exact.size(); ++d) {
          const size_t i = size_t(position * c.QWidth() + head * c.shape.layout.head_dim) + d;
          ASSERT_NEAR(results[s][i], exact[d], kTolerance)
              << "position " << position << " head " << head << " d " << d;
        }
      }
    }
  }
}

class AttentionTest : public testing::TestWithParam<std::tuple<Isa, KvType>> {
 protected:
  const Isa isa_ = std::get<Isa>(GetParam());
  const KvType type_ = std::get<KvType>(GetParam());

  bool IsReference() const { return isa_ == Isa::kReference; }
  template <class... Args>
  Case Make(int heads, int kv_heads, int head_dim, std::vector<int> lengths, Args... rest) const {
    return MakeCase(type_, heads, kv_heads, head_dim, std::move(lengths), rest...);
  }
};

INSTANTIATE_TEST_SUITE_P(Isas, AttentionTest,
                         testing::Combine(testing::ValuesIn(SupportedIsas()),
                                          testing::Values(KvType::kF16, KvType::kF32)),
                         [](const auto& test) {
                           return std::string(IsaName(std::get<Isa>(test.param))) +
                                  (std::get<KvType>(test.param) == KvType::kF32 ? "_f32" : "_f16");
                         });

TEST_P(AttentionTest, AgreesWithDoublePrecision) {
  const Case cases[] = {Make(9, 3, 64, {300, 1}), Make(3, 3, 16, {40, 17}),  Make(8, 2, 32, {65}),
                        Make(8, 1, 24, {90}),     Make(2, 1, 80, {70, 260}), Make(4, 4, 96, {33}),
                        Make(4, 1, 128, {50}),    Make(2, 2, 256, {40}),     Make(32, 1, 10, {35}),
                        Make(3, 1, 2, {20})};
  for (const Case& c : cases) {
    SCOPED_TRACE(testing::Message() << c.shape.heads << "/" << c.shape.layout.kv_heads << " heads of "
                                    << c.shape.layout.head_dim);
    ExpectNearExact(c, RunBatches(c, isa_, 2, {64}));
  }
}

TEST_P(AttentionTest, AgreesWithDoublePrecisionOnLongContexts) {
  const Case c = Make(6, 2, 64, IsReference() ? std::vector<int>{520} : std::vector<int>{1500, 700});
  ExpectNearExact(c, RunBatches(c, isa_, 2, {512}));
}

// The lossless contract: a row's bits depend on nothing but the sequence up to it.
TEST_P(AttentionTest, RowsDoNotDependOnTheirBatch) {
  const Case c =
      Make(9, 3, 64, IsReference() ? std::vector<int>{270, 40} : std::vector<int>{600, 40, 257, 1, 515});
  const auto single = RunBatches(c, isa_, 1, {1});
  EXPECT_TRUE(SameBits(single, RunBatches(c, isa_, 2, {1}))) << "split by chunks";
  for (int threads : {1, 2, 3}) {
    for (const auto& batch : {std::vector<int>{2, 5, 3}, {7, 1, 8, 30}, {16, 17}, {200, 1}, {512}}) {
      EXPECT_TRUE(SameBits(single, RunBatches(c, isa_, threads, batch)))
          << threads << " threads, batches of " << testing::PrintToString(batch);
    }
  }
}

TEST_P(AttentionTest, RowsDoNotDependOnBlockSizeOrWorkersInAnyShape) {
  const int shapes[][3] = {{4, 4, 16},  {8, 2, 24},  {8, 1, 80}, {2, 1, 96},
                           {32, 1, 34}, {5, 1, 128}, {16, 8, 10}};
  for (const auto& [heads, kv_heads, head_dim] : shapes) {
    const std::vector<int> lengths = {IsReference() ? 60 : 290, 23};
    const auto single = RunBatches(Make(heads, kv_heads, head_dim, lengths, 32), isa_, 1, {1});
    int threads = 1;
    for (int block_tokens : {16, 32, 64, 128, 256}) {
      const Case c = Make(heads, kv_heads, head_dim, lengths, block_tokens);
      EXPECT_TRUE(SameBits(single, RunBatches(c, isa_, threads, {3, 50}))) << head_dim << " " << block_tokens;
      EXPECT_TRUE(SameBits(single, RunBatches(c, isa_, threads, {40}))) << head_dim << " " << block_tokens;
      threads = threads % 3 + 1;
    }
  }
}

TEST_P(AttentionTest, EqualsTheReference) {
  for (const auto& [heads, kv_heads, head_dim] : {std::tuple{9, 3, 64}, {4, 2, 26}, {6, 1, 128}}) {
    const Case c = Make(heads, kv_heads, head_dim, {280, 19}, 64, 7);
    EXPECT_TRUE(SameBits(RunBatches(c, Isa::kReference, 2, {140, 3}), RunBatches(c, isa_, 2, {100, 19})));
  }
}

// An overflowing or NaN key or value in a draft's rows must not reach the rows before it.
TEST_P(AttentionTest, NonFiniteRowsDoNotSpreadBackwards) {
  for (float poison : {INFINITY, -INFINITY, float(NAN), 1e30f}) {
    Case c = Make(6, 2, 64, {20});
    auto sequence = std::move(MakeSequences(c)[0]);
    const int bad = 13;
    const size_t q_width = size_t(c.QWidth()), kv_width = size_t(c.KvWidth());
    std::vector<float> out[2];
    AttentionWorkspace workspace(c.shape, 20, 20, 1);
    ThreadPool pool(1, isa_);
    for (auto& result : out) {
      result.resize(20 * q_width);
      const AttentionSegment segment = {sequence.blocks, 0, 20, 0};
      pool.Run([&](Worker& worker) {
        StoreKv(worker, c.shape.layout, kLayer, {&segment, 1}, sequence.k.data(), sequence.v.data(),
                kv_width);
        worker.Barrier();
        Attention(worker, c.shape, kLayer, {&segment, 1}, sequence.q.data(), q_width, result.data(), q_width,
                  workspace);
      });
      std::fill_n(&sequence.k[bad * kv_width], kv_width, poison);
      std::fill_n(&sequence.v[bad * kv_width], kv_width, poison);
    }
    EXPECT_EQ(std::memcmp(out[0].data(), out[1].data(), bad * q_width * sizeof(float)), 0) << poison;
  }
}

// Every row of a bidirectional segment is, bit for bit, the last row of a causal one with its query: whatever
// the instruction set, the workers, the block size and the other sequences of the call.
TEST_P(AttentionTest, RowsOfABlockSeeEachOther) {
  const int rows = 7;
  for (int length : {7, 40, 257, 262, IsReference() ? 300 : 519}) {
    for (const auto& [heads, kv_heads, head_dim] : {std::tuple{9, 3, 64}, {4, 2, 16}, {32, 1, 34}}) {
      const Case c = Make(heads, kv_heads, head_dim, {length, 30}, length % 2 ? 16 : 64);
      auto sequences = MakeSequences(c);
      const size_t q_width = size_t(c.QWidth());
      const AttentionSegment contexts[] = {{sequences[0].blocks, 0, length, 0},
                                           {sequences[1].blocks, length, 30, 0}};
      std::vector<float> k = sequences[0].k, v = sequences[0].v, q(rows * q_width);
      k.insert(k.end(), sequences[1].k.begin(), sequences[1].k.end());
      v.insert(v.end(), sequences[1].v.begin(), sequences[1].v.end());
      std::copy_n(&sequences[0].q[size_t(length - rows) * q_width], rows * q_width, q.begin());
      q.insert(q.end(), sequences[1].q.end() - std::ptrdiff_t(3 * q_width), sequences[1].q.end());
      std::vector<float> block(q.size()), causal(rows * q_width);
      const AttentionSegment blocks[] = {{sequences[0].blocks, 0, rows, length - rows, true},
                                         {sequences[1].blocks, rows, 3, 27, true}};
      ThreadPool pool(1 + length % 3, isa_), single(1, Isa::kReference);
      AttentionWorkspace workspace(c.shape, rows + 3, length + 30, pool.threads());
      pool.Run([&](Worker& worker) {
        StoreKv(worker, c.shape.layout, kLayer, contexts, k.data(), v.data(), size_t(c.KvWidth()));
        worker.Barrier();
        Attention(worker, c.shape, kLayer, blocks, q.data(), q_width, block.data(), q_width, workspace);
      });
      for (size_t row = 0; row < rows; ++row) {
        const AttentionSegment last = {sequences[0].blocks, 0, 1, length - 1};
        single.Run([&](Worker& worker) {
          Attention(worker, c.shape, kLayer, {&last, 1}, &q[row * q_width], q_width, &causal[row * q_width],
                    q_width, workspace);
        });
      }
      EXPECT_EQ(std::memcmp(block.data(), causal.data(), causal.size() * sizeof(float)), 0)
          << length << " positions, heads of " << head_dim;
    }
  }
}

// The bits of element `i` of a block; those it should hold after x is stored there.
uint32_t ElementBits(KvType type, const std::vector<std::byte>& block, size_t i) {
  uint32_t bits = 0;
  std::memcpy(&bits, &block[i * KvElementBytes(type)], KvElementBytes(type));
  return bits;
}
uint32_t KeptBits(KvType type, float x) {
  return type == KvType::kF16 ? FloatToHalf(x) : std::bit_cast<uint32_t>(x);
}

// fp16 rounds to nearest even, fp32 keeps the bits.
TEST_P(AttentionTest, StoreKvRoundsOnceAndTouchesOnlyItsRows) {
  const Case c = Make(2, 2, 80, {48}, 16);
  auto sequence = std::move(MakeSequences(c)[0]);
  const float awkward[] = {0.0f,     -0.0f, 1e-8f,          6.1e-5f,    65504.0f,
                           65520.0f, -1e6f, 1.00048828125f, 1.0014648f, INFINITY};
  for (size_t i = 0; i < sequence.k.size(); i += 3) sequence.k[i] = awkward[i / 3 % 10];
  const AttentionSegment segment = {sequence.blocks, 0, 20, 10};  // positions 10 … 29 from rows 0 … 19
  ThreadPool pool(3, isa_);
  pool.Run([&](Worker& worker) {
    StoreKv(worker, c.shape.layout, kLayer, {&segment, 1}, sequence.k.data(), sequence.v.data(),
            size_t(c.KvWidth()));
  });
  const KvLayout& layout = c.shape.layout;
  const auto garbage = MakeSequences(c)[0].memory;
  for (int position = 0; position < 48; ++position) {
    const size_t block = size_t(position / 16), t = size_t(position % 16);
    for (int layer = 0; layer < 2; ++layer) {
      for (int head = 0; head < 2; ++head) {
        for (size_t d = 0; d < 80; ++d) {
          const size_t k_at = layout.KOffset(layer, head) + d * 16 + t;
          const size_t v_at = layout.VOffset(layer, head) + t * 80 + d;
          const bool written = layer == kLayer && position >= 10 && position < 30;
          const size_t from = size_t((position - 10) * c.KvWidth() + head * 80) + d;
          ASSERT_EQ(ElementBits(type_, sequence.memory[block], k_at),
                    written ? KeptBits(type_, sequence.k[from]) : ElementBits(type_, garbage[block], k_at));
          ASSERT_EQ(ElementBits(type_, sequence.memory[block], v_at),
                    written ? KeptBits(type_, sequence.v[from]) : ElementBits(type_, garbage[block], v_at));
        }
      }
    }
  }
}

TEST(AttentionWorkspaceTest, StaysSmall) {
  const Case c = MakeCase(KvType::kF32, 9, 3, 64, {});
  EXPECT_LT(AttentionWorkspace(c.shape, 512, 8192, 2).Bytes(), size_t{2} << 20);
}

}  // namespace
}  // namespace dspark
