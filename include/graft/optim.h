#pragma once
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "graft/autodiff.h"
#include "graft/graph.h"

/// Optimizers are graph passes: they add the nodes that clip and apply the gradients, so a step of the session trains.
namespace graft::optim {

/// Settings for the parameters whose name matches; the first group that matches wins. In a pattern, * stands for any characters, ?
/// for one.
struct Group {
  std::string pattern;
  std::optional<double> weight_decay = {};  ///< instead of the optimizer's
  double lr_scale = 1.0;
};

/// No decay on norms, biases and embeddings: "*norm*", "*.ln_*", "*.bias", "*embed*", "*.wte.*", "*.wpe.*".
std::vector<Group> default_groups();

struct UpdateOptions {
  Schedule schedule = {};   ///< see ops.h
  double clip_norm = 0.0;   ///< above 0: gradients are scaled so that their global norm is at most this
  std::vector<Group> groups = default_groups();
  Value loss = {};          ///< if given, a non-finite loss skips the update too
};

struct Sgd { double momentum = 0.0, weight_decay = 0.0; bool nesterov = false; };
struct Adam { double beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0.0; };
struct AdamW { double beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0.01; };
struct Lion { double beta1 = 0.9, beta2 = 0.99, weight_decay = 0.01; };

/// What the update reports; also outputs of the graph: "learning_rate" and "gradient_norm" (before clipping). The states
/// "optimizer/step" and "optimizer/skipped" count the updates done and skipped; an update whose loss or gradient norm is not finite
/// is skipped, and leaves parameters and moments as they were.
struct Update { Value learning_rate, gradient_norm; };

/// Adds the update of every parameter in `gradients`; parameters the loss does not reach are left alone. Moments are the states
/// "optimizer/<slot>/<parameter>" (momentum; exp_avg, exp_avg_sq). Advances `rng/counter` too. Throws Error on nonsense settings
/// (negative rates, betas outside [0, 1), a warm-up longer than the run), naming the setting, on a group that matches nothing
/// unless it is one of default_groups(), and if the graph has an update already.
Update sgd(Graph& graph, const Gradients& gradients, const Sgd& settings, const UpdateOptions& options);
Update adam(Graph& graph, const Gradients& gradients, const Adam& settings, const UpdateOptions& options);
Update adamw(Graph& graph, const Gradients& gradients, const AdamW& settings, const UpdateOptions& options);
Update lion(Graph& graph, const Gradients& gradients, const Lion& settings, const UpdateOptions& options);

/// Gradient accumulation, for the micro-batch's graph: adds the gradients of a *summed* loss, the loss and the number of counted
/// tokens to the states "accumulate/<parameter>", "accumulate/loss", "accumulate/count" (not saved in checkpoints). k micro-batches
/// then weigh every token alike, as one large batch does. The loss must be such a sum (Reduction::sum), not a mean. Advances
/// `rng/counter`: each micro-batch has its own dropout.
void accumulate(Graph& micro, const Gradients& gradients, Value loss_sum, Value counted);
/// The graph that ends the accumulation: the sums divided by the count go to `optimizer` (which calls adamw, say), then are set to
/// zero. Run it in a session that shares the micro-batch session's memory; a snapshot of that session is whole. Output "loss" is
/// the mean loss over counted tokens. Where none was counted, the update is skipped (and counted as skipped).
Graph accumulated_update(const Graph& micro, const std::function<void(Graph&, const Gradients&, Value loss)>& optimizer);

/// The learning rate of 0-based step t: what the LearningRate op computes, on the host.
double learning_rate(const Schedule& schedule, std::int64_t step);
std::string to_string(const Schedule& schedule);

}  // namespace graft::optim
