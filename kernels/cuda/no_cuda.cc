#include "graft/backend.h"
#include "graft/error.h"

namespace graft {

std::unique_ptr<Backend> cuda_backend(const CudaOptions&) { throw Error("cuda: this build of graft has no CUDA backend; configure with GRAFT_CUDA=ON, which needs nvcc 12 or newer"); }

}  // namespace graft
