// Several processes that train one drafter: c10d's gloo, over TCP.
//
// All of them call the same functions in the same order. When one ends, the others' next call fails with a
// line that says which it was: at once where the connection breaks, after Patience::exchange where a machine
// falls silent.
#pragma once

#include <ATen/core/Tensor.h>

#include <chrono>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "train/process_place.h"

namespace dspark {

struct Patience {
  std::chrono::milliseconds join = std::chrono::minutes(5);       // until all processes are there
  std::chrono::milliseconds exchange = std::chrono::minutes(10);  // until all have come to the same call
  std::chrono::milliseconds inquiry = std::chrono::seconds(5);    // until who is still there has said so
};

class ProcessGroup {
 public:
  // False when this program was built without gloo's headers; Join then fails.
  static bool Available();

  // This process alone: every call below succeeds and changes nothing.
  ProcessGroup();
  // Waits for all. Error: not all came in time, or the store cannot be reached.
  static Result<ProcessGroup> Join(const ProcessPlace& place, const Patience& patience = {});
  ProcessGroup(ProcessGroup&&) noexcept;
  ProcessGroup& operator=(ProcessGroup&&) noexcept;
  ~ProcessGroup();

  int rank() const { return rank_; }
  int world() const { return world_; }
  bool first() const { return rank_ == 0; }

  // Sums over all processes, in place, the same bits in each. Tensors are contiguous and on the CPU.
  Status Sum(const std::vector<at::Tensor>& tensors);
  Status Sum(std::span<double> numbers);
  // The first process's values, in place.
  Status TakeFirsts(const std::vector<at::Tensor>& tensors);
  Status TakeFirsts(std::span<double> numbers);
  // The text that the first process gave under this name, which is used once.
  Result<std::string> FirstsText(const std::string& name, const std::string& text);

  // Before this process ends for a reason that the others shall read.
  void Leave(const std::string& why);

 private:
  struct Links;
  template <class Exchange>
  Status Together(const Exchange& exchange);

  int rank_ = 0, world_ = 1;
  std::unique_ptr<Links> links_;  // null: alone, or left
};

}  // namespace dspark
