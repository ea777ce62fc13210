#include "core/thread_pool.h"

#include <immintrin.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <climits>

#include "core/check.h"

namespace dspark {
namespace {

// Longer than nearly every phase of a decode step, shorter than a scheduler's time slice.
constexpr auto kSpinTime = std::chrono::microseconds(60);
// Pauses between two looks at the clock: 1 to 3 µs, as a pause takes 40 to 140 cycles.
constexpr int kPauses = 64;
// A move costs tens of microseconds and the scheduler may undo it.
constexpr auto kTimeBetweenMoves = std::chrono::milliseconds(2);

void FutexWait(std::atomic<uint32_t>& word, uint32_t expected) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAIT_PRIVATE, expected, nullptr, nullptr, 0);
}

void FutexWakeAll(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

}  // namespace

int UsableCores() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  return CPU_COUNT(&set);
}

void Worker::Barrier() {
  if (count_ > 1) pool_->ArriveAndWait(index_);
}

ThreadPool::ThreadPool(int threads, Isa isa)
    : threads_(threads),
      isa_(isa),
      spin_time_(threads <= UsableCores() ? kSpinTime : std::chrono::microseconds(0)),
      seats_(size_t(threads)) {
  DSPARK_CHECK_GE(threads, 1);
  DSPARK_CHECK(IsaSupported(isa));
  for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { Loop(i); });
}

ThreadPool::~ThreadPool() {
  stopping_ = true;
  if (threads_ > 1) ArriveAndWait(0);
  for (auto& worker : workers_) worker.join();
}

void ThreadPool::Run(FunctionRef<void(Worker&)> job) {
  job_ = &job;
  if (threads_ > 1) ArriveAndWait(0);  // the job is published: every worker starts
  Worker self(this, 0, threads_, isa_);
  job(self);
  if (threads_ > 1) ArriveAndWait(0);  // every worker is done
}

void ThreadPool::Loop(int index) {
  Worker self(this, index, threads_, isa_);
  while (true) {
    ArriveAndWait(index);
    if (stopping_) return;
    (*job_)(self);
    ArriveAndWait(index);
  }
}

// A counting barrier: the last to arrive resets the count and moves the phase on. No wake is lost: either the
// last one sees the sleeper counted, or the sleeper sees the new phase (both sides are sequentially
// consistent), and the futex call itself re-checks the phase.
void ThreadPool::ArriveAndWait(int index) {
  const uint32_t phase = phase_.load(std::memory_order_acquire);
  seats_[index].cpu.store(sched_getcpu(), std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == uint32_t(threads_)) {
    arrived_.store(0, std::memory_order_relaxed);
    phase_.store(phase + 1, std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_seq_cst) > 0) FutexWakeAll(phase_);
    return;
  }
  if (SpinUntilPhaseEnds(phase, index)) return;
  sleepers_.fetch_add(1, std::memory_order_seq_cst);
  while (phase_.load(std::memory_order_seq_cst) == phase) FutexWait(phase_, phase);
  sleepers_.fetch_sub(1, std::memory_order_relaxed);
}

// False when the phase outlasts the time worth spinning for.
bool ThreadPool::SpinUntilPhaseEnds(uint32_t phase, int index) {
  Clock::time_point begin;
  for (bool first = true;; first = false) {
    for (int i = 0; i < kPauses; ++i) {
      if (phase_.load(std::memory_order_acquire) != phase) return true;
      _mm_pause();
    }
    const auto now = Clock::now();
    if (first) {
      begin = now;
      LeaveSharedCore(index);
    }
    if (now - begin >= spin_time_) return false;
  }
}

// While two workers take turns on one core, every phase lasts as long as a spin plus two context switches.
// The affinity is narrowed only for the move and restored at once: the scheduler stays free.
void ThreadPool::LeaveSharedCore(int index) {
  const int cpu = sched_getcpu();
  const auto sits_here = [cpu](const Seat& seat) { return seat.cpu.load(std::memory_order_relaxed) == cpu; };
  if (std::none_of(seats_.begin(), seats_.begin() + index, sits_here)) return;
  Seat& seat = seats_[index];
  const auto now = Clock::now();
  if (now - seat.moved < kTimeBetweenMoves) return;
  seat.moved = now;
  cpu_set_t allowed, free;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return;
  free = allowed;
  for (const Seat& other : seats_) {
    const int taken = other.cpu.load(std::memory_order_relaxed);
    if (taken >= 0 && taken < CPU_SETSIZE) CPU_CLR(taken, &free);
  }
  if (CPU_COUNT(&free) == 0) return;
  if (sched_setaffinity(0, sizeof(free), &free) == 0) sched_setaffinity(0, sizeof(allowed), &allowed);
}

}  // namespace dspark
