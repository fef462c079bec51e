#include "graft/types.h"

#include "graft/error.h"

namespace graft {

void assertion_failed(const char* expression, const char* file, int line) {
  throw InternalError(std::string("graft: internal error, please report it: ") + expression + " does not hold at " + file + ":" +
                      std::to_string(line));
}

std::string_view to_string(DType dtype) {
  switch (dtype) {
    case DType::f32: return "f32";
    case DType::f64: return "f64";
    case DType::bf16: return "bf16";
    case DType::u32: return "u32";
  }
  GRAFT_ASSERT(!"a dtype");
}

Shape::Shape(std::initializer_list<std::int64_t> dims) {
  std::string text;
  for (std::int64_t d : dims) text += (text.empty() ? "" : ", ") + std::to_string(d);
  if (dims.size() > 2) throw Error("shape: at most 2 dimensions, got [" + text + "]");
  for (std::int64_t d : dims) {
    if (d < 1) throw Error("shape: every dimension must be at least 1, got [" + text + "]");
    dims_[static_cast<std::size_t>(rank_++)] = d;
  }
  if (rank_ == 2 && dims_[0] > INT64_MAX / 16 / dims_[1]) throw Error("shape: too many elements, got [" + text + "]");
}

std::string to_string(const Shape& shape) {
  std::string text = "[";
  for (int i = 0; i < shape.rank(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

std::string to_string(const TensorType& type) { return std::string(to_string(type.dtype)) + to_string(type.shape); }

}  // namespace graft
