#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "graft/autodiff.h"
#include "graft/backend.h"
#include "graft/graph.h"

namespace graft {

/// A gradient passes when, for every element (or direction) checked,
///
///     |analytic − numeric| ≤ rtol · max(|analytic|, |numeric|, floor),
///     numeric = (f(x + h·e) − f(x − h·e)) / 2h,  h = step · max(1, |x|),
///     floor = the root mean square of all analytic elements of the same tensor, or 1e-8 · max(1, |f|) / step if that is larger.
///
/// The floor keeps a tensor's tiny elements from being held to a precision that f64 differences do not have. For a direction, |x| is
/// the root mean square of the tensor. What stop_gradient gives is held at its value.
struct GradientCheckOptions {
  double rtol = 1e-6;
  double step = 1e-5;
  /// Tensors of more elements than this are checked along `directions` random unit directions instead of element by element.
  std::int64_t max_elements = 400;
  int directions = 8;
  std::uint64_t seed = 1;
  /// Values of inputs by name. Inputs that are not here get standard normal values; u32 inputs must be here. Parameters and states
  /// keep their Init.
  std::map<std::string, std::vector<double>> inputs;
  /// What to check; default: all parameters and all float inputs.
  std::vector<Value> wrt;
  /// Replaces differentiate(): for tests of the checker.
  std::function<Gradients(Graph&, Value loss, const std::vector<Value>& wrt)> differentiate;
};

struct GradientCheckRow {
  std::string name;
  Shape shape;
  std::int64_t checked = 0;        ///< elements or directions
  bool directions = false;
  std::int64_t worst = 0;          ///< element (row-major) or number of the direction
  double analytic = 0, numeric = 0;
  double error = 0;                ///< of the worst: |analytic − numeric| / max(…) as above
  bool passed = true;
};

struct GradientCheckReport {
  bool passed = true;
  std::vector<GradientCheckRow> rows;
  std::vector<std::string> unreached;  ///< asked for, but no gradient reaches it; a row holds it to 0 if the loss depends on it
  /// A table, one line a tensor: name, shape, worst element, analytic, numeric, relative error.
  std::string to_string() const;
};

/// Checks the gradients of a scalar loss by central differences in f64 on the reference backend. The graph is copied, so
/// record it as usual, in f32. `loss` needs no differentiate call before.
GradientCheckReport gradient_check(const Graph& graph, Value loss, const GradientCheckOptions& options = {});

struct BackendCheckOptions {
  /// On ‖got − want‖ / max(‖want‖, tiny·√n), Frobenius, per output of n elements; u32 must be equal. Of graphs that hold bf16: plus twice the
  /// error of the f64 graph whose values are rounded where this graph's are, and 2⁻⁹, half a unit, where the output is bf16.
  double rtol = 1e-5;
  double tiny = 1e-3;  ///< what is smaller than this, root mean square, is held to rtol·tiny
  std::uint64_t seed = 1;
  std::map<std::string, std::vector<double>> inputs;  ///< as in GradientCheckOptions
};

/// Runs one step of the graph on `backend` (as recorded) and on the reference backend (in f64), from the same inputs and initial
/// values, and compares every output of the graph and every parameter and state that the step changes. The report's rows:
/// analytic = got, numeric = wanted, of the worst element.
GradientCheckReport backend_check(const Graph& graph, Backend& backend, const BackendCheckOptions& options = {});

}  // namespace graft
