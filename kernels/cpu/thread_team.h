#pragma once
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace graft::cpu {

/// Threads that share the tasks of a loop. They are started once, and a loop allocates nothing. A loop ends when its tasks are done:
/// a worker that the machine has not scheduled does not hold it up, and finds nothing to do when it comes. Between loops workers
/// spin for a moment and then sleep.
class ThreadTeam {
 public:
  /// Starts threads − 1 workers; the thread that calls `run` is the other one. Throws Error if the system refuses a thread.
  explicit ThreadTeam(int threads);
  ~ThreadTeam();
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

  int size() const { return static_cast<int>(workers_.size()) + 1; }

  /// The tasks of a loop that one thread begins with and others may take when theirs are done; for parallel_near.
  struct alignas(64) Share {
    std::atomic<std::int64_t> left{0};
    std::int64_t begin = 0;
  };
  /// One a thread, for the loop that runs.
  Share* shares() { return shares_.data(); }

  /// Calls body(task, thread) for every 0 ≤ task < tasks, the next task going to the next free thread; 0 ≤ thread < size(), and no two
  /// calls with the same `thread` overlap. All tasks are done, or called at least, when it returns; then it throws what the first task
  /// that threw has thrown. One loop at a time: neither from a body nor from two threads.
  template <class Body>
  void run(std::int64_t tasks, const Body& body) {
    run(tasks, &body, [](const void* b, std::int64_t task, int thread) { (*static_cast<const Body*>(b))(task, thread); });
  }

 private:
  using Call = void (*)(const void* body, std::int64_t task, int thread);

  void run(std::int64_t tasks, const void* body, Call call);
  void work(int thread);
  bool await_tasks();
  void take_tasks(int thread);
  void await_end();
  void stop();
  void failed(std::uint32_t task);
  template <class Ready>
  bool spin(const Ready& ready) const;

  /// The loop's number in the upper half, how many of its tasks nobody has taken in the lower. A thread takes a task by counting
  /// down; one that comes late finds 0, or fails because the number has changed. Only who has taken a task, which is to be done before
  /// the loop can end, may read the loop.
  alignas(64) std::atomic<std::uint64_t> open_{0};
  alignas(64) std::atomic<std::uint32_t> done_{0};

  // the loop
  alignas(64) const void* body_ = nullptr;
  Call call_ = nullptr;
  std::uint32_t tasks_ = 0;

  std::atomic<bool> running_{false}, stopped_{false};
  std::mutex mutex_;
  std::condition_variable opened_, ended_;
  std::atomic<int> sleepers_{0};          // workers that wait for opened_
  std::atomic<bool> caller_sleeps_{false};
  std::exception_ptr error_;              // of task failed_, guarded by mutex_
  std::uint32_t failed_ = 0;
  std::chrono::microseconds spin_{};
  std::vector<Share> shares_;
  std::vector<std::thread> workers_;
};

}  // namespace graft::cpu
