// A loaded model with everything that runs it: what the commands and the library start from.
#pragma once

#include <memory>
#include <string>

#include "api/draft_source.h"
#include "engine/engine.h"
#include "load/chat_template.h"
#include "load/model_files.h"

namespace dspark {

struct SessionOptions {
  std::string model;       // as ResolveModel takes it
  bool keep_costs = true;  // what passes cost is read from the user's cache, and kept there
  DraftOptions draft;
  int context = 0;                    // 0: the model's own, at most 8192
  int threads = 0;                    // 0: the cores this process may use
  std::string isa;                    // empty: the best this processor has
  std::string kv = "f16";             // what K and V are kept in: f16 or f32
  std::string weights;                // f32, bf16, int8 or int4; empty: as in the file
  int sequences = 1;                  // decoding at once
  int kv_tokens = 0;                  // of the KV pool; 0: the context of every sequence
  RoundObserver* observer = nullptr;  // as EngineOptions
  int taps = 0;                       // layers that can be tapped at least, for drafters made later
  int logit_rows = 64;                // rows with logits of one pass, at least
};

struct Session {
  // Opens, plans, packs and (once per machine and model) measures. Error: one line.
  static Result<std::unique_ptr<Session>> Open(const SessionOptions& options);
  ~Session();  // keeps what the steps taught about costs

  std::string model_path;
  ModelFiles files;
  std::unique_ptr<ThreadPool> pool;
  std::unique_ptr<Target> target;
  std::unique_ptr<BlockPool> blocks;
  std::unique_ptr<Drafter> drafter;  // null when plain
  std::string drafter_names;         // as -md would name what proposes; none
  std::unique_ptr<Engine> engine;
  std::string cost_path;  // where the cost table is kept; empty when none is in use
  double load_ms = 0;
};

// What passes cost with this session's model on this machine: from the user's cache, else measured and kept
// there.
CostTable SessionCosts(Session& session);

// The path that -m means: a file or directory, else a model that `dspark pull` gets, by its name; empty: the
// default model. Error: there is no such file, or the model is not pulled yet.
Result<std::string> ResolveModel(const std::string& model);

// Values of --isa and --kv. Error: an unknown name, or what this processor does not have.
Result<Isa> ResolveIsa(const std::string& name);
Result<KvType> ResolveKv(const std::string& name);

}  // namespace dspark
