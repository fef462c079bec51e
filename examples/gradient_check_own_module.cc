// A module of one's own, and the proof that its gradients are right.
#include <cstdio>

#include "graft/graft.h"

/// A gated residual layer, y = x + tanh(norm(x)·W) ∘ sigmoid(norm(x)·G). A module is a struct: its constructor registers the
/// parameters, forward records the ops. There is no backward to write: differentiate() finds it.
struct GatedResidual {
  graft::nn::RMSNorm norm;
  graft::nn::Linear value, gate;

  GatedResidual(graft::Graph& g, const std::string& name, std::int64_t dim)
      : norm(g, name + ".norm", dim), value(g, name + ".value", dim, dim, true), gate(g, name + ".gate", dim, dim, true) {}

  graft::Value forward(graft::Graph& g, graft::Value x) const {
    const graft::Graph::Scope scope(g, "gated_residual");  // nodes are then called gated_residual.matmul_0 and so on
    const graft::Value h = norm.forward(g, x);
    return g.add(x, g.mul(g.tanh(value.forward(g, h)), g.sigmoid(gate.forward(g, h))));
  }
};

int main() {
  graft::Graph g;
  const GatedResidual module(g, "block", 6);
  const graft::Value x = g.input("x", {5, 6});
  const graft::Value y = module.forward(g, x);

  // The check needs a scalar. Weigh the elements differently: a plain sum would not see gradients that end up at the wrong element.
  const graft::Value loss = g.mse(y, g.input("target", {5, 6}));

  // Runs the graph in f64 on the reference backend and compares every gradient with central differences. In a GoogleTest, one line:
  // EXPECT_TRUE(graft::gradients_match(g, loss)), from <graft/gtest.h>.
  const graft::GradientCheckReport report = graft::gradient_check(g, loss);
  std::printf("%s%s\n", report.to_string().c_str(), report.passed ? "all gradients are right" : "A GRADIENT IS WRONG");
  return report.passed ? 0 : 1;
}
