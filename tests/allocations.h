#pragma once
// Counts heap allocations of the whole process: operator new and malloc are replaced in the test program.
#include <string>

namespace graft::testing {

/// Why allocations cannot be counted in this build, "" if they can.
std::string no_allocation_count();

/// Counts while it lives, on all threads. Allocations made by oneDNN itself (a frame of libdnnl on the stack) are left out: its
/// primitives allocate as they like.
class CountAllocations {
 public:
  CountAllocations();
  ~CountAllocations();
  CountAllocations(const CountAllocations&) = delete;
  CountAllocations& operator=(const CountAllocations&) = delete;
  int count() const;
};

}  // namespace graft::testing
