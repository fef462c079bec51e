#include "kernels/reference/kernels.h"
#include "kernels/reference/views.h"
#include "kernels/segments.h"

namespace graft::reference {

// The output is the cache, in[1]: it is written there, also when nothing reads the output.
void run(const CacheWrite& op, const Step& step) {
  const detail::CacheRows cache(op.sequences, step.in, 1, 2);
  with_elements(step.in[0], [&]<class T>() {
    for (std::int64_t s = 0; s < cache.count; ++s) {
      matrix<T>(step.in[1]).middleRows(cache.begin(s) + cache.place[s], cache.rows) =
          const_matrix<T>(step.in[0]).middleRows(s * cache.rows, cache.rows);
    }
  });
}

}  // namespace graft::reference
