#pragma once
#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include "graft/backend.h"

namespace graft::detail {

/// How many of these updates of parameters, from the first on, may run at once: none of them reads or writes what another one writes. A parameter may be updated
/// twice, and the gradient of one update may be a state of another.
inline std::size_t independent_updates(std::span<const Step> steps) {
  static thread_local std::vector<std::pair<const void*, std::size_t>> written;  // by which update; kept, as a step allocates nothing
  written.clear();
  for (std::size_t i = 0; i < steps.size(); ++i)
    for (std::size_t state = 0; state < steps[i].out.size(); ++state) written.emplace_back(steps[i].in[state == 0 ? 0 : state + 1].data, i);
  std::sort(written.begin(), written.end());
  std::size_t count = steps.size();
  for (std::size_t i = 0; i < count; ++i)
    for (const TensorView& in : steps[i].in)
      for (auto at = std::lower_bound(written.begin(), written.end(), std::pair(static_cast<const void*>(in.data), std::size_t{0}));
           at != written.end() && at->first == in.data; ++at)
        if (at->second != i) count = std::min(count, std::max(i, at->second));
  return count;
}

}  // namespace graft::detail
