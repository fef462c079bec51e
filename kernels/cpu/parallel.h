#pragma once
// Loops over threads that allocate nothing (with OpenMP) and give the same bits whatever the number of threads: work is cut into
// pieces by its size alone, each piece is computed by one thread, and a kernel that sums over pieces does so in their order.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#ifdef _OPENMP
#include <omp.h>
#else
#include <thread>
#include <vector>
#endif

namespace graft::cpu {

/// Calls body(thread) in `threads` threads at once. Always ask for the same number: OpenMP then keeps its team.
template <class Body>
void parallel_region(int threads, const Body& body) {
  std::exception_ptr error;
  std::atomic_flag failed = ATOMIC_FLAG_INIT;
  const auto guarded = [&](int thread) {
    try {
      body(thread);
    } catch (...) {
      if (!failed.test_and_set()) error = std::current_exception();
    }
  };
#ifdef _OPENMP
#pragma omp parallel num_threads(threads)
  {
    // Fewer threads than asked for (a limit of the machine) still do all the work.
    for (int thread = omp_get_thread_num(); thread < threads; thread += omp_get_num_threads()) guarded(thread);
  }
#else
  std::vector<std::thread> others;
  for (int thread = 1; thread < threads; ++thread) others.emplace_back(guarded, thread);
  guarded(0);
  for (std::thread& other : others) other.join();
#endif
  if (error) std::rethrow_exception(error);
}

/// Calls body(task, thread) for every 0 ≤ task < tasks, the next task going to the next free thread. 0 ≤ thread < threads, for
/// scratch memory.
template <class Body>
void parallel_tasks(int threads, std::int64_t tasks, const Body& body) {
  if (threads == 1 || tasks <= 1) {
    for (std::int64_t task = 0; task < tasks; ++task) body(task, 0);
    return;
  }
  std::atomic<std::int64_t> next{0};
  parallel_region(threads, [&](int thread) {
    for (std::int64_t task; (task = next.fetch_add(1, std::memory_order_relaxed)) < tasks;) body(task, thread);
  });
}

/// Calls body(begin, end) on ranges that make up [0, n), one a thread; each begins at a multiple of `grain`, and one grain or
/// less stays in this thread.
template <class Body>
void parallel_ranges(int threads, std::int64_t n, std::int64_t grain, const Body& body) {
  const std::int64_t grains = (n + grain - 1) / grain;
  if (threads == 1 || grains <= 1) {
    if (n > 0) body(std::int64_t{0}, n);
    return;
  }
  parallel_region(threads, [&](int thread) {
    const std::int64_t begin = grains * thread / threads * grain, end = std::min(n, grains * (thread + 1) / threads * grain);
    if (begin < end) body(begin, end);
  });
}

/// Rows of so many elements each that make a piece of work worth a thread.
inline std::int64_t row_grain(std::int64_t cols) { return std::max<std::int64_t>(1, 8192 / std::max<std::int64_t>(1, cols)); }

}  // namespace graft::cpu
