#include <map>

#include "graft/error.h"
#include "graft/optim.h"

namespace graft::optim {
namespace {

constexpr std::string_view kPrefix = "accumulate/";
constexpr std::string_view kLoss = "accumulate/loss";
constexpr std::string_view kCount = "accumulate/count";

/// Whether the loss is itself a mean, which would weigh micro-batches alike instead of tokens.
bool is_mean(const Op& op) {
  if (const auto* loss = std::get_if<CrossEntropy>(&op)) return loss->reduction == Reduction::mean;
  if (const auto* linear = std::get_if<LinearCrossEntropy>(&op)) return linear->loss.reduction == Reduction::mean;
  if (const auto* reduce = std::get_if<Reduce>(&op)) return reduce->fn == ReduceFn::mean;
  return false;
}

void require_scalar(const Graph& graph, Value value, std::string_view what) {
  const TensorType& type = graph.type(value);
  if (is_float(type.dtype) && type.shape.rank() == 0) return;
  throw Error("accumulate: " + std::string(what) + " must be a float scalar, got " + to_string(type));
}

}  // namespace

void accumulate(Graph& micro, const Gradients& gradients, Value loss_sum, Value counted) {
  require_scalar(micro, loss_sum, "the loss");
  require_scalar(micro, counted, "the count");
  if (micro.type(loss_sum) != micro.type(counted)) {
    throw Error("accumulate: loss and count must have one dtype, got " + to_string(micro.type(loss_sum)) + " and " +
                to_string(micro.type(counted)));
  }
  if (is_mean(micro.node(loss_sum).op)) {
    throw Error("accumulate: the loss \"" + micro.node(loss_sum).name +
                "\" is a mean, must be a sum (Reduction::sum), so that micro-batches weigh every token alike");
  }
  if (micro.find(kLoss)) throw Error("accumulate: the graph accumulates already");
  if (micro.find("optimizer/step")) throw Error("accumulate: the graph has an update, which belongs into accumulated_update");

  const auto add_up = [&](std::string_view what, Value value) {
    const TensorType type = micro.type(value);
    const Value sum = micro.state(std::string(kPrefix) + std::string(what), type.shape, Init::zeros(), type.dtype, false);
    micro.assign(micro.add(sum, value), sum, "accumulated/" + std::string(what));
  };
  bool any = false;
  for (const Gradient& g : gradients.all) {
    const Node& node = micro.node(g.of);
    if (!std::holds_alternative<Parameter>(node.op)) continue;
    const std::string name = node.name;
    if (name == "loss" || name == "count") throw Error("accumulate: a parameter cannot be called \"" + name + "\" here");
    add_up(name, g.gradient);
    any = true;
  }
  if (!any) throw Error("accumulate: the loss reaches no parameter, so there is nothing to accumulate");
  add_up("loss", loss_sum);
  add_up("count", counted);
  micro.advance_rng();
  micro.verify();
}

Graph accumulated_update(const Graph& micro, const std::function<void(Graph&, const Gradients&, Value loss)>& optimizer) {
  if (!micro.find(kLoss)) throw Error("accumulated_update: the graph does not accumulate, call accumulate on it first");

  Graph update(micro.seed());
  std::vector<Value> sums;
  for (const Node& node : micro.nodes()) {
    if (const auto* p = std::get_if<Parameter>(&node.op)) update.parameter(node.name, p->type.shape, p->init, p->type.dtype);
    const auto* s = std::get_if<State>(&node.op);
    if (!s) continue;
    const bool is_sum = node.name.starts_with(kPrefix);
    if (!is_sum && !s->saved) continue;
    const Value state = update.state(node.name, s->type.shape, s->init, s->type.dtype, s->saved);
    if (is_sum) sums.push_back(state);
  }

  const Value count = update.find(kCount);
  const Value loss = update.div(update.find(kLoss), count);
  Gradients gradients;
  for (Value p : update.parameters()) {
    const std::string name = update.node(p).name;
    const Value sum = update.find(std::string(kPrefix) + name);
    if (sum)
      gradients.all.push_back({p, update.binary(BinaryFn::div, sum, count, "gradient/" + name)});
    else
      gradients.unreached.push_back(name);
  }
  update.output("loss", loss);
  optimizer(update, gradients, loss);

  std::map<DType, Value> zeros;
  for (Value sum : sums) {
    const TensorType type = update.type(sum);
    Value& zero = zeros[type.dtype];
    if (!zero) zero = update.constant({}, {0.0}, type.dtype);
    update.assign(update.broadcast(zero, type.shape), sum);
  }
  update.verify();
  return update;
}

}  // namespace graft::optim
