#pragma once
// The device's memory, and the shared memory of the block that runs. A shadow has a byte for each byte.
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "tests/cuda_on_cpu/emulation.h"

namespace emulation {

inline constexpr std::uint8_t kAllocated = 1, kWritten = 2, kReadable = 4, kWritable = 8;

/// What each access of device code looks at; plain, so that looking is quick.
struct Watch {
  std::uintptr_t memory = 0;  ///< where the device's memory begins
  std::size_t bytes = 0;
  std::uint8_t* shadow = nullptr;
  std::uint64_t read_bits = 0, write_bits = 0;  ///< what a byte's shadow needs, eight times
  bool races = false;
};
extern Watch watch;

/// Of the device's thread that runs on this thread of the host, 0 when none does: others of the host may run instrumented functions meanwhile.
extern constinit thread_local std::uintptr_t device_stack;

/// While it lives, the emulation itself is at work: the linker may have given it instrumented copies of std's functions.
class Inside {
 public:
  Inside() : stack_(device_stack) { device_stack = 0; }
  ~Inside() { device_stack = stack_; }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;

 private:
  std::uintptr_t stack_;
};

/// The first part of the device's memory is for shared memory, since one block runs at a time.
inline constexpr std::size_t kSharedWindow = std::size_t{1} << 20;
inline constexpr std::size_t kMostShared = 227 * 1024, kMostStaticShared = 48 * 1024;

class Memory {
 public:
  Memory();

  void* allocate(std::size_t bytes);  ///< null: not enough
  bool free(void* memory);            ///< false: not allocated
  std::size_t used() const { return used_; }
  bool is_device(const void* memory) const { return reinterpret_cast<std::uintptr_t>(memory) - watch.memory < watch.bytes; }

  void begin_launch(std::size_t dynamic_shared);
  void begin_block();
  void end_launch();
  void* dynamic_shared() const { return at(kDynamic); }
  void* static_shared(const void* key, std::size_t bytes);  ///< null: more than kMostStaticShared
  static bool is_shared(std::size_t offset) { return offset < kSharedWindow; }

  void restrict(std::vector<Range> readable, std::vector<Range> writable, const std::vector<Range>& fresh);
  void permit_all();
  std::size_t count_unwritten(const void* data, std::size_t bytes) const;
  void mark(const void* data, std::size_t bytes, std::uint8_t set, std::uint8_t clear);

  struct Verdict {
    FaultKind kind;
    std::string text;
  };
  /// Whether the shadow allows the access; if it does and writes, it is marked.
  bool allows(const void* data, std::size_t bytes, bool write);
  /// Why not.
  Verdict judge(const void* data, std::size_t bytes, bool write) const;

 private:
  static constexpr std::size_t kDynamic = 64 * 1024, kStatic = 512 * 1024, kGap = 64 * 1024;
  struct Block {
    std::size_t bytes;
    unsigned number;
  };
  struct Shared {
    const void* key;  // null: dynamic
    std::size_t offset, bytes;
  };
  void* at(std::size_t offset) const { return reinterpret_cast<void*>(watch.memory + offset); }
  std::string place(std::size_t offset) const;

  std::map<std::size_t, Block> live_, freed_;  // by offset
  std::size_t next_ = kSharedWindow + kGap, used_ = 0;
  unsigned count_ = 0;
  std::vector<Shared> shared_;
  std::vector<Range> readable_, writable_;
};

extern Memory the_memory;
inline Memory& memory() { return the_memory; }

}  // namespace emulation
