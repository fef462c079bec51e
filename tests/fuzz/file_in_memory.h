#pragma once
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <span>
#include <string>

#include "graft/error.h"

namespace graft::fuzz {

/// A file in memory, and its name.
struct FileInMemory {
  int descriptor = ::memfd_create("fuzz", MFD_CLOEXEC);
  std::string name = "/proc/self/fd/" + std::to_string(descriptor);
  void set(std::span<const std::byte> bytes) const {
    GRAFT_ASSERT(::ftruncate(descriptor, 0) == 0);
    GRAFT_ASSERT(::pwrite(descriptor, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()));
  }
  ~FileInMemory() { ::close(descriptor); }
};

}  // namespace graft::fuzz
