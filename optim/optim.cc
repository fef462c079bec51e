#include "graft/optim.h"

#include "graft/error.h"
#include "optim/settings.h"

namespace graft::optim {
namespace {

/// What tells one optimizer from another. The inputs of `op` are p, grad, the moments, step if it reads it, lr, scale.
struct Rule {
  std::string_view name;
  std::vector<std::string> moments;
  double weight_decay = 0.0;
  bool reads_step = false;
  std::function<Op(double weight_decay, double lr_scale)> op;
};

struct Target {
  std::string name;
  Value parameter, gradient;
};

std::vector<Target> targets_of(const Graph& graph, const Gradients& gradients) {
  std::vector<Target> targets;
  for (const Gradient& g : gradients.all) {
    const Node& node = graph.node(g.of);
    if (std::holds_alternative<Parameter>(node.op)) targets.push_back({node.name, g.of, g.gradient});
  }
  return targets;
}

void require_options(const Graph& graph, const Rule& rule, const UpdateOptions& options) {
  detail::require_not_negative(rule.name, "weight_decay", rule.weight_decay);
  detail::require_not_negative(rule.name, "clip_norm", options.clip_norm);
  detail::require_schedule(rule.name, options.schedule);
  std::vector<std::string> names;
  for (Value p : graph.parameters()) names.push_back(graph.node(p).name);
  detail::require_groups(rule.name, options.groups, names);
  if (graph.find("optimizer/step")) throw Error(std::string(rule.name) + ": the graph has an update already");
}

Update apply(Graph& graph, const Gradients& gradients, const Rule& rule, const UpdateOptions& options) {
  require_options(graph, rule, options);
  const std::vector<Target> targets = targets_of(graph, gradients);
  if (targets.empty()) throw Error(std::string(rule.name) + ": the loss reaches no parameter, so there is nothing to update");

  const Value step = graph.state("optimizer/step", {}, Init::zeros(), DType::u32);
  const Value skipped = graph.state("optimizer/skipped", {}, Init::zeros(), DType::u32);
  std::vector<Value> all;
  for (const Target& t : targets) all.push_back(t.gradient);
  const Value norm = graph.record(GlobalNorm{}, std::move(all), "optimizer/gradient_norm");
  std::vector<Value> measured = {norm};
  if (options.loss) measured.push_back(options.loss);
  const Value scale = graph.record(UpdateScale{options.clip_norm}, std::move(measured), "optimizer/scale");
  const Value rate = graph.record(LearningRate{options.schedule, graph.type(norm).dtype}, {step}, "optimizer/learning_rate");

  for (const Target& t : targets) {
    const Group* group = detail::group_of(options.groups, t.name);
    const double weight_decay = group && group->weight_decay ? *group->weight_decay : rule.weight_decay;
    const TensorType type = graph.type(t.parameter);
    std::vector<Value> inputs = {t.parameter, t.gradient};
    for (const std::string& moment : rule.moments)
      inputs.push_back(graph.state("optimizer/" + moment + "/" + t.name, type.shape, Init::zeros(), type.dtype));
    if (rule.reads_step) inputs.push_back(step);
    inputs.push_back(rate);
    inputs.push_back(scale);
    graph.record(rule.op(weight_decay, group ? group->lr_scale : 1.0), std::move(inputs), "update/" + t.name);
  }
  graph.record(CountStep{}, {step, skipped, scale}, "optimizer/count");
  graph.advance_rng();
  graph.output("learning_rate", rate);
  graph.output("gradient_norm", norm);
  graph.verify();
  return {rate, norm};
}

Rule adam_rule(std::string_view name, double beta1, double beta2, double eps, double weight_decay, bool decoupled) {
  detail::require_beta(name, "beta1", beta1);
  detail::require_beta(name, "beta2", beta2);
  detail::require_not_negative(name, "eps", eps);
  detail::require_setting(eps > 0.0, name, "eps", eps, "above 0");
  const auto op = [=](double decay, double lr_scale) { return AdamUpdate{beta1, beta2, eps, decay, lr_scale, decoupled}; };
  return {name, {"exp_avg", "exp_avg_sq"}, weight_decay, true, op};
}

}  // namespace

Update sgd(Graph& graph, const Gradients& gradients, const Sgd& settings, const UpdateOptions& options) {
  detail::require_beta("sgd", "momentum", settings.momentum);
  if (settings.nesterov)
    detail::require_setting(settings.momentum > 0.0, "sgd", "momentum", settings.momentum, "above 0 for nesterov");
  const auto op = [=](double decay, double lr_scale) { return SgdUpdate{settings.momentum, decay, lr_scale, settings.nesterov}; };
  return apply(graph, gradients, {"sgd", {"momentum"}, settings.weight_decay, false, op}, options);
}

Update adam(Graph& graph, const Gradients& gradients, const Adam& s, const UpdateOptions& options) {
  return apply(graph, gradients, adam_rule("adam", s.beta1, s.beta2, s.eps, s.weight_decay, false), options);
}

Update adamw(Graph& graph, const Gradients& gradients, const AdamW& s, const UpdateOptions& options) {
  return apply(graph, gradients, adam_rule("adamw", s.beta1, s.beta2, s.eps, s.weight_decay, true), options);
}

Update lion(Graph& graph, const Gradients& gradients, const Lion& settings, const UpdateOptions& options) {
  detail::require_beta("lion", "beta1", settings.beta1);
  detail::require_beta("lion", "beta2", settings.beta2);
  const auto op = [=](double decay, double lr_scale) { return LionUpdate{settings.beta1, settings.beta2, decay, lr_scale}; };
  return apply(graph, gradients, {"lion", {"momentum"}, settings.weight_decay, false, op}, options);
}

}  // namespace graft::optim
