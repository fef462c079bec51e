#pragma once
// A graph's result beside plain loops over the same weights: what the tests of modules and of models share.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "graft/backend.h"
#include "graft/session.h"
#include "tests/plain_model.h"

namespace graft::plain {

/// Runs the graph in f64 with all parameters and float inputs set by name: larger than they are initialised, norms not all ones.
struct Module {
  explicit Module(Graph& graph, Value result) : backend(reference_backend()) {
    graph.output("y", result);
    session = std::make_unique<Session>(graph.to_f64(), *backend);
    for (const Node& node : graph.nodes()) {
      const bool random = std::holds_alternative<Parameter>(node.op) || std::holds_alternative<Input>(node.op);
      if (random && is_float(node.outputs[0].dtype)) session->write(node.name, values_for(node.name, node.outputs[0].shape.size()));
    }
  }

  Matrix run() {
    session->step();
    return matrix("y");
  }
  Matrix matrix(const std::string& name) {
    const Graph& g = session->graph();
    const auto output = g.outputs().find(name);
    const Shape shape = g.shape(output == g.outputs().end() ? g.find(name) : output->second);
    return {static_cast<std::size_t>(shape.rows()), static_cast<std::size_t>(shape.cols()), session->read_f64(name)};
  }
  std::vector<double> vector(const std::string& name) { return session->read_f64(name); }

  std::unique_ptr<Backend> backend;
  std::unique_ptr<Session> session;
};

inline void expect_near(const Matrix& got, const Matrix& want, double tolerance = 1e-12) {
  ASSERT_EQ(got.rows, want.rows);
  ASSERT_EQ(got.cols, want.cols);
  for (std::size_t i = 0; i < got.data.size(); ++i) EXPECT_NEAR(got.data[i], want.data[i], tolerance) << "element " << i;
}

/// name → shape of all parameters, in the order of registration.
inline std::vector<std::string> parameters_of(const Graph& graph) {
  std::vector<std::string> list;
  for (const Value p : graph.parameters()) list.push_back(graph.node(p).name + " " + to_string(graph.shape(p)));
  return list;
}

inline Matrix plain_attention(Module& m, const std::string& name, const Matrix& x, std::size_t heads, std::size_t kv_heads,
                              double theta) {
  const auto project = [&](const char* part) { return plain::matmul(x, m.matrix(name + "." + part + ".weight")); };
  const std::size_t head_dim = x.cols / heads;
  const Matrix out = plain::attention(plain::rope(project("q_proj"), theta, head_dim),
                                      plain::rope(project("k_proj"), theta, head_dim), project("v_proj"), heads, kv_heads);
  return plain::matmul(out, m.matrix(name + ".o_proj.weight"));
}

inline Matrix plain_block(Module& m, const std::string& name, const Matrix& x, std::size_t heads, std::size_t kv_heads,
                          double theta, double eps) {
  const auto normed = [&](const Matrix& from, const char* part) {
    return plain::rms_norm(from, m.vector(name + "." + part + ".weight"), eps);
  };
  const Matrix h = plain::add(x, plain_attention(m, name + ".self_attn", normed(x, "input_layernorm"), heads, kv_heads, theta));
  return plain::add(h, plain::swiglu(normed(h, "post_attention_layernorm"), m.matrix(name + ".mlp.gate_proj.weight"),
                                     m.matrix(name + ".mlp.up_proj.weight"), m.matrix(name + ".mlp.down_proj.weight")));
}

}  // namespace graft::plain
