#include "kernels/cpu/variants.h"

// The names and the instructions are those of cmake/GraftDispatch.cmake.
extern "C" graft::Backend* graft_cpu_backend_avx2(int threads, std::string_view name);
extern "C" graft::Backend* graft_cpu_backend_avx512(int threads, std::string_view name);

namespace graft::cpu {
namespace {

bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
         __builtin_cpu_supports("bmi2");
}
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

}  // namespace

std::span<const Variant> variants() {
  static constexpr Variant kAll[] = {{"AVX-512", has_avx512, graft_cpu_backend_avx512},
                                     {"AVX2", has_avx2, graft_cpu_backend_avx2},
                                     {"SSE2", [] { return true; }, graft_cpu_backend}};
  return kAll;
}

}  // namespace graft::cpu
