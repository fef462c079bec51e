#include "graft/gradient_check.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "autodiff/checks.h"
#include "autodiff/names.h"
#include "graft/error.h"
#include "graft/session.h"

namespace graft {
namespace {

using detail::value_name;
using Values = std::vector<double>;

constexpr const char* kLoss = "gradient_check/loss";

/// Values that a session can write: moving one needs no change of the graph.
bool is_writable(const Op& op) {
  return std::holds_alternative<Input>(op) || std::holds_alternative<Parameter>(op) || std::holds_alternative<State>(op);
}

/// The part of a graph that some values depend on, recorded anew: what comes after, an optimizer's update say, must not run.
struct Part {
  Graph graph;
  std::map<Value, Value> image;  ///< old value → new one

  Value operator[](Value v) const { return image.at(v); }
};

/// How the part that finite differences run on differs: values that are held are inputs, values that are moved get an input added.
struct Changes {
  std::set<Value> held, moved;
};

std::string held_name(const Graph& graph, Value v) { return "gradient_check/held:" + value_name(graph, v); }
std::string moved_name(const Graph& graph, Value v) { return "gradient_check/moved:" + value_name(graph, v); }

Part part_of(const Graph& whole, const std::vector<Value>& targets, const Changes& changes) {
  const auto& nodes = whole.nodes();
  std::vector<bool> needed(nodes.size());
  for (Value v : targets) needed[static_cast<std::size_t>(v.node)] = true;
  for (std::size_t n = nodes.size(); n-- > 0;) {
    if (!needed[n] || changes.held.contains({static_cast<std::int32_t>(n), 0})) continue;
    for (Value v : nodes[n].inputs) needed[static_cast<std::size_t>(v.node)] = true;
  }
  Part part{Graph(whole.seed()), {}};
  for (std::size_t n = 0; n < nodes.size(); ++n) {
    if (!needed[n]) continue;
    const Node& node = nodes[n];
    const Value first{static_cast<std::int32_t>(n), 0};
    Value made;
    if (changes.held.contains(first)) {
      made = part.graph.record(Input{node.outputs[0]}, {}, held_name(whole, first));
    } else {
      std::vector<Value> inputs;
      for (Value v : node.inputs) inputs.push_back(part[v]);
      made = part.graph.record(node.op, inputs, node.name);
    }
    for (std::int32_t slot = 0; slot < static_cast<std::int32_t>(node.outputs.size()); ++slot) {
      const Value old{first.node, slot};
      Value fresh{made.node, slot};
      if (changes.moved.contains(old)) {
        const Value move = part.graph.record(Input{node.outputs[static_cast<std::size_t>(slot)]}, {}, moved_name(whole, old));
        fresh = part.graph.binary(BinaryFn::add, fresh, move, moved_name(whole, old) + " + it");
      }
      part.image[old] = fresh;
    }
  }
  return part;
}

/// The loss as a function of its sources, in a session of its own that computes no gradients.
class Numeric {
 public:
  Numeric(const Graph& graph, std::string loss_name, Backend& backend)
      : graph_(graph), loss_name_(std::move(loss_name)), session_(graph, backend) {
    for (const Node& node : graph.nodes()) has_state_ |= std::holds_alternative<State>(node.op);
  }

  Session& session() { return session_; }

  /// Central difference along `direction`, h to either side of x; 0 when the loss does not depend on `source`.
  double slope(const std::string& source, const Values& x, const Values& direction, double h, const std::string& what) {
    return graph_.find(source) ? (moved(source, x, direction, h, what) - moved(source, x, direction, -h, what)) / (2.0 * h) : 0.0;
  }

  void put_back(const std::string& source, const Values& x) {
    if (graph_.find(source)) session_.write(source, x);
  }

 private:
  double moved(const std::string& source, Values x, const Values& direction, double h, const std::string& what) {
    if (has_state_) session_.reset();  // a step may overwrite states and parameters
    for (std::size_t i = 0; i < x.size(); ++i) x[i] += h * direction[i];
    session_.write(source, x);
    session_.step();
    const double loss = session_.scalar(kLoss);
    if (!std::isfinite(loss))
      throw Error("gradient_check \"" + loss_name_ + "\": the loss is " + std::to_string(loss) + " when " + what + " moves by " +
                  std::to_string(h) + ", choose inputs that keep it finite");
    return loss;
  }

