#pragma once
// Tasks that add to the same memory, in an order that no number of threads changes.
#include <atomic>
#include <cstdint>
#include <thread>

namespace graft::cpu {

/// Waits until `progress` is above `step`. Only for what a task that was begun before will do: parallel_tasks begins them in order,
/// so that one which waits, waits for one that runs.
inline void wait_for_turn(const std::int64_t& progress, std::int64_t step) {
  constexpr int kSpins =
      4096;  // some ten microseconds; then the machine is overloaded, and what runs instead may be the other task
  for (int spin = 0; std::atomic_ref(const_cast<std::int64_t&>(progress)).load(std::memory_order_acquire) <= step; ++spin) {
    if (spin >= kSpins) std::this_thread::yield();
#if defined(__SSE2__)
    __builtin_ia32_pause();
#endif
  }
}

inline void end_turn(std::int64_t& progress, std::int64_t steps) {
  std::atomic_ref(progress).store(steps, std::memory_order_release);
}

}  // namespace graft::cpu
