// The threads that share a loop: every task once, errors, late workers, and one backend that several threads use.
#include "kernels/cpu/thread_team.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

#include "graft/error.h"
#include "graft/session.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/turns.h"
#include "tests/allocations.h"
#include "tests/message.h"

namespace graft::cpu {
namespace {

/// A loop in which each thread of the team takes one task: f(thread) is called in all of them.
template <class F>
void in_each_thread(ThreadTeam& team, const F& f) {
  std::atomic<int> arrived{0};
  team.run(team.size(), [&](std::int64_t, int thread) {
    f(thread);
    ++arrived;
    while (arrived < team.size()) std::this_thread::yield();
  });
}

TEST(ThreadTeam, DoesEachTaskOnceAndNoTwoWithTheSameThreadAtATime) {
  for (const int threads : {1, 2, 5}) {
    ThreadTeam team(threads);
    EXPECT_EQ(team.size(), threads);
    for (const std::int64_t tasks : {0, 1, 2, 3, 5, 100}) {
      std::vector<std::atomic<int>> done(static_cast<std::size_t>(tasks)), busy(static_cast<std::size_t>(threads));
      team.run(tasks, [&](std::int64_t task, int thread) {
        EXPECT_EQ(++busy.at(static_cast<std::size_t>(thread)), 1);
        ++done.at(static_cast<std::size_t>(task));
        --busy[static_cast<std::size_t>(thread)];
      });
      EXPECT_TRUE(std::all_of(done.begin(), done.end(), [](int count) { return count == 1; })) << threads << ", " << tasks;
    }
  }
}

TEST(ThreadTeam, IsAsManyThreadsAsItSays) {
  for (const int threads : {1, 2, 4}) {
    ThreadTeam team(threads);
    std::vector<std::thread::id> ids(static_cast<std::size_t>(threads));
    for (int loop = 0; loop < 3; ++loop)
      in_each_thread(team, [&](int thread) {
        std::thread::id& id = ids[static_cast<std::size_t>(thread)];
        if (loop > 0) {
          EXPECT_EQ(id, std::this_thread::get_id());  // started once
        }
        id = std::this_thread::get_id();
      });
    EXPECT_EQ(std::set(ids.begin(), ids.end()).size(), ids.size());
    EXPECT_EQ(ids[0], std::this_thread::get_id());
  }
}

TEST(ThreadTeam, OneThreadDoesItsTasksInOrder) {
  ThreadTeam team(1);
  std::vector<std::int64_t> order;
  team.run(5, [&](std::int64_t task, int) { order.push_back(task); });
  EXPECT_EQ(order, (std::vector<std::int64_t>{0, 1, 2, 3, 4}));
}

// Loops follow each other so fast that workers are between reading a loop's state and taking a task when it ends; each loop's body and
// results lie where the last one's lay.
TEST(ThreadTeam, ManyShortLoopsEachSeeTheirOwnBody) {
  for (const int threads : {2, 4}) {
    ThreadTeam team(threads);
    for (std::uint64_t loop = 1; loop <= 20000; ++loop) {
      const std::int64_t tasks = 1 + static_cast<std::int64_t>(loop % 7);
      std::uint64_t results[7] = {};
      const std::uint64_t factor = loop * loop;
      team.run(tasks, [&results, factor](std::int64_t task, int) { results[task] += factor + static_cast<std::uint64_t>(task); });
      for (std::int64_t task = 0; task < 7; ++task)
        ASSERT_EQ(results[task], task < tasks ? factor + static_cast<std::uint64_t>(task) : 0) << loop << ", " << task;
    }
  }
}

TEST(ThreadTeam, WakesWorkersThatSleep) {
  ThreadTeam team(3);
  for (int loop = 0; loop < 3; ++loop) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    in_each_thread(team, [](int) {});  // does not end unless all of them come
  }
}

TEST(ThreadTeam, WorkersSleepBetweenLoops) {
  const auto used = [] {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) + 1e-6 * static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
  };
  ThreadTeam team(2);
  in_each_thread(team, [](int) {});
  const double before = used();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_LT(used() - before, 0.1);
}

TEST(ThreadTeam, TheCallerSleepsWhileAnotherThreadIsLong) {
  ThreadTeam team(2);
  std::atomic<bool> ended{false};
  in_each_thread(team, [&](int thread) {
    if (thread == 0) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    ended = true;
  });
  EXPECT_TRUE(ended);
}