  const Graph& graph_;
  std::string loss_name_;
  Session session_;
  bool has_state_ = false;
};

/// One tensor to check.
struct Subject {
  std::string name, source;  ///< source: what the numeric session writes
  Shape shape;
  Values x;       ///< where the slope is taken
  Values origin;  ///< what the source holds there: x, or zeros for an added input
  Values analytic;
};

double rms(const Values& values) {
  double sum = 0.0;
  for (const double v : values) sum += v * v;
  return std::sqrt(sum / static_cast<double>(values.size()));
}

Values unit_direction(std::uint64_t seed, const std::string& name, int k, std::size_t size) {
  Values direction = detail::normal_values(seed, name, 1 + static_cast<std::uint32_t>(k), static_cast<std::int64_t>(size));
  const double norm = rms(direction) * std::sqrt(static_cast<double>(size));
  for (double& d : direction) d /= norm;
  return direction;
}

GradientCheckRow check(const Subject& subject, Numeric& numeric, double loss, const GradientCheckOptions& options) {
  const std::int64_t size = subject.shape.size();
  GradientCheckRow row;
  row.name = subject.name;
  row.shape = subject.shape;
  row.directions = size > options.max_elements;
  row.checked = row.directions ? options.directions : size;
  row.error = -1.0;
  const double resolution = 1e-8 * std::max(1.0, std::abs(loss)) / options.step, scale = rms(subject.analytic);
  const double floor = scale > resolution ? scale : resolution;  // NaN is not larger
  Values direction(subject.x.size(), 0.0);
  for (std::int64_t k = 0; k < row.checked; ++k) {
    const auto i = static_cast<std::size_t>(k);
    double x = 0.0, analytic = 0.0;
    std::string what = "\"" + subject.name + "\"";
    if (row.directions) {
      direction = unit_direction(options.seed, subject.name, static_cast<int>(k), subject.x.size());
      x = rms(subject.x);
      for (std::size_t j = 0; j < direction.size(); ++j) analytic += subject.analytic[j] * direction[j];
    } else {
      direction[i] = 1.0;
      x = subject.x[i];
      analytic = subject.analytic[i];
      what = "element " + detail::element_name(subject.shape, k) + " of " + what;
    }
    const double slope = numeric.slope(subject.source, subject.origin, direction, options.step * std::max(1.0, std::abs(x)), what);
    if (!row.directions) direction[i] = 0.0;
    double error = std::abs(analytic - slope) / std::max({std::abs(analytic), std::abs(slope), floor});
    if (!std::isfinite(analytic) || std::isnan(error)) error = std::numeric_limits<double>::infinity();
    if (error > row.error) {
      row.error = error;
      row.worst = k;
      row.analytic = analytic;
      row.numeric = slope;
    }
  }
  numeric.put_back(subject.source, subject.origin);
  row.passed = row.error <= options.rtol;
  return row;
}

void require_options(const Graph& graph, Value loss, const GradientCheckOptions& options) {
  const TensorType& type = graph.type(loss);
  const std::string who = "gradient_check \"" + value_name(graph, loss) + "\": ";
  if (!is_float(type.dtype) || type.shape.rank() != 0)
    throw Error(who + "the loss must be a float scalar [], got " + to_string(type));
  if (!(options.step > 0.0)) throw Error(who + "step must be positive, got " + std::to_string(options.step));
  if (!(options.rtol > 0.0)) throw Error(who + "rtol must be positive, got " + std::to_string(options.rtol));
  if (options.directions < 1) throw Error(who + "directions must be at least 1, got " + std::to_string(options.directions));
}

std::vector<Value> asked_for(const Graph& graph, Value loss, const GradientCheckOptions& options) {
  std::vector<Value> wrt = options.wrt;
  for (std::int32_t n = 0; options.wrt.empty() && n < static_cast<std::int32_t>(graph.nodes().size()); ++n) {
    const Node& node = graph.node({n, 0});
    if (std::holds_alternative<Parameter>(node.op) || (std::holds_alternative<Input>(node.op) && is_float(node.outputs[0].dtype)))
      wrt.push_back({n, 0});
  }
  const std::string who = "gradient_check \"" + value_name(graph, loss) + "\": ";
  if (wrt.empty()) throw Error(who + "the graph has no parameter and no float input to check");
  for (Value w : wrt)
    if (!is_float(graph.type(w).dtype))
      throw Error(who + "only float values have gradients, got \"" + value_name(graph, w) + "\", " + to_string(graph.type(w)));
  return wrt;
}

}  // namespace

GradientCheckReport gradient_check(const Graph& graph, Value loss, const GradientCheckOptions& options) {
  require_options(graph, loss, options);
  const std::string loss_name = value_name(graph, loss), who = "gradient_check \"" + loss_name + "\"";
  detail::require_inputs_exist(graph, options.inputs, who);
  const std::vector<Value> wrt = asked_for(graph, loss, options);
  const Graph wide = graph.to_f64();
  const std::unique_ptr<Backend> backend = reference_backend();

  // Analytic: one step of the loss, its gradients, and what the differences hold or move.
  std::vector<Value> targets = wrt;
  targets.push_back(loss);
  Part part = part_of(wide, targets, {});
  Changes changes;
  for (const auto& [old, fresh] : part.image)
    if (std::holds_alternative<StopGradient>(wide.node(old).op) && is_float(wide.type(old).dtype)) changes.held.insert(old);
  for (Value w : wrt)
    if (!is_writable(wide.node(w).op)) changes.moved.insert(w);
  std::vector<Value> mapped;
  for (Value w : wrt) mapped.push_back(part[w]);
  const Gradients gradients =
      options.differentiate ? options.differentiate(part.graph, part[loss], mapped) : differentiate(part.graph, part[loss], mapped);

  std::map<Value, std::string> readable;  // value of the part → output
  const auto keep = [&](Value v) {
    const auto [it, fresh] = readable.emplace(v, "gradient_check/" + std::to_string(readable.size()));
    if (fresh) part.graph.output(it->second, v);
  };
  keep(part[loss]);
  for (Value v : changes.held) keep(part[v]);
  for (Value v : changes.moved) keep(part[v]);
  for (const Gradient& g : gradients.all) keep(g.gradient);
  Session session(part.graph, *backend);
  detail::write_inputs(session, part.graph, options.inputs, options.seed, who);
  std::map<Value, Values> initial;  // of sources, which the step may overwrite
  for (Value w : wrt)
    if (is_writable(wide.node(w).op)) initial[w] = session.read_f64(wide.node(w).name);
  session.step();
  const auto value_of = [&](Value v) { return session.read_f64(readable.at(v)); };
  const double f = value_of(part[loss])[0];
  if (!std::isfinite(f))
    throw Error(who + ": the loss is " + std::to_string(f) +
                " where the check starts, choose inputs and initial values that keep it finite");

  Part plain = part_of(wide, {loss}, changes);
  plain.graph.output(kLoss, plain[loss]);
  Numeric numeric(plain.graph, loss_name, *backend);
  detail::InputValues inputs = options.inputs;
  for (Value v : changes.held) inputs[held_name(wide, v)] = value_of(part[v]);
  for (Value v : changes.moved) inputs[moved_name(wide, v)] = Values(static_cast<std::size_t>(wide.shape(v).size()), 0.0);
  detail::write_inputs(numeric.session(), plain.graph, inputs, options.seed, who);

  GradientCheckReport report;
  for (std::size_t i = 0; i < wrt.size(); ++i) {
    const Value w = wrt[i];
    Subject subject{value_name(wide, w), wide.node(w).name, wide.shape(w), {}, {}, {}};
    const auto it = std::find_if(gradients.all.begin(), gradients.all.end(), [&](const Gradient& g) { return g.of == mapped[i]; });
    if (it == gradients.all.end()) {
      report.unreached.push_back(subject.name);
      if (!plain.image.contains(w)) continue;
      subject.analytic.assign(static_cast<std::size_t>(subject.shape.size()), 0.0);
    } else {
      if (part.graph.type(it->gradient) != part.graph.type(mapped[i]))
        throw Error(who + ": the gradient of \"" + subject.name + "\" has another type, got " +
                    to_string(part.graph.type(it->gradient)) + " and " + to_string(part.graph.type(mapped[i])));
      subject.analytic = value_of(it->gradient);
    }
    if (changes.moved.contains(w)) {
      subject.source = moved_name(wide, w);
      subject.x = value_of(part[w]);
      subject.origin.assign(subject.x.size(), 0.0);
    } else {
      subject.x = subject.origin = initial.at(w);
    }
    report.rows.push_back(check(subject, numeric, f, options));
    report.passed = report.passed && report.rows.back().passed;
  }
  return report;
}

}  // namespace graft
