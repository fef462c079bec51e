#include "src/hf/parameters.h"

#include <algorithm>
#include <set>

namespace graft::hf::detail {

std::vector<Parameter> parameters_of(const Config& config) {
  Graph graph;
  const Network network(graph, config);
  const bool llama = std::holds_alternative<nn::Llama>(network.model);
  std::vector<Parameter> all;
  for (const Value v : graph.parameters()) {
    const std::string& name = graph.node(v).name;
    // torch's Linear holds [out, in]; GPT-2's Conv1D [in, out], embeddings [vocabulary, dim], as here.
    const bool linear = name == "lm_head.weight" || (llama && name != "model.embed_tokens.weight" && graph.shape(v).rank() == 2);
    all.push_back({name, graph.shape(v), linear});
  }
  return all;
}

std::vector<std::int64_t> stored_shape(const Parameter& parameter) {
  std::vector<std::int64_t> shape;
  for (int axis = 0; axis < parameter.shape.rank(); ++axis) shape.push_back(parameter.shape[axis]);
  if (parameter.transposed) std::reverse(shape.begin(), shape.end());
  return shape;
}

std::vector<std::string> misfits(const std::vector<Parameter>& parameters, const Session& session, bool others_stay) {
  const Graph& graph = session.graph();
  std::vector<std::string> problems;
  std::set<std::string_view> known;
  for (const Parameter& parameter : parameters) {
    known.insert(parameter.name);
    const Value v = graph.find(parameter.name);
    if (!v || !std::holds_alternative<graft::Parameter>(graph.node(v).op)) {
      problems.push_back("the session has no parameter \"" + parameter.name + "\" " + to_string(parameter.shape));
    } else if (graph.shape(v) != parameter.shape) {
      problems.push_back("\"" + parameter.name + "\" is " + to_string(graph.shape(v)) + " in the session, " +
                         to_string(parameter.shape) + " in the model");
    }
  }
  for (const Value v : graph.parameters()) {
    if (!others_stay && !known.contains(graph.node(v).name))
      problems.push_back("the model has no parameter \"" + graph.node(v).name + "\" " + to_string(graph.shape(v)));
  }
  return problems;
}

std::string joined(const std::vector<std::string>& texts) {
  std::string all;
  for (const std::string& text : texts) all += (all.empty() ? "" : "; ") + text;
  return all;
}

void transpose(std::span<const float> from, std::int64_t rows, std::int64_t cols, std::span<float> to) {
  constexpr std::int64_t kTile = 32;
  for (std::int64_t r = 0; r < rows; r += kTile)
    for (std::int64_t c = 0; c < cols; c += kTile)
      for (std::int64_t i = r; i < std::min(r + kTile, rows); ++i)
        for (std::int64_t j = c; j < std::min(c + kTile, cols); ++j)
          to[static_cast<std::size_t>(j * rows + i)] = from[static_cast<std::size_t>(i * cols + j)];
}

}  // namespace graft::hf::detail
