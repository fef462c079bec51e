// What the compiler calls before each access of code built with -fsanitize=thread (and, where an address is no multiple of its type's alignment, with
// -fsanitize=alignment). The runtime libraries of those sanitizers are not linked: these functions are all there is.
#include <cstdint>
#include <cstring>

#include "tests/cuda_on_cpu/accesses.h"

namespace emulation {
namespace {

template <int N>
struct WordOf;
template <>
struct WordOf<1> {
  using Type = std::uint8_t;
};
template <>
struct WordOf<2> {
  using Type = std::uint16_t;
};
template <>
struct WordOf<4> {
  using Type = std::uint32_t;
};
template <>
struct WordOf<8> {
  using Type = std::uint64_t;
};

[[gnu::cold, gnu::noinline]] void look_closer(const void* data, std::size_t bytes, bool write, const void* code) {
  if (device_stack != 0) {
    const Inside inside;
    return check_access(multiprocessor().current(), data, bytes, write, false, code);
  }
  if (!multiprocessor().running() && memory().is_device(data))
    throw Fault(FaultKind::host_memory, "the host touches the device's memory");
}

[[gnu::noinline]] void look_for_races(const void* data, std::size_t bytes, bool write, const void* code) {
  const Inside inside;
  check_race(multiprocessor().current(), data, bytes, write, code);
}

/// Eight bytes of the shadow at once.
template <int N>
inline bool passes(std::uint8_t* shadow, bool write) {
  if constexpr (N == 16) {
    return passes<8>(shadow, write) && passes<8>(shadow + 8, write);
  } else {
    using Word = typename WordOf<N>::Type;
    Word word;
    std::memcpy(&word, shadow, N);
    const auto need = static_cast<Word>(write ? watch.write_bits : watch.read_bits);
    if ((word & need) != need) return false;
    if (write) {
      word |= static_cast<Word>(0x0202020202020202u);
      std::memcpy(shadow, &word, N);
    }
    return true;
  }
}

template <int N>
inline void access(const void* data, bool write, const void* code) {
  if (device_stack == 0) [[unlikely]] {
    if (reinterpret_cast<std::uintptr_t>(data) - watch.memory < watch.bytes) look_closer(data, N, write, code);
    return;
  }
  const auto address = reinterpret_cast<std::uintptr_t>(data);
  if (address - device_stack < Fiber::kStack) return;
  const std::size_t offset = address - watch.memory;
  if (offset < watch.bytes && passes<N>(watch.shadow + offset, write)) {
    if (watch.races && offset < kSharedWindow) look_for_races(data, N, write, code);
    return;
  }
  look_closer(data, N, write, code);
}

void misaligned(const void* code) {
  if (device_stack == 0) return;
  const Inside inside;
  multiprocessor().fail(FaultKind::misaligned, "uses an address that is no multiple of its type's alignment",
                        multiprocessor().current(), code);
}

void atomic(const volatile void* data, std::size_t bytes, const void* code) {
  if (device_stack == 0) return;
  const Inside inside;
  const void* plain = const_cast<const void*>(data);
  const bool races = watch.races;
  watch.races = false;  // atomics do not race with each other
  check_access(multiprocessor().current(), plain, bytes, false, true, code);
  check_access(multiprocessor().current(), plain, bytes, true, true, code);
  watch.races = races;
}

}  // namespace
}  // namespace emulation

#define HERE __builtin_return_address(0)

extern "C" {

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_ignore_thread_begin() {}
void __tsan_ignore_thread_end() {}
void __tsan_vptr_read(void*) {}
void __tsan_vptr_update(void*, void*) {}

#define ACCESSES(N)                                                                      \
  void __tsan_read##N(void* data) { emulation::access<N>(data, false, HERE); }           \
  void __tsan_write##N(void* data) { emulation::access<N>(data, true, HERE); }           \
  void __tsan_unaligned_read##N(void* data) { emulation::access<N>(data, false, HERE); } \
  void __tsan_unaligned_write##N(void* data) { emulation::access<N>(data, true, HERE); } \
  void __tsan_volatile_read##N(void* data) { emulation::access<N>(data, false, HERE); }  \
  void __tsan_volatile_write##N(void* data) { emulation::access<N>(data, true, HERE); }
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)
#undef ACCESSES

