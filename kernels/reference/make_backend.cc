#include "graft/backend.h"
#include "graft/error.h"

namespace graft {

std::unique_ptr<Backend> make_backend(std::string_view name, int threads) {
  if (name == "reference") return reference_backend();
  if (name == "cpu") return cpu_backend(threads);
  if (name == "cuda") return cuda_backend();
  throw Error("unknown backend \"" + std::string(name) + "\", known: \"reference\", \"cpu\", \"cuda\"");
}

}  // namespace graft
