#pragma once
// Loops over threads that give the same bits whatever the number of threads: work is cut into pieces by its size alone, or so that
// where it is cut does not matter, each piece is computed by one thread, and a kernel that sums over pieces does so in their order.
#include <algorithm>
#include <cstdint>

#include "kernels/cpu/thread_team.h"

namespace graft::cpu {

/// Who runs a loop: a team, or the caller alone.
class Threads {
 public:
  Threads() = default;
  Threads(ThreadTeam& team) : team_(team.size() > 1 ? &team : nullptr) {}
  int count() const { return team_ == nullptr ? 1 : team_->size(); }
  ThreadTeam* team() const { return team_; }  // null: the caller alone

 private:
  ThreadTeam* team_ = nullptr;
};

/// Calls body(task, thread) for every 0 ≤ task < tasks, the next task going to the next free thread. 0 ≤ thread < threads.count(), for
/// scratch memory. A body starts no loop of its own.
template <class Body>
void parallel_tasks(Threads threads, std::int64_t tasks, const Body& body) {
  if (threads.team() != nullptr && tasks > 1) return threads.team()->run(tasks, body);
  for (std::int64_t task = 0; task < tasks; ++task) body(task, 0);
}

/// As parallel_tasks, where neighbouring tasks work on neighbouring memory: each thread has the same share of the tasks in every loop,
/// so that it finds in its cache what it wrote in the one before. It begins with the last of its tasks, and takes those of other shares
/// when it has none left.
template <class Body>
void parallel_near(Threads threads, std::int64_t tasks, const Body& body) {
  if (threads.team() == nullptr || tasks <= 1) return parallel_tasks(threads, tasks, body);
  const std::int64_t count = threads.count();
  ThreadTeam::Share* shares = threads.team()->shares();
  for (std::int64_t i = 0; i < count; ++i) {
    shares[i].begin = tasks * i / count;
    shares[i].left.store(tasks * (i + 1) / count - shares[i].begin, std::memory_order_relaxed);
  }
  threads.team()->run(count, [&](std::int64_t, int thread) {
    for (std::int64_t i = 0; i < count; ++i) {
      ThreadTeam::Share& share = shares[(thread + i) % count];
      while (share.left.load(std::memory_order_relaxed) > 0) {
        const std::int64_t task = share.left.fetch_sub(1, std::memory_order_relaxed) - 1;
        if (task < 0) break;
        body(share.begin + task, thread);
      }
    }
  });
}

/// Calls body(begin, end) on ranges that make up [0, n); each begins at a multiple of `grain`, and one grain or less stays in this
/// thread. Where they begin depends on the number of threads: a body's results must not.
template <class Body>
void parallel_ranges(Threads threads, std::int64_t n, std::int64_t grain, const Body& body) {
  constexpr std::int64_t kShare = 4;  // ranges a thread: one that is slower than another leaves it some
  const std::int64_t grains = (n + grain - 1) / grain, ranges = std::min<std::int64_t>(grains, kShare * threads.count());
  if (ranges <= 1) {
    if (n > 0) body(std::int64_t{0}, n);
    return;
  }
  parallel_near(threads, ranges, [&](std::int64_t range, int) {
    body(grains * range / ranges * grain, std::min(n, grains * (range + 1) / ranges * grain));
  });
}

/// Rows of so many elements each that make a piece of work worth a thread.
inline std::int64_t row_grain(std::int64_t cols) { return std::max<std::int64_t>(1, 8192 / std::max<std::int64_t>(1, cols)); }

}  // namespace graft::cpu
