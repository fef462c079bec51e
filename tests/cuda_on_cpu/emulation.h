#pragma once
// An emulated CUDA device: what tests may ask of it. README.md says what it shows and what it cannot.
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace emulation {

enum class FaultKind : std::uint8_t {
  out_of_bounds,  ///< of an allocation, or of a block's shared memory
  use_after_free,
  misaligned,   ///< an access to an address that is no multiple of its type's alignment
  unwritten,    ///< a read of device or shared memory that nothing has written
  forbidden,    ///< memory that the Access in force does not list
  host_memory,  ///< device code at memory of the host, or host code at memory of the device
  divergence,   ///< a barrier or a warp's call that not all threads reach
  race,         ///< two threads at the same two bytes of shared memory, one of them writing, without a barrier between
};

/// What a kernel, a copy or a product did wrong: which kernel, where in its source, block, thread, address, size.
class Fault : public std::runtime_error {
 public:
  Fault(FaultKind fault_kind, const std::string& text) : std::runtime_error(text), kind(fault_kind) {}
  FaultKind kind;
};

struct Options {
  /// In which order threads run where the program leaves it open, and blocks of a grid. Results may not depend on it.
  enum class Order : std::uint8_t { forward, reverse, shuffled } order = Order::forward;
  std::uint64_t seed = 1;  ///< of shuffled
  bool races = false;      ///< look for races on shared memory
  /// Work runs when somebody waits for it, the latest moment that CUDA allows; otherwise at once.
  bool deferred = true;
  bool locate = true;  ///< reports name the source line, which takes 0.1 s

  std::size_t memory = std::size_t{2} << 30;  ///< of the device, bytes
  int devices = 1, driver = 13000, major = 9, minor = 0, multiprocessors = 3;
  bool has_code = true;  ///< kernels are there for this device's architecture
};

/// The options in force while it lives, and the ones before afterwards. All that was enqueued runs first.
class With {
 public:
  explicit With(const Options& options);
  ~With();
  With(const With&) = delete;
  With& operator=(const With&) = delete;

 private:
  Options before_;
};
const Options& options();

/// Runs all that is enqueued. Throws the Fault that this, or a call whose result nobody has looked at, came upon.
void synchronize();
/// Forgets a fault that nobody has looked at, and what is still enqueued; its report, or "".
std::string forget_fault();

/// Part of the device's memory.
struct Range {
  const void* data = nullptr;
  std::size_t bytes = 0;
  std::string name;
};

/// While it lives, kernels, copies and products may read only `readable` and `writable`, and write only `writable`. What is in `fresh` counts as never
/// written. All that was enqueued runs before. There may be one at a time.
class Access {
 public:
  Access(std::vector<Range> readable, std::vector<Range> writable, const std::vector<Range>& fresh);
  ~Access();
  Access(const Access&) = delete;
  Access& operator=(const Access&) = delete;
};

/// How many bytes of the range nothing has written.
std::size_t unwritten_bytes(const void* data, std::size_t bytes);

/// Threads that ran in kernels so far.
std::uint64_t threads_run();

}  // namespace emulation
