// The matmuls of one forward pass of the default model (SmolLM2-135M: 4-bit layers with min, 8-bit head) with
// weights of the model's real size, so that memory counts, and the model's barriers. For medians of
// alternating repetitions run with
// --benchmark_repetitions=5 --benchmark_enable_random_interleaving --benchmark_report_aggregates_only.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

#include "core/float16.h"
#include "kernels/matmul.h"

namespace dspark {
namespace {

constexpr int kLayers = 30, kDim = 576, kFfn = 1536, kKv = 192, kVocab = 49152;

// The same 16 random rows in every group: speed does not depend on the values.
void Fill(PackedMatrix& matrix, TensorType type, std::mt19937& random) {
  const TensorTypeInfo& info = InfoOf(type);
  const size_t stride = size_t(matrix.k()) / info.block_values * info.block_bytes;
  std::vector<uint8_t> rows(16 * stride);
  for (auto& byte : rows) byte = uint8_t(random());
  for (size_t block = 0; block < rows.size(); block += info.block_bytes) {
    const uint16_t scale = FloatToHalf(0.01f), min = FloatToHalf(-0.05f);
    std::memcpy(&rows[block], &scale, 2);
    if (info.has_min) std::memcpy(&rows[block + 2], &min, 2);
  }
  for (int group = 0; group < matrix.n() / 16; ++group)
    matrix.SetRowGroup(group, type, rows.data(), stride, 16);
}

struct Layer {
  PackedMatrix wq, wk, wv, wo, gate, up, down;
};

// All matrices in one buffer, in the order of their use.
struct Model {
  std::vector<Layer> layers;
  PackedMatrix head;
  Buffer<uint8_t> storage{size_t{100} << 20};
  size_t bytes = 0;
  double weights = 0;
  std::mt19937 random{1};

  Model() {
    const auto q4 = TensorType::kQ4_1;
    for (int l = 0; l < kLayers; ++l) {
      layers.push_back({Make(kDim, kDim, q4), Make(kKv, kDim, q4), Make(kKv, kDim, q4), Make(kDim, kDim, q4),
                        Make(kFfn, kDim, q4), Make(kFfn, kDim, q4), Make(kDim, kFfn, q4)});
    }
    head = Make(kVocab, kDim, TensorType::kQ8_0);
  }

  PackedMatrix Make(int n, int k, TensorType type) {
    PackedMatrix matrix(n, k, PackedFormatOf(type), storage.data() + bytes);
    Fill(matrix, type, random);
    bytes += matrix.Bytes();
    weights += double(n) * k;
    return matrix;
  }
};

const Model& TheModel() {
  static const Model model;
  return model;
}

Activations RandomActivations(int rows, int cols) {
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  Activations x(rows, cols);
  for (int r = 0; r < rows; ++r) {
    for (int c = 0; c < cols; ++c) x.Row(r)[c] = normal(random);
    x.QuantizeRow(r, Isa::kReference);
  }
  return x;
}

// One pass over `rows` rows with logits for all of them, or only for the last where there are more than a
// verify has.
struct Pass {
  Pass(int rows, int threads, Isa isa)
      : pool(threads, isa),
        x(RandomActivations(rows, kDim)),
        ffn(RandomActivations(rows, kFfn)),
        head(RandomActivations(rows <= 64 ? rows : 1, kDim)),
        y(size_t(rows) * kWidth),
        logits(size_t(head.rows()) * kLogitStride) {}

  void Run(const Model& model) {
    pool.Run([&](Worker& worker) {
      for (const Layer& layer : model.layers) RunLayer(worker, layer);
      MatMul(worker, model.head, head, logits.data(), kLogitStride);
    });
  }

