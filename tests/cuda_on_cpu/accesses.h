#pragma once
// The checks behind each access of device code.
#include <cstddef>

#include "tests/cuda_on_cpu/block.h"
#include "tests/cuda_on_cpu/memory.h"

namespace emulation {

/// An access by `thread`; `code`: an address in the kernel, or null. `whole`: bytes that must be aligned to as many.
void check_access(const Thread& thread, const void* data, std::size_t bytes, bool write, bool whole, const void* code = nullptr);
/// The same, of shared memory only.
void check_shared(const Thread& thread, const void* data, std::size_t bytes, bool write);
/// Notes the access, and reports one that races with it.
void check_race(const Thread& thread, const void* data, std::size_t bytes, bool write, const void* code = nullptr);

/// The same of the host's calls: copies and products. Throws Fault, which begins with `who`.
void host_access(const char* who, const void* data, std::size_t bytes, bool write);

}  // namespace emulation
