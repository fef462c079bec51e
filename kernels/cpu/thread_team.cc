#include "kernels/cpu/thread_team.h"

#include <algorithm>
#include <limits>
#include <string>
#include <system_error>
#include <utility>

#include "graft/error.h"

namespace graft::cpu {
namespace {

/// How long a thread that waits spins before it sleeps: the gaps between the loops of a step are shorter.
constexpr std::chrono::microseconds kSpin{100};

std::uint32_t left(std::uint64_t open) { return static_cast<std::uint32_t>(open); }

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

template <class Ready>
bool ThreadTeam::spin(const Ready& ready) const {
  using Clock = std::chrono::steady_clock;
  for (const auto end = Clock::now() + spin_;;) {
    for (int i = 0; i < 32; ++i) {
      if (ready()) return true;
      pause();
    }
    // It does not yield: on a busy machine that gives away a whole time slice, where this wait is short.
    if (Clock::now() >= end) return false;
  }
}

ThreadTeam::ThreadTeam(int threads) : shares_(static_cast<std::size_t>(threads)) {
  // With more threads than processors one that spins only keeps another from its work.
  if (threads <= static_cast<int>(std::thread::hardware_concurrency())) spin_ = kSpin;
  workers_.reserve(static_cast<std::size_t>(threads - 1));
  try {
    for (int thread = 1; thread < threads; ++thread) workers_.emplace_back(&ThreadTeam::work, this, thread);
  } catch (const std::system_error& error) {
    const std::size_t started = workers_.size() + 1;
    stop();
    throw Error("cpu backend: only " + std::to_string(started) + " of " + std::to_string(threads) +
                " threads could be started: " + error.code().message());
  }
}

ThreadTeam::~ThreadTeam() { stop(); }

void ThreadTeam::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  opened_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadTeam::run(std::int64_t tasks, const void* body, Call call) {
  if (workers_.empty() || tasks <= 1) {
    for (std::int64_t task = 0; task < tasks; ++task) call(body, task, 0);
    return;
  }
  GRAFT_ASSERT(tasks <= std::numeric_limits<std::uint32_t>::max());
  GRAFT_ASSERT(!running_.exchange(true, std::memory_order_acquire));  // one loop at a time
  body_ = body;
  call_ = call;
  tasks_ = static_cast<std::uint32_t>(tasks);
  done_.store(0, std::memory_order_relaxed);
  const std::uint64_t number = (open_.load(std::memory_order_relaxed) >> 32) + 1;
  open_.store(number << 32 | tasks_);
  if (sleepers_.load() > 0) {  // one that is about to sleep has either seen the store above or is counted here
    { const std::lock_guard lock(mutex_); }
    if (tasks_ > workers_.size()) {
      opened_.notify_all();
    } else {
      for (std::uint32_t i = 1; i < tasks_; ++i) opened_.notify_one();
    }
  }
  take_tasks(0);
  await_end();
  const std::exception_ptr error = std::exchange(error_, nullptr);
  running_.store(false, std::memory_order_release);
  if (error) std::rethrow_exception(error);
}

void ThreadTeam::take_tasks(int thread) {
  std::uint32_t taken = 0, all = 0;
  for (;;) {
    std::uint64_t open = open_.load(std::memory_order_acquire);
    while (left(open) > 0 && !open_.compare_exchange_weak(open, open - 1, std::memory_order_acq_rel, std::memory_order_acquire)) {
    }
    if (left(open) == 0) break;
    ++taken;
    all = tasks_;
    try {
      call_(body_, all - left(open), thread);
    } catch (...) {
      failed(all - left(open));
    }
  }
  if (taken == 0) return;
  // From here on the loop may end, and the next one begin.
  if (done_.fetch_add(taken) + taken == all && caller_sleeps_.load()) {
    { const std::lock_guard lock(mutex_); }
    ended_.notify_one();
  }
}

void ThreadTeam::failed(std::uint32_t task) {
  const std::lock_guard lock(mutex_);
  if (error_ && failed_ < task) return;
  error_ = std::current_exception();
  failed_ = task;
}

void ThreadTeam::await_end() {
  const auto ended = [this] { return done_.load() == tasks_; };
  if (spin(ended)) return;
  std::unique_lock lock(mutex_);
  caller_sleeps_ = true;
  ended_.wait(lock, ended);
  caller_sleeps_ = false;
}

bool ThreadTeam::await_tasks() {
  const auto ready = [this] { return left(open_.load()) > 0 || stopped_.load(std::memory_order_relaxed); };
  if (!spin(ready)) {
    std::unique_lock lock(mutex_);
    ++sleepers_;
    opened_.wait(lock, ready);
    --sleepers_;
  }
  return !stopped_;
}

void ThreadTeam::work(int thread) {
  while (await_tasks()) take_tasks(thread);
}

}  // namespace graft::cpu
