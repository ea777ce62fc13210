// The seeded tiny Llama, loaded and ready to run: the model behind every test of engine and apps that needs
// no real one.
#pragma once

#include <memory>
#include <optional>

#include "engine/engine.h"
#include "load/model_files.h"
#include "temp_dir.h"
#include "tiny_gguf.h"

namespace dspark::test {

struct TinyModelOptions {
  TinyLlama shape = {};
  uint64_t seed = 1;
  Isa isa = DetectIsa();
  int threads = 2;
  int max_context = 256;
  int block_tokens = 16;
  int blocks = 256;
  int max_rows = 64;
  int max_taps = 0;
  KvType kv_type = KvType::kF16;
  std::optional<WeightFormat> weights = {};
};

struct TinyModel {
  explicit TinyModel(const TinyModelOptions& o = {}) : pool(o.threads, o.isa) {
    auto opened = OpenModel(WriteTinyLlamaGguf(dir.path(), o.seed, o.shape));
    if (!opened) CheckFailed(__FILE__, __LINE__, opened.error().text);
    files = std::move(opened).value();
    auto loaded = LoadTarget(files, pool,
                             {.max_rows = o.max_rows,
                              .max_logit_rows = 64,
                              .max_context = o.max_context,
                              .max_taps = o.max_taps,
                              .block_tokens = o.block_tokens,
                              .kv_type = o.kv_type,
                              .weights = o.weights});
    if (!loaded) CheckFailed(__FILE__, __LINE__, loaded.error().text);
    target = std::move(loaded).value();
    blocks = std::make_unique<BlockPool>(target->kv_layout(), o.blocks);
  }
  int vocab() const { return files.config.vocab; }

  TempDir dir;
  ThreadPool pool;
  ModelFiles files;
  std::unique_ptr<Target> target;
  std::unique_ptr<BlockPool> blocks;
};

// A cost table in which more rows cost next to nothing, so that the planner always speculates.
inline CostTable CheapRows() { return CostTable({{1, 1.0}, {64, 1.01}}); }
// One in which every row costs as much as a step, so that it never does.
inline CostTable DearRows() { return CostTable({{1, 1.0}, {64, 64.0}}); }

}  // namespace dspark::test
