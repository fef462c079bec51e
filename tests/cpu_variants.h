#pragma once
// The cpu backends that this program holds and this processor runs: one in a native build, up to three in a portable one.
#include <memory>
#include <ostream>
#include <vector>

#include "kernels/cpu/variants.h"

namespace graft::cpu {

inline std::ostream& operator<<(std::ostream& out, const Variant& variant) { return out << '"' << variant.name << '"'; }

}  // namespace graft::cpu

namespace graft::testing {

inline std::vector<cpu::Variant> cpu_variants() {
  std::vector<cpu::Variant> all;
  for (const cpu::Variant& variant : cpu::variants())
    if (variant.runs()) all.push_back(variant);
  return all;
}

inline std::vector<std::unique_ptr<Backend>> cpu_backends(int threads) {
  std::vector<std::unique_ptr<Backend>> all;
  for (const cpu::Variant& variant : cpu_variants()) all.push_back(cpu::make_backend(variant, threads));
  return all;
}

}  // namespace graft::testing
