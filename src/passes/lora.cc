#include "graft/lora.h"

#include <cmath>
#include <map>
#include <set>

#include "graft/error.h"

namespace graft {
namespace {

constexpr std::string_view kWeight = ".weight";

/// "…q_proj" of "…q_proj.weight", "" of other names.
std::string module_of(std::string_view parameter) {
  return parameter.ends_with(kWeight) ? std::string(parameter.substr(0, parameter.size() - kWeight.size())) : std::string();
}

bool names(std::string_view target, std::string_view module) {
  return module == target || (module.ends_with(target) && module[module.size() - target.size() - 1] == '.');
}

std::string a_of(const std::string& module) { return module + ".lora_A.weight"; }
std::string b_of(const std::string& module) { return module + ".lora_B.weight"; }

/// The module whose weight a node multiplies with, "" if it is no product x·W.
std::string module_of(const Graph& graph, const Node& node) {
  const auto* product = std::get_if<MatMul>(&node.op);
  if (product == nullptr || product->transpose_a || product->transpose_b) return {};
  const Node& weight = graph.node(node.inputs[1]);
  return std::holds_alternative<Parameter>(weight.op) ? module_of(weight.name) : std::string();
}

void check(const Graph& graph, const LoraOptions& options) {
  const auto require = [](bool condition, const std::string& what) {
    if (!condition) throw Error("lora: " + what);
  };
  require(options.rank >= 1, "rank is " + std::to_string(options.rank) + ", must be at least 1");
  require(options.alpha > 0.0 && std::isfinite(options.alpha),
          "alpha is " + std::to_string(options.alpha) + ", must be finite and above 0");
  require(options.dropout >= 0.0 && options.dropout < 1.0, "dropout is " + std::to_string(options.dropout) + ", must be in [0, 1)");
  require(!options.targets.empty(), "there are no targets");
  std::set<std::string> modules, last_parts;
  for (const Node& node : graph.nodes())
    if (const std::string module = module_of(graph, node); !module.empty()) {
      modules.insert(module);
      last_parts.insert(module.substr(module.rfind('.') + 1));
    }
  for (const std::string& target : options.targets) {
    bool found = false;
    for (const std::string& module : modules) found |= names(target, module);
    std::string there;
    for (const std::string& part : last_parts) there += (there.empty() ? "" : ", ") + part;
    require(found, "target \"" + target + "\" names no product's weight, there are: " + (there.empty() ? "none" : there));
  }
}

}  // namespace

namespace passes {

Graph lora(const Graph& graph, const LoraOptions& options) {
  check(graph, options);
  Graph adapted(graph.seed());
  std::vector<Value> now(graph.nodes().size());  // slot 0 of each node of the new graph
  std::map<std::string, std::pair<Value, Value>> adapters;
  std::uint32_t dropouts = 0x6c6f7261;  // streams apart from those of the graph's own dropouts
  const auto dropped = [&](Value x) {
    if (options.dropout == 0.0) return x;
    Value counter = adapted.find("rng/counter");
    if (!counter) counter = adapted.state("rng/counter", {}, Init::zeros(), DType::u32);
    return adapted.record(Dropout{options.dropout, graph.seed(), dropouts++}, {x, counter});
  };
  const auto adapt = [&](const Node& node, Value product, const std::string& module) {
    const Shape& shape = graph.shape(node.inputs[1]);
    if (options.rank > std::min(shape.rows(), shape.cols()))
      throw Error("lora: rank is " + std::to_string(options.rank) + ", more than \"" + module + ".weight\" " + to_string(shape) +
                  " can have");
    auto& [a, b] = adapters[module];
    if (!a) {
      const double bound = 1.0 / std::sqrt(static_cast<double>(shape.rows()));
      a = adapted.parameter(a_of(module), {shape.rows(), options.rank}, Init::uniform(-bound, bound));
      b = adapted.parameter(b_of(module), {options.rank, shape.cols()}, Init::zeros());
    }
    const Graph::Scope scope(adapted, module + ".lora");
    const Value x = now[static_cast<std::size_t>(node.inputs[0].node)];
    const Value low = adapted.matmul(dropped({x.node, node.inputs[0].slot}), a);
    return adapted.add(product, adapted.scale(adapted.matmul(low, b), options.alpha / static_cast<double>(options.rank)));
  };
  for (std::size_t n = 0; n < graph.nodes().size(); ++n) {
    const Node& node = graph.nodes()[n];
    std::vector<Value> inputs = node.inputs;
    for (Value& v : inputs) v = {now[static_cast<std::size_t>(v.node)].node, v.slot};
    Op op = node.op;
    if (const auto* parameter = std::get_if<Parameter>(&op)) op = State{parameter->type, parameter->init, false};
    now[n] = adapted.find(node.name);  // rng/counter may be there
    if (!now[n]) now[n] = adapted.record(std::move(op), std::move(inputs), node.name);
    const std::string module = module_of(graph, node);
    bool wanted = false;
    for (const std::string& target : options.targets) wanted |= !module.empty() && names(target, module);
    if (wanted) now[n] = adapt(node, now[n], module);
  }
  for (const auto& [name, value] : graph.outputs())
    adapted.output(name, {now[static_cast<std::size_t>(value.node)].node, value.slot});
  adapted.verify();
  return adapted;
}

}  // namespace passes

std::vector<double> merged_weight(Session& session, std::string_view weight, const LoraOptions& options) {
  std::vector<double> merged = session.read_f64(weight);
  const std::string module = module_of(weight);
  if (module.empty() || !session.graph().find(a_of(module))) return merged;
  const std::vector<double> a = session.read_f64(a_of(module)), b = session.read_f64(b_of(module));
  const std::size_t rank = static_cast<std::size_t>(session.graph().shape(session.graph().find(a_of(module))).cols());
  const std::size_t rows = a.size() / rank, cols = b.size() / rank;
  const double scale = options.alpha / static_cast<double>(rank);
  for (std::size_t i = 0; i < rows; ++i)
    for (std::size_t r = 0; r < rank; ++r)
      for (std::size_t j = 0; j < cols; ++j) merged[i * cols + j] += scale * a[i * rank + r] * b[r * cols + j];
  return merged;
}

}  // namespace graft