  void RunLayer(Worker& worker, const Layer& layer) {
    MatMul(worker, layer.wq, x, y.data(), kWidth);
    MatMul(worker, layer.wk, x, y.data() + kDim, kWidth);
    MatMul(worker, layer.wv, x, y.data() + kDim + kKv, kWidth);
    worker.Barrier();
    MatMul(worker, layer.wo, x, y.data(), kWidth, Store::kAdd);
    worker.Barrier();
    MatMul(worker, layer.gate, x, y.data(), kWidth);
    MatMul(worker, layer.up, x, y.data() + kFfn, kWidth);
    worker.Barrier();
    MatMul(worker, layer.down, ffn, y.data(), kWidth, Store::kAdd);
    worker.Barrier();
  }

  double Products(const Model& model) const {
    const double in_head = double(kVocab) * kDim;
    return x.rows() * (model.weights - in_head) + head.rows() * in_head;
  }

  static constexpr size_t kWidth = 2 * kFfn + 16, kLogitStride = kVocab + 16;
  ThreadPool pool;
  Activations x, ffn, head;
  Buffer<float> y, logits;
};

double Fastest(const std::vector<double>& times) { return *std::min_element(times.begin(), times.end()); }

// Arguments: rows, threads, Isa.
void BM_ModelMatMuls(benchmark::State& state) {
  const Model& model = TheModel();
  const Isa isa = Isa(state.range(2));
  if (!IsaSupported(isa)) return state.SkipWithError("this processor lacks the instruction set");
  Pass pass(int(state.range(0)), int(state.range(1)), isa);
  for (auto _ : state) pass.Run(model);
  const double passes = double(state.iterations());
  state.counters["GMAC/s"] =
      benchmark::Counter(passes * pass.Products(model) * 1e-9, benchmark::Counter::kIsRate);
  state.counters["GB/s"] =
      benchmark::Counter(passes * double(model.bytes) * 1e-9, benchmark::Counter::kIsRate);
  state.SetLabel(std::string(IsaName(isa)));
}
BENCHMARK(BM_ModelMatMuls)
    ->ArgNames({"rows", "threads", "isa"})
    ->ArgsProduct({{1, 2, 4, 8, 16, 64, 512}, {1, 2}, {int(Isa::kAvx512Vnni)}})
    ->ArgsProduct({{1, 8, 64}, {2}, {int(Isa::kAvx2)}})
    ->Unit(benchmark::kMillisecond)
    ->ComputeStatistics("fastest", Fastest)
    ->UseRealTime();

// Argument: Isa. One row of the model's width.
void BM_QuantizeRow(benchmark::State& state) {
  const Isa isa = Isa(state.range(0));
  if (!IsaSupported(isa)) return state.SkipWithError("this processor lacks the instruction set");
  Activations x = RandomActivations(1, kDim);
  for (auto _ : state) {
    x.QuantizeRow(0, isa);
    benchmark::ClobberMemory();
  }
  state.SetLabel(std::string(IsaName(isa)));
}
BENCHMARK(BM_QuantizeRow)->ArgName("isa")->Arg(int(Isa::kAvx2))->Arg(int(Isa::kAvx512Vnni));

// Packing: the work of loading, one thread. Argument: TensorType.
void BM_Pack(benchmark::State& state) {
  const auto type = TensorType(state.range(0));
  const int n = 1536, k = 576;
  const size_t stride = size_t(k) / InfoOf(type).block_values * InfoOf(type).block_bytes;
  const std::vector<uint8_t> rows(n * stride, 7);
  PackedMatrix matrix(n, k, PackedFormatOf(type));
  for (auto _ : state) {
    for (int row = 0; row < n; row += 16) matrix.SetRowGroup(row / 16, type, &rows[row * stride], stride, 16);
  }
  state.SetBytesProcessed(int64_t(state.iterations()) * int64_t(rows.size()));
  state.SetLabel(std::string(InfoOf(type).name));
}
BENCHMARK(BM_Pack)
    ->ArgName("type")
    ->Arg(int(TensorType::kQ4_1))
    ->Arg(int(TensorType::kQ8_0))
    ->Arg(int(TensorType::kF16));

}  // namespace
}  // namespace dspark
