// Fits y = x·w + b to 64 points of y = 2·x₀ − 3·x₁ + 0.5 by gradient descent: graft's whole cycle in 40 lines.
#include <cmath>
#include <cstdio>

#include "graft/graft.h"

int main() {
  // Record the model and its loss. Nothing runs yet, but all shapes are checked here.
  graft::Graph g;
  const graft::Value x = g.input("x", {64, 2}), y = g.input("y", {64, 1});
  const graft::nn::Linear model(g, "model", 2, 1, /*with_bias=*/true);
  const graft::Value loss = g.mse(model.forward(g, x), y);
  g.output("loss", loss);

  // Add the gradients and the optimizer's updates to the same graph: from here on, a step of the session trains.
  graft::optim::UpdateOptions options;
  options.schedule.base = 0.2;
  graft::optim::sgd(g, graft::differentiate(g, loss), {.momentum = 0.5}, options);

  // A session owns the memory and runs the graph on a backend.
  const auto backend = graft::cpu_backend();
  graft::Session session(g, *backend);
  std::vector<float> xs, ys;
  for (int i = 0; i < 64; ++i) {
    xs.push_back(static_cast<float>(std::sin(i)));
    xs.push_back(static_cast<float>(std::cos(3 * i)));
    ys.push_back(2.0f * xs[xs.size() - 2] - 3.0f * xs.back() + 0.5f);
  }
  session.write("x", xs);
  session.write("y", ys);
  for (int step = 1; step <= 100; ++step) {
    session.step();
    if (step % 20 == 0) std::printf("step %3d  loss %.2e\n", step, session.scalar("loss"));
  }
  const std::vector<float> w = session.read("model.weight"), b = session.read("model.bias");
  std::printf("y = %.3f x0 %+.3f x1 %+.3f\n", w[0], w[1], b[0]);
  const bool learned = std::abs(w[0] - 2) < 1e-3 && std::abs(w[1] + 3) < 1e-3 && std::abs(b[0] - 0.5) < 1e-3;
  return learned ? 0 : 1;
}
