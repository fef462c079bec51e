#include <algorithm>
#include <string>
#include <thread>

#include "graft/error.h"
#include "kernels/cpu/variants.h"

namespace graft {

std::unique_ptr<Backend> cpu::make_backend(const Variant& variant, int threads) {
  if (threads < 0) throw Error("cpu backend: the number of threads must not be negative, got " + std::to_string(threads));
  if (threads == 0) threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  return std::unique_ptr<Backend>(variant.make(threads, variant.name));
}

std::unique_ptr<Backend> cpu_backend(int threads) {
  const auto all = cpu::variants();
  return cpu::make_backend(*std::find_if(all.begin(), all.end(), [](const cpu::Variant& variant) { return variant.runs(); }), threads);
}

}  // namespace graft
