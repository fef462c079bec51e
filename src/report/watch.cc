#include "graft/watch.h"

#include <algorithm>
#include <cmath>

#include "graft/error.h"
#include "src/report/diagram.h"

namespace graft::report {
namespace {

constexpr std::string_view kPrefix = "gradient_norm/";

}  // namespace

std::string layer_of(std::string_view parameter) {
  const detail::Block block = detail::block_of(parameter);
  if (block.number >= 0) return block.series + "." + std::to_string(block.number);
  const std::size_t dot = parameter.rfind('.');
  return std::string(dot == std::string_view::npos || dot == 0 ? parameter : parameter.substr(0, dot));
}

std::vector<std::string> watch_gradients(Graph& graph, const Gradients& gradients) {
  std::vector<std::string> layers;
  std::vector<std::vector<Value>> of_layer;
  for (const Gradient& g : gradients.all) {
    if (!std::holds_alternative<Parameter>(graph.node(g.of).op)) continue;
    const std::string layer = layer_of(graph.node(g.of).name);
    const auto found = std::find(layers.begin(), layers.end(), layer);
    const auto index = static_cast<std::size_t>(found - layers.begin());
    if (found == layers.end()) layers.push_back(layer), of_layer.emplace_back();
    of_layer[index].push_back(g.gradient);
  }
  if (layers.empty()) throw Error("watch_gradients: there is no gradient of a parameter to watch");
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const std::string name = std::string(kPrefix) + layers[i];
    graph.output(name, graph.record(GlobalNorm{}, of_layer[i], "watch/" + name));
  }
  return layers;
}

LayerWatch::LayerWatch(Session& session) : session_(session) {
  const Graph& graph = session.graph();
  for (Value p : graph.parameters()) {
    const std::string& name = graph.node(p).name;
    const std::string layer = layer_of(name);
    if (!graph.outputs().contains(std::string(kPrefix) + layer)) continue;
    const auto found = std::find(layers_.begin(), layers_.end(), layer);
    const auto index = static_cast<std::size_t>(found - layers_.begin());
    if (found == layers_.end()) layers_.push_back(layer);
    weights_.push_back({name, index, {}});
  }
  if (layers_.empty())
    throw Error("layer watch: the session's graph watches no gradients, call watch_gradients on it before the optimizer");
}

void LayerWatch::before_step() {
  for (Weights& w : weights_) w.before = session_.read(w.name);
  ready_ = true;
}

std::vector<LayerWatch::Layer> LayerWatch::after_step() {
  if (!ready_) throw Error("layer watch: before_step was not called before this step");
  ready_ = false;
  std::vector<Layer> result;
  for (const std::string& layer : layers_) result.push_back({layer, session_.scalar(std::string(kPrefix) + layer), 0, 0});
  for (const Weights& w : weights_) {
    const std::vector<float> after = session_.read(w.name);
    for (std::size_t i = 0; i < after.size(); ++i) {
      const double old = w.before[i], moved = static_cast<double>(after[i]) - old;
      result[w.layer].weight_norm += old * old;
      result[w.layer].update_norm += moved * moved;
    }
  }
  for (Layer& layer : result) {
    layer.weight_norm = std::sqrt(layer.weight_norm);
    layer.update_norm = std::sqrt(layer.update_norm);
  }
  return result;
}

}  // namespace graft::report
