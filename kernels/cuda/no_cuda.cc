#include "graft/backend.h"
#include "graft/error.h"

namespace graft {

std::unique_ptr<Backend> cuda_backend() { throw Error("cuda: this build of graft has no CUDA backend"); }

}  // namespace graft
