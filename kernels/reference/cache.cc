#include "kernels/reference/kernels.h"
#include "kernels/reference/views.h"

namespace graft::reference {

// The output is the cache, in[1]: it is written there, also when nothing reads the output.
void run(const CacheWrite&, const Step& step) {
  with_type(step.in[0], [&]<class T>() { matrix<T>(step.in[1]).row(u32_scalar(step.in[2])) = const_matrix<T>(step.in[0]).row(0); });
}

}  // namespace graft::reference