// ---- late workers ---------------------------------------------------------------------------------------------------------------------

std::atomic<int> held{0};
std::atomic<bool> release{false};

/// Holds the workers of a team in a signal handler, as if the machine did not schedule them.
class Held {
 public:
  explicit Held(ThreadTeam& team) {
    struct sigaction action = {};
    action.sa_handler = [](int) {
      ++held;
      while (!release) std::this_thread::yield();
      --held;
    };
    sigaction(SIGUSR1, &action, &before_);
    release = false;
    std::vector<pthread_t> ids(static_cast<std::size_t>(team.size()));
    in_each_thread(team, [&](int thread) { ids[static_cast<std::size_t>(thread)] = pthread_self(); });
    for (std::size_t worker = 1; worker < ids.size(); ++worker) pthread_kill(ids[worker], SIGUSR1);
    while (held < team.size() - 1) std::this_thread::yield();
  }
  ~Held() {
    release = true;
    while (held > 0) std::this_thread::yield();
    sigaction(SIGUSR1, &before_, nullptr);
  }

 private:
  struct sigaction before_ = {};
};

TEST(ThreadTeam, ALoopEndsWithoutTheWorkersThatDoNotCome) {
  for (const auto pause : {std::chrono::milliseconds(0), std::chrono::milliseconds(5)}) {  // workers that spin, that sleep
    ThreadTeam team(3);
    in_each_thread(team, [](int) {});
    std::this_thread::sleep_for(pause);
    {
      const Held workers(team);
      for (int loop = 0; loop < 100; ++loop) {
        std::int64_t sum = 0;
        team.run(10, [&](std::int64_t task, int thread) {
          EXPECT_EQ(thread, 0);
          sum += task;
        });
        ASSERT_EQ(sum, 45);
      }
    }
    in_each_thread(team, [](int) {});  // and they come again
  }
}

// ---- errors ----------------------------------------------------------------------------------------------------------------------------

TEST(ThreadTeam, ThrowsWhatTheFirstFailingTaskThrew) {
  for (const int threads : {1, 2, 4}) {
    ThreadTeam team(threads);
    for (int loop = 0; loop < 50; ++loop) {
      std::atomic<int> called{0};
      try {
        team.run(20, [&](std::int64_t task, int) {
          ++called;
          if (task % 8 == 7) throw std::runtime_error("task " + std::to_string(task));
        });
        FAIL() << "no error";
      } catch (const std::runtime_error& error) {
        EXPECT_STREQ(error.what(), "task 7");
      }
      EXPECT_EQ(called, threads == 1 ? 8 : 20);
    }
    std::atomic<int> done{0};
    team.run(20, [&](std::int64_t, int) { ++done; });  // nothing is left of the error
    EXPECT_EQ(done, 20);
  }
}

TEST(ThreadTeam, RefusesALoopInALoop) {
  ThreadTeam team(2);
  EXPECT_THROW(team.run(4, [&](std::int64_t, int) { team.run(4, [](std::int64_t, int) {}); }), InternalError);
  int done = 0;
  team.run(1, [&](std::int64_t, int) { ++done; });
  in_each_thread(team, [](int) {});  // it goes on working
  EXPECT_EQ(done, 1);
}

TEST(ThreadTeam, SaysHowManyThreadsCouldBeStarted) {
  if (!testing::no_allocation_count().empty()) GTEST_SKIP() << "sanitizers want more memory than this test leaves";
  pthread_attr_t large, before;
  pthread_getattr_default_np(&before);
  pthread_getattr_default_np(&large);
  pthread_attr_setstacksize(&large, std::size_t{64} << 20);
  std::size_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  rlimit space = {};
  getrlimit(RLIMIT_AS, &space);
  const rlimit little = {pages * 4096 + (std::size_t{210} << 20), space.rlim_max};  // three such stacks
  pthread_setattr_default_np(&large);
  setrlimit(RLIMIT_AS, &little);
  const std::string message = testing::message_of([] { ThreadTeam team(8); });
  setrlimit(RLIMIT_AS, &space);
  pthread_setattr_default_np(&before);
  EXPECT_EQ(message, "cpu backend: only 4 of 8 threads could be started: Resource temporarily unavailable");
}

