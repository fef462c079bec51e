// Linear, Embedding, the norms and the feed-forward modules.
#include "graft/nn.h"
#include "src/nn/scoped.h"

namespace graft::nn {

using detail::child;
using detail::scoped;

Linear::Linear(Graph& graph, std::string_view name, std::int64_t in, std::int64_t out, bool with_bias, Init init)
    : weight(graph.parameter(child(name, "weight"), {in, out}, init)) {
  if (with_bias) bias = graph.parameter(child(name, "bias"), {out}, Init::zeros());
}

Value Linear::forward(Graph& graph, Value x) const { return bias ? graph.matmul_bias(x, weight, bias) : graph.matmul(x, weight); }

Embedding::Embedding(Graph& graph, std::string_view name, std::int64_t vocabulary, std::int64_t dim, Init init)
    : weight(graph.parameter(child(name, "weight"), {vocabulary, dim}, init)) {}

Value Embedding::forward(Graph& graph, Value ids) const { return graph.embedding(weight, ids); }

RMSNorm::RMSNorm(Graph& graph, std::string_view name, std::int64_t dim, double epsilon)
    : weight(graph.parameter(child(name, "weight"), {dim}, Init::ones())), eps(epsilon) {}

Value RMSNorm::forward(Graph& graph, Value x) const { return graph.rms_norm(x, weight, eps); }

LayerNorm::LayerNorm(Graph& graph, std::string_view name, std::int64_t dim, double epsilon)
    : weight(graph.parameter(child(name, "weight"), {dim}, Init::ones())),
      bias(graph.parameter(child(name, "bias"), {dim}, Init::zeros())),
      eps(epsilon) {}

Value LayerNorm::forward(Graph& graph, Value x) const { return graph.layer_norm(x, weight, bias, eps); }

SwiGLU::SwiGLU(Graph& graph, std::string_view name, std::int64_t hidden, std::int64_t intermediate, Init down_init, bool with_bias)
    : gate_proj(graph, child(name, "gate_proj"), hidden, intermediate, with_bias),
      up_proj(graph, child(name, "up_proj"), hidden, intermediate, with_bias),
      down_proj(graph, child(name, "down_proj"), intermediate, hidden, with_bias, down_init) {}

Value SwiGLU::forward(Graph& graph, Value x) const {
  const Value gate = scoped(graph, "gate_proj", gate_proj, x);
  const Value up = scoped(graph, "up_proj", up_proj, x);
  return scoped(graph, "down_proj", down_proj, graph.swiglu(gate, up));
}

Mlp::Mlp(Graph& graph, std::string_view name, std::int64_t hidden, std::int64_t intermediate, UnaryFn fn)
    : fc1(graph, child(name, "fc1"), hidden, intermediate, true),
      fc2(graph, child(name, "fc2"), intermediate, hidden, true),
      activation(fn) {}

Value Mlp::forward(Graph& graph, Value x) const {
  const Value inner = scoped(graph, "fc1", fc1, x);
  return scoped(graph, "fc2", fc2, graph.unary(activation, inner));
}

}  // namespace graft::nn
