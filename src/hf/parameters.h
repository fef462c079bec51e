#pragma once
#include <string>
#include <vector>

#include "graft/hf.h"

namespace graft::hf::detail {

/// A parameter of the model that a configuration describes.
struct Parameter {
  std::string name;  ///< here and there
  Shape shape;       ///< here
  bool transposed;   ///< there it is [out, in]
};
std::vector<Parameter> parameters_of(const Config& config);

/// "[4, 3]": the shape there.
std::vector<std::int64_t> stored_shape(const Parameter& parameter);

/// What a session's parameters have wrong for this model, one text each; parameters that the model has not count unless `others_stay`.
std::vector<std::string> misfits(const std::vector<Parameter>& parameters, const Session& session, bool others_stay);

/// "a; b; c".
std::string joined(const std::vector<std::string>& texts);

/// to[c, r] = from[r, c], from [rows, cols].
void transpose(std::span<const float> from, std::int64_t rows, std::int64_t cols, std::span<float> to);

}  // namespace graft::hf::detail
