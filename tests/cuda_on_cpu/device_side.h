#pragma once
// What emulated device code calls. Kernels see it through the shadow headers in include/ only.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace emulation {

/// Where a call stands in the source. (std::source_location is not in every compiler yet.)
struct Site {
  const char* file = "";
  unsigned line = 0;
  static constexpr Site current(const char* file = __builtin_FILE(), unsigned line = __builtin_LINE()) { return {file, line}; }
};

// The same all the time that a kernel runs for one thread, so the compiler may ask once.
[[gnu::const]] uint3 thread_index() noexcept;
[[gnu::const]] uint3 block_index() noexcept;
[[gnu::const]] uint3 block_shape() noexcept;
[[gnu::const]] uint3 grid_shape() noexcept;

enum class Barrier : std::uint8_t { plain, any, all, count };
/// Waits for all threads of the block.
int barrier(Barrier kind, int predicate, Site site);

/// What the lanes of a mask do together, when all have come to the same call: `arguments` has 32 pointers, those of the mask's lanes set; `first` is the
/// thread of lane 0.
using Together = void (*)(void* const* arguments, unsigned mask, unsigned first);
void together(unsigned mask, const char* name, Together function, void* argument, Site site);

void sync_warp(unsigned mask, Site site);
/// The lanes of the mask whose predicate holds.
unsigned vote(unsigned mask, const char* name, bool predicate, Site site);
unsigned match_any(unsigned mask, std::uint64_t bits, Site site);

enum class Shuffle : std::uint8_t { from, up, down, exclusive_or };
std::uint64_t shuffle_bits(Shuffle kind, unsigned mask, std::uint64_t bits, int parameter, int width, Site site);

template <class T>
std::uint64_t to_bits(T value) {
  static_assert(sizeof(T) <= sizeof(std::uint64_t) && std::is_trivially_copyable_v<T>);
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return bits;
}
template <class T>
T shuffle(Shuffle kind, unsigned mask, T value, int parameter, int width, Site site) {
  const std::uint64_t bits = shuffle_bits(kind, mask, to_bits(value), parameter, width, site);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

/// An access of `bytes` bytes at once by the thread that runs, aligned to as many: checked, and what is written is marked.
void read_access(const void* from, std::size_t bytes);
void write_access(void* to, std::size_t bytes);

/// Static shared memory: the same address for all threads of a launch that ask with the same key.
void* static_shared(const void* key, std::size_t bytes);
void* dynamic_shared();

// ldmatrix: `count` matrices of 8 rows of 16 bytes. mma.sync m16n8k16: d = a·b + d. The fragments' layouts are in kernels/cuda/ptx.cuh.
void load_matrices(std::uint32_t* to, unsigned count, const void* row, bool transposed, Site site);
void multiply_matrices(float* d, const std::uint32_t* a, const std::uint32_t* b, Site site);

// cp.async of 16 bytes. The copy is made when its group is waited for, the latest moment that PTX allows; until then the bytes count as never written.
void copy_async(void* shared, const void* global, bool valid);
void commit_copies();
void wait_for_copies(unsigned newest_left);

}  // namespace emulation
