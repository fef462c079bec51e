#pragma once
// How a grid runs: its blocks one after the other, the threads of a block as fibers, each until it waits.
#include <cuda_runtime.h>

#include <array>
#include <exception>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/launch.cuh"
#include "tests/cuda_on_cpu/emulation.h"
#include "tests/cuda_on_cpu/fibers.h"

namespace emulation {

inline constexpr unsigned kWarp = 32, kMostThreads = 1024;

/// 16 bytes on their way to shared memory.
struct Copy {
  void* to;
  const void* from;
  bool valid;
  std::uint64_t group;
};

struct Thread {
  enum class State : std::uint8_t { fresh, ready, at_barrier, at_collective, done };
  unsigned number = 0;  // in the block
  uint3 index = {};
  State state = State::fresh;
  Fiber* fiber = nullptr;
  Place place;

  // what it waits at
  const char* call = nullptr;
  Site site;
  unsigned mask = 0;
  Together function = nullptr;
  void* argument = nullptr;

  std::vector<Copy> copies;  // oldest first
  std::uint64_t group = 0;   // that the next commit closes

  // Moments of the lanes of its warp that lie before all that it does from now on; its own is the present one.
  std::array<std::uint32_t, kWarp> seen = {};

  unsigned lane() const { return number % kWarp; }
  unsigned warp() const { return number / kWarp; }
};

/// "(x, y, z)".
std::string text_of(uint3 at);

/// The one multiprocessor.
class Multiprocessor {
 public:
  /// Runs a whole grid. Throws Fault; then what the block had not done is left undone.
  void run(const Call& call, dim3 grid, dim3 block, std::size_t shared);

  bool running() const { return current_ != nullptr; }
  Thread& current() { return *current_; }
  Thread& thread(unsigned number) { return threads_[number]; }
  const Call& call() const { return *call_; }
  uint3 block_index() const { return block_index_; }
  dim3 block_shape() const { return block_; }
  dim3 grid_shape() const { return grid_; }
  std::uint32_t epoch() const { return epoch_; }
  std::uint64_t threads_run() const { return threads_run_; }

  int barrier(Barrier kind, int predicate, Site site);
  void together(unsigned mask, const char* name, Together function, void* argument, Site site);

  /// Ends the block: `who` did what `text` says. `code` is an address in the kernel, or null.
  [[noreturn]] void fail(FaultKind kind, const std::string& text, const Thread& who, const void* code = nullptr);

 private:
  static void fiber_body();
  void run_block();
  void suspend();
  void make_current(Thread& thread);
  Thread* take();
  void push(Thread& thread);
  bool idle() const { return head_ == tail_; }
  [[noreturn]] void leave();
  void diagnose();
  std::string waits_at(const Thread& thread) const;
  std::string report(FaultKind kind, const std::string& text, const Thread& who, const void* code) const;

  const Call* call_ = nullptr;
  dim3 grid_, block_;
  uint3 block_index_ = {};
  std::vector<Thread> threads_;
  std::vector<unsigned> order_;             // of the threads
  std::array<unsigned, kWarp> lane_order_;  // of a warp
  std::mt19937_64 random_;
  Thread* current_ = nullptr;

  std::array<Thread*, kMostThreads> queue_;  // those that can go on; a ring
  unsigned head_ = 0, tail_ = 0;
  unsigned done_ = 0, at_barrier_ = 0;
  int barrier_result_ = 0;
  std::vector<unsigned> arrived_;  // lanes at a collective, a warp each
  std::uint32_t epoch_ = 0;        // counts barriers, over all blocks
  std::uint64_t threads_run_ = 0;

  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber*> free_;
  Place host_;
  std::optional<Fault> fault_;
  std::exception_ptr thrown_;
};

extern Multiprocessor the_multiprocessor;
inline Multiprocessor& multiprocessor() { return the_multiprocessor; }

}  // namespace emulation
