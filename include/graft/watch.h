#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "graft/autodiff.h"
#include "graft/graph.h"
#include "graft/session.h"

/// Watching training by layer: gradient flow and update-to-weight ratios.
namespace graft::report {

/// The layer that a parameter belongs to: its numbered block if its name has one ("model.layers.3.mlp.up_proj.weight" gives
/// "model.layers.3"), else the name without its last part ("model.norm.weight" gives "model.norm").
std::string layer_of(std::string_view parameter);

/// Adds a node a layer, the norm of the gradients of its parameters, √(Σ g²), before any clipping, and makes it the output
/// "gradient_norm/<layer>". Call it with the gradients that the optimizer gets. Returns the layers in the order of their first parameters.
/// The cost is one more pass over the gradients a step.
std::vector<std::string> watch_gradients(Graph& graph, const Gradients& gradients);

/// Reads what watch_gradients added, and how far a step moved the weights. Costs nothing on steps that are not watched.
///
///     if (watched) watch.before_step();
///     session.step();
///     if (watched) for (const auto& layer : watch.after_step()) …
class LayerWatch {
 public:
  /// What a watched step did to one layer.
  struct Layer {
    std::string name;
    double gradient_norm = 0;  ///< of this step, before clipping
    double weight_norm = 0;    ///< ‖w‖ before the step
    double update_norm = 0;    ///< ‖w′ − w‖, what the optimizer really did
    double ratio() const { return weight_norm > 0 ? update_norm / weight_norm : 0; }  ///< about 1e-3 in healthy training
  };

  /// Of the parameters that have a "gradient_norm/…" in the session's graph, which must outlive this. Throws Error when there is none.
  explicit LayerWatch(Session& session);
  /// Copies the weights.
  void before_step();
  /// Throws Error when before_step was not called before the step.
  std::vector<Layer> after_step();
  const std::vector<std::string>& layers() const { return layers_; }

 private:
  Session& session_;
  std::vector<std::string> layers_;
  struct Weights {
    std::string name;
    std::size_t layer = 0;
    std::vector<float> before;
  };
  std::vector<Weights> weights_;
  bool ready_ = false;
};

}  // namespace graft::report
