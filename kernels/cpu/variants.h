#pragma once
// A portable program holds this folder's kernels several times, compiled for processors of several kinds, and chooses when it runs. Each
// copy is one object file of which the linker sees one function alone (cmake/GraftDispatch.cmake), so that no function of a newer
// processor's copy gets into code that runs everywhere.
#include <memory>
#include <span>
#include <string_view>

#include "graft/backend.h"

namespace graft::cpu {

struct Variant {
  std::string_view name;  ///< as description() has it; empty if there is no other
  bool (*runs)();         ///< whether this processor, and the system, have what it was compiled for
  Backend* (*make)(int threads, std::string_view name);
};

/// What is in this program, the fastest first; the last one runs everywhere. Defined by exactly one of variants_one.cc and
/// variants_x86.cc.
std::span<const Variant> variants();

/// 0 threads: as many as the machine has.
std::unique_ptr<Backend> make_backend(const Variant& variant, int threads);

}  // namespace graft::cpu

/// The backend of the copy that this is linked into; the others' functions get other names after they are compiled.
extern "C" graft::Backend* graft_cpu_backend(int threads, std::string_view name);