void __tsan_read_range(void* data, unsigned long bytes) { emulation::look_closer(data, bytes, false, HERE); }
void __tsan_write_range(void* data, unsigned long bytes) { emulation::look_closer(data, bytes, true, HERE); }
void* __tsan_memcpy(void* to, const void* from, unsigned long bytes) {
  emulation::look_closer(from, bytes, false, HERE);
  emulation::look_closer(to, bytes, true, HERE);
  return std::memcpy(to, from, bytes);
}
void* __tsan_memmove(void* to, const void* from, unsigned long bytes) {
  emulation::look_closer(from, bytes, false, HERE);
  emulation::look_closer(to, bytes, true, HERE);
  return std::memmove(to, from, bytes);
}
void* __tsan_memset(void* to, int value, unsigned long bytes) {
  emulation::look_closer(to, bytes, true, HERE);
  return std::memset(to, value, bytes);
}

#define ATOMICS(BITS, T)                                                                                \
  T __tsan_atomic##BITS##_load(const volatile T* at, int) {                                             \
    emulation::atomic(at, sizeof(T), HERE);                                                             \
    return __atomic_load_n(at, __ATOMIC_SEQ_CST);                                                       \
  }                                                                                                     \
  void __tsan_atomic##BITS##_store(volatile T* at, T value, int) {                                      \
    emulation::atomic(at, sizeof(T), HERE);                                                             \
    __atomic_store_n(at, value, __ATOMIC_SEQ_CST);                                                      \
  }                                                                                                     \
  T __tsan_atomic##BITS##_exchange(volatile T* at, T value, int) {                                      \
    emulation::atomic(at, sizeof(T), HERE);                                                             \
    return __atomic_exchange_n(at, value, __ATOMIC_SEQ_CST);                                            \
  }                                                                                                     \
  T __tsan_atomic##BITS##_fetch_add(volatile T* at, T value, int) {                                     \
    emulation::atomic(at, sizeof(T), HERE);                                                             \
    return __atomic_fetch_add(at, value, __ATOMIC_SEQ_CST);                                             \
  }                                                                                                     \
  T __tsan_atomic##BITS##_fetch_sub(volatile T* at, T value, int) {                                     \
    emulation::atomic(at, sizeof(T), HERE);                                                             \
    return __atomic_fetch_sub(at, value, __ATOMIC_SEQ_CST);                                             \
  }                                                                                                     \
  T __tsan_atomic##BITS##_fetch_or(volatile T* at, T value, int) {                                      \
    emulation::atomic(at, sizeof(T), HERE);                                                             \
    return __atomic_fetch_or(at, value, __ATOMIC_SEQ_CST);                                              \
  }                                                                                                     \
  T __tsan_atomic##BITS##_fetch_and(volatile T* at, T value, int) {                                     \
    emulation::atomic(at, sizeof(T), HERE);                                                             \
    return __atomic_fetch_and(at, value, __ATOMIC_SEQ_CST);                                             \
  }                                                                                                     \
  int __tsan_atomic##BITS##_compare_exchange_strong(volatile T* at, T* expected, T value, int, int) {   \
    emulation::atomic(at, sizeof(T), HERE);                                                             \
    return __atomic_compare_exchange_n(at, expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
  }                                                                                                     \
  int __tsan_atomic##BITS##_compare_exchange_weak(volatile T* at, T* expected, T value, int, int) {     \
    emulation::atomic(at, sizeof(T), HERE);                                                             \
    return __atomic_compare_exchange_n(at, expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
  }                                                                                                     \
  T __tsan_atomic##BITS##_compare_exchange_val(volatile T* at, T expected, T value, int, int) {         \
    emulation::atomic(at, sizeof(T), HERE);                                                             \
    __atomic_compare_exchange_n(at, &expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);       \
    return expected;                                                                                    \
  }
ATOMICS(8, std::uint8_t)
ATOMICS(16, std::uint16_t)
ATOMICS(32, std::uint32_t)
ATOMICS(64, std::uint64_t)
#undef ATOMICS
void __tsan_atomic_thread_fence(int) {}
void __tsan_atomic_signal_fence(int) {}

void __ubsan_handle_type_mismatch_v1(void*, std::uintptr_t) { emulation::misaligned(HERE); }
}
