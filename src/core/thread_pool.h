// A pool for one program on many workers (SPMD): a job is a function that every worker runs from start to
// end, with barriers between its phases. A decode step of a small model has about 250 phases of some
// microseconds, so a phase must cost a barrier (well under a microsecond), not a hand-over of closures.
//
// Waiting spins first (the next phase is usually that near), then sleeps on a futex, so that a pool whose
// cores are shared with others neither burns nor stalls them. A pool larger than its cores sleeps almost at
// once. A worker that finds itself on the core of a colleague (schedulers do this when another process is
// busy) moves to a free one.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

#include "core/function_ref.h"
#include "core/isa.h"

namespace dspark {

struct Range {
  int begin = 0, end = 0;
  int size() const { return end - begin; }
};

class ThreadPool;

// One worker's view of a running job. Ops take a Worker& and do this worker's share of the work; every worker
// of the pool calls the same ops in the same order.
class Worker {
 public:
  int index() const { return index_; }
  int count() const { return count_; }
  Isa isa() const { return isa_; }

  // This worker's contiguous share of [0, n) when n is dealt out in units of `grain`.
  Range Share(int n, int grain = 1) const {
    const int64_t units = (n + grain - 1) / grain;
    const int64_t begin = units * index_ / count_ * grain, end = units * (index_ + 1) / count_ * grain;
    return {int(begin < n ? begin : n), int(end < n ? end : n)};
  }

  // Returns when all workers have arrived; what they wrote before is visible to all after.
  void Barrier();

 private:
  friend class ThreadPool;
  Worker(ThreadPool* pool, int index, int count, Isa isa)
      : pool_(pool), index_(index), count_(count), isa_(isa) {}
  ThreadPool* pool_;
  int index_, count_;
  Isa isa_;
};

class ThreadPool {
 public:
  // `threads` ≥ 1 workers in all: the caller of Run is worker 0, the others are threads of the pool.
  explicit ThreadPool(int threads, Isa isa = DetectIsa());
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return threads_; }
  Isa isa() const { return isa_; }

  // Runs `job` once on every worker and returns when all are done. `job` must not throw. Not re-entrant, one
  // caller at a time (from any thread).
  void Run(FunctionRef<void(Worker&)> job);

 private:
  friend class Worker;
  using Clock = std::chrono::steady_clock;
  // Where a worker was last seen running; written by that worker only.
  struct alignas(64) Seat {
    std::atomic<int> cpu{-1};
    Clock::time_point moved;
  };

  void Loop(int index);
  void ArriveAndWait(int index);
  bool SpinUntilPhaseEnds(uint32_t phase, int index);
  void LeaveSharedCore(int index);

  const int threads_;
  const Isa isa_;
  const Clock::duration spin_time_;
  // Plain members: written by Run's caller before a barrier, read by the workers after it.
  const FunctionRef<void(Worker&)>* job_ = nullptr;
  bool stopping_ = false;
  // Each on a cache line of its own: the arrival count is written by all, the phase number read by all.
  alignas(64) std::atomic<uint32_t> arrived_{0};
  alignas(64) std::atomic<uint32_t> phase_{0};
  alignas(64) std::atomic<uint32_t> sleepers_{0};
  std::vector<Seat> seats_;
  std::vector<std::thread> workers_;
};

// Cores this process may run on (its affinity mask): the default of --threads.
int UsableCores();

}  // namespace dspark
