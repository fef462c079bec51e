#include "graft/checkpoint.h"

#include <algorithm>

#include "graft/error.h"
#include "src/util.h"

namespace graft {

const SavedTensor& Checkpoint::at(std::string_view path) const {
  const auto found =
      std::find_if(tensors.begin(), tensors.end(), [path](const SavedTensor& tensor) { return tensor.path == path; });
  if (found != tensors.end()) return *found;
  std::vector<std::string> known;
  for (const SavedTensor& tensor : tensors) known.push_back(tensor.path);
  throw Error("checkpoint of step " + std::to_string(step) + ": no tensor \"" + std::string(path) + "\"" + names_near(path, known));
}

bool Checkpoint::contains(std::string_view path) const {
  return std::any_of(tensors.begin(), tensors.end(), [path](const SavedTensor& tensor) { return tensor.path == path; });
}

}  // namespace graft
