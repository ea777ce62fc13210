#include "core/thread_pool.h"

#include <immintrin.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/check.h"

namespace dspark {
namespace {

// About 100 µs of spinning: longer than any phase of a decode step, shorter than a scheduler's time slice.
constexpr int kSpins = 2000;

void FutexWait(std::atomic<uint32_t>& word, uint32_t expected) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAIT_PRIVATE, expected, nullptr, nullptr, 0);
}

void FutexWakeAll(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAKE_PRIVATE, INT32_MAX, nullptr, nullptr, 0);
}

}  // namespace

int UsableCores() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  return CPU_COUNT(&set);
}

void Worker::Barrier() {
  if (count_ > 1) pool_->ArriveAndWait();
}

ThreadPool::ThreadPool(int threads, Isa isa) : threads_(threads), isa_(isa) {
  DSPARK_CHECK_GE(threads, 1);
  DSPARK_CHECK(IsaSupported(isa));
  for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { Loop(i); });
}

ThreadPool::~ThreadPool() {
  stopping_ = true;
  if (threads_ > 1) ArriveAndWait();
  for (auto& worker : workers_) worker.join();
}

void ThreadPool::Run(const std::function<void(Worker&)>& job) {
  job_ = &job;
  if (threads_ > 1) ArriveAndWait();  // the job is published: every worker starts
  Worker self(this, 0, threads_, isa_);
  job(self);
  if (threads_ > 1) ArriveAndWait();  // every worker is done
}

void ThreadPool::Loop(int index) {
  Worker self(this, index, threads_, isa_);
  while (true) {
    ArriveAndWait();
    if (stopping_) return;
    (*job_)(self);
    ArriveAndWait();
  }
}

// A counting barrier: the last to arrive resets the count and moves the phase on. A sleeper re-checks the phase
// inside the futex call, so a wake cannot be lost.
void ThreadPool::ArriveAndWait() {
  const uint32_t phase = phase_.load(std::memory_order_acquire);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == uint32_t(threads_)) {
    arrived_.store(0, std::memory_order_relaxed);
    phase_.store(phase + 1, std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_seq_cst) > 0) FutexWakeAll(phase_);
    return;
  }
  for (int i = 0; i < kSpins; ++i) {
    if (phase_.load(std::memory_order_acquire) != phase) return;
    _mm_pause();
  }
  sleepers_.fetch_add(1, std::memory_order_seq_cst);
  while (phase_.load(std::memory_order_seq_cst) == phase) FutexWait(phase_, phase);
  sleepers_.fetch_sub(1, std::memory_order_relaxed);
}

}  // namespace dspark
