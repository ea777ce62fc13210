#include "core/thread_pool.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <ctime>
#include <memory>
#include <thread>
#include <vector>

namespace dspark {
namespace {

class ThreadPoolTest : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Threads, ThreadPoolTest, testing::Values(1, 2, 3, 4, 8));

TEST_P(ThreadPoolTest, EveryWorkerRunsEveryJobOnce) {
  ThreadPool pool(GetParam());
  ASSERT_EQ(pool.threads(), GetParam());
  std::vector<int> runs(size_t(pool.threads()));  // plain: each worker writes its own, Run publishes them
  for (int job = 1; job <= 300; ++job) {
    pool.Run([&](Worker& worker) {
      EXPECT_EQ(worker.count(), pool.threads());
      EXPECT_EQ(worker.isa(), pool.isa());
      ++runs[size_t(worker.index())];
    });
    for (int count : runs) ASSERT_EQ(count, job);
  }
}

// Each phase reads what all others wrote in the phase before: any worker that runs ahead or behind shows.
TEST_P(ThreadPoolTest, BarriersSeparatePhases) {
  ThreadPool pool(GetParam());
  const int phases = GetParam() <= UsableCores() ? 20000 : 500;
  std::vector<int> value(size_t(pool.threads()));
  std::vector<int> wrong(size_t(pool.threads()));
  pool.Run([&](Worker& worker) {
    const size_t self = size_t(worker.index());
    for (int phase = 1; phase <= phases; ++phase) {
      value[self] = phase;
      worker.Barrier();
      for (int other : value) wrong[self] += other != phase;
      worker.Barrier();
    }
  });
  for (int count : wrong) EXPECT_EQ(count, 0);
}

// Workers that reach a barrier long before the last one sleep, and are woken every time.
TEST_P(ThreadPoolTest, SleepersWake) {
  ThreadPool pool(GetParam());
  int turns = 0;
  for (int round = 0; round < 20; ++round) {
    pool.Run([&](Worker& worker) {
      const int late = round % worker.count();
      if (worker.index() == late) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        ++turns;
      }
      worker.Barrier();
      EXPECT_EQ(turns, round + 1);
    });
    std::this_thread::sleep_for(std::chrono::microseconds(500));  // between jobs, too
  }
  EXPECT_EQ(turns, 20);
}

TEST_P(ThreadPoolTest, StartsAndStopsAtOnce) {
  for (int i = 0; i < 50; ++i) {
    ThreadPool pool(GetParam());
    if (i % 2) pool.Run([](Worker& worker) { worker.Barrier(); });
  }
}

// An idle pool's workers sleep: the process uses next to no processor time.
TEST_P(ThreadPoolTest, IdleWorkersDoNotBurn) {
  ThreadPool pool(GetParam());
  pool.Run([](Worker&) {});
  const auto processor_time = [] {
    timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
  };
  const double before = processor_time();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_LT(processor_time() - before, 0.1);
}

TEST(ThreadPool, RunsForCallersOnDifferentThreads) {
  ThreadPool pool(2);
  int sum = 0;
  for (int i = 0; i < 10; ++i) {
    std::thread([&] {
      pool.Run([&](Worker& worker) {
        if (worker.index() == 1) ++sum;
      });
    }).join();
  }
  EXPECT_EQ(sum, 10);
}

TEST(ThreadPool, LeavesTheAffinityOfItsThreadsAlone) {
  const int cores = UsableCores();
  ThreadPool pool(cores);
  pool.Run([&](Worker& worker) {
    for (int i = 0; i < 2000; ++i) worker.Barrier();
    EXPECT_EQ(UsableCores(), cores);
  });
}

TEST(Worker, SharesCoverExactlyOnceAndRespectTheGrain) {
  for (int threads : {1, 2, 3, 5, 8}) {
    ThreadPool pool(threads);
    for (int n : {0, 1, 2, 7, 16, 17, 100, 1000003}) {
      for (int grain : {1, 4, 16, 100}) {
        std::vector<Range> shares(static_cast<size_t>(threads));
        pool.Run([&](Worker& worker) { shares[size_t(worker.index())] = worker.Share(n, grain); });
        int next = 0;
        for (const Range& share : shares) {
          ASSERT_EQ(share.begin, next);
          ASSERT_GE(share.size(), 0);
          ASSERT_TRUE(share.begin % grain == 0 || share.begin == n);
          ASSERT_LE(share.size(), ((n + grain - 1) / grain / threads + 1) * grain)
              << "one share is much too large";
          next = share.end;
        }
        ASSERT_EQ(next, n);
      }
    }
  }
}

TEST(FunctionRef, CallsWhatItWasMadeFrom) {
  const auto apply = [](FunctionRef<int(int)> f) { return f(21); };
  int calls = 0;
  EXPECT_EQ(apply([&calls](int x) { return ++calls, x + 1; }), 22);
  EXPECT_EQ(calls, 1);
  const auto constant = [](int) { return 5; };
  EXPECT_EQ(apply(constant), 5);
  const FunctionRef<const std::unique_ptr<int>&(std::unique_ptr<int>&)> same =
      [](std::unique_ptr<int>& p) -> const std::unique_ptr<int>& { return p; };
  auto owned = std::make_unique<int>(1);
  EXPECT_EQ(&same(owned), &owned);
}

}  // namespace
}  // namespace dspark