// ---- loops ------------------------------------------------------------------------------------------------------------------------------

TEST(Parallel, RangesTakeEachElementOnceAndBeginAtGrains) {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadTeam team(threads);
    for (const std::int64_t n : {0, 1, 63, 64, 65, 1000})
      for (const std::int64_t grain : {1, 64, 5000}) {
        std::vector<std::atomic<int>> taken(static_cast<std::size_t>(n));
        std::atomic<std::int64_t> ranges{0};
        parallel_ranges(team, n, grain, [&](std::int64_t begin, std::int64_t end) {
          EXPECT_EQ(begin % grain, 0);
          ++ranges;
          for (std::int64_t i = begin; i < end; ++i) ++taken[static_cast<std::size_t>(i)];
        });
        EXPECT_TRUE(std::all_of(taken.begin(), taken.end(), [](int count) { return count == 1; })) << threads << ", " << n << ", " << grain;
        const std::int64_t grains = (n + grain - 1) / grain;
        EXPECT_EQ(ranges, std::min<std::int64_t>(grains, 4 * threads)) << n << ", " << grain;
      }
  }
}

TEST(Parallel, WithoutATeamTheCallerDoesAllTasksInOrder) {
  EXPECT_EQ(Threads().count(), 1);
  std::vector<std::int64_t> order;
  parallel_tasks(Threads(), 5, [&](std::int64_t task, int thread) {
    EXPECT_EQ(thread, 0);
    order.push_back(task);
  });
  EXPECT_EQ(order, (std::vector<std::int64_t>{0, 1, 2, 3, 4}));
}

TEST(Parallel, ATeamSharesTasks) {
  ThreadTeam team(2);
  EXPECT_EQ(Threads(team).count(), 2);
  std::atomic<int> arrived{0};
  parallel_tasks(team, 2, [&](std::int64_t, int) {
    ++arrived;
    while (arrived < 2) std::this_thread::yield();  // does not end in one thread
  });
}

// ---- one backend --------------------------------------------------------------------------------------------------------------------------

std::vector<float> trained(Backend& backend, std::uint64_t seed) {
  Graph graph(seed);
  const Value w = graph.parameter("w", {200, 300}, Init::normal(0.0, 1.0)), x = graph.parameter("x", {150, 200}, Init::normal(0.0, 1.0));
  graph.output("y", graph.softmax(graph.matmul(x, w)));
  Session session(graph, backend);
  for (int step = 0; step < 20; ++step) session.step();
  return session.read("y");
}

TEST(Parallel, ATaskMayWaitForOneBeforeIt) {
  for (const int threads : {1, 2, 5}) {
    ThreadTeam team(threads);
    std::vector<int> order;
    std::int64_t done = 0;
    parallel_tasks(team, 100, [&](std::int64_t task, int) {
      wait_for_turn(done, task - 1);
      order.push_back(static_cast<int>(task));
      end_turn(done, task + 1);
    });
    ASSERT_EQ(order.size(), 100u) << threads;
    EXPECT_TRUE(std::is_sorted(order.begin(), order.end())) << threads;
  }
}

TEST(CpuBackend, MayBeUsedByTwoThreads) {
  const auto backend = cpu_backend(2);
  const std::vector<float> first = trained(*backend, 1), second = trained(*backend, 2);
  std::vector<float> beside;
  std::thread other([&] { beside = trained(*backend, 2); });
  EXPECT_EQ(trained(*backend, 1), first);
  other.join();
  EXPECT_EQ(beside, second);
}

std::ptrdiff_t threads_of_this_process() {
  std::filesystem::directory_iterator tasks("/proc/self/task");
  return std::distance(begin(tasks), end(tasks));
}

TEST(CpuBackend, HasNoThreadsButItsTeam) {
  const std::ptrdiff_t before = threads_of_this_process();
  const auto backend = cpu_backend(3);
  Graph graph(1);
  const Value a = graph.parameter("a", {512, 512}, Init::normal(0.0, 1.0));
  graph.output("y", graph.matmul(a, a));
  Session session(graph, *backend);
  for (int step = 0; step < 3; ++step) session.step();
  EXPECT_EQ(threads_of_this_process() - before, 2);  // oneDNN starts none, whatever runtime it was built with
}

}  // namespace
}  // namespace graft::cpu
