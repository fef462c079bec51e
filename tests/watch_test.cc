// Gradient norms and update-to-weight ratios by layer.
#include <gtest/gtest.h>

#include <cmath>

#include "graft/graft.h"
#include "tests/message.h"
#include "tests/plain_model.h"

namespace graft::report {
namespace {

using graft::testing::message_of;

TEST(Watch, LayersOfParameters) {
  EXPECT_EQ(layer_of("model.layers.3.mlp.up_proj.weight"), "model.layers.3");
  EXPECT_EQ(layer_of("model.norm.weight"), "model.norm");
  EXPECT_EQ(layer_of("w"), "w");
  EXPECT_EQ(layer_of(".w"), ".w");
  EXPECT_EQ(layer_of("h.11"), "h.11");
}

/// loss = Σ (x·a)·c + Σ x·b, so that the gradients are known: a and b lie in one layer, c in another, d is not reached.
struct Watched {
  explicit Watched(double clip = 0) {
    const Value x = g.input("x", {1, 3}, DType::f64);
    const Value a = g.parameter("m.0.a", {1, 3}, Init::normal(0, 1), DType::f64),
                b = g.parameter("m.0.b", {1, 3}, Init::normal(0, 1), DType::f64);
    const Value c = g.parameter("out.c", {1, 3}, Init::normal(0, 1), DType::f64);
    g.parameter("unused.d", {2}, Init::ones(), DType::f64);
    const Value loss = g.add(g.sum(g.mul(g.mul(x, a), c)), g.sum(g.mul(x, b)));
    const Gradients gradients = differentiate(g, loss);
    layers = watch_gradients(g, gradients);
    optim::sgd(g, gradients, {}, {.schedule = {.base = 0.5}, .clip_norm = clip});
  }
  Graph g;
  std::vector<std::string> layers;
};

double norm(const std::vector<double>& v) {
  double sum = 0;
  for (double x : v) sum += x * x;
  return std::sqrt(sum);
}

TEST(Watch, NormsAndRatiosAreThoseOfTheStep) {
  for (const double clip : {0.0, 0.1}) {
    Watched w(clip);
    EXPECT_EQ(w.layers, (std::vector<std::string>{"m.0", "out"}));
    const std::unique_ptr<Backend> backend = reference_backend();
    Session session(w.g, *backend);
    LayerWatch watch(session);
    EXPECT_EQ(watch.layers(), w.layers);
    const std::vector<double> x = {1, -2, 0.5};
    session.write("x", x);
    for (int step = 0; step < 2; ++step) {
      const std::vector<double> a = session.read_f64("m.0.a"), b = session.read_f64("m.0.b"), c = session.read_f64("out.c");
      watch.before_step();
      session.step();
      const std::vector<LayerWatch::Layer> seen = watch.after_step();
      ASSERT_EQ(seen.size(), 2u);
      std::vector<double> first, second;  // gradients
      for (std::size_t i = 0; i < 3; ++i) first.push_back(x[i] * c[i]), second.push_back(x[i] * a[i]);
      first.insert(first.end(), x.begin(), x.end());
      const double all = std::hypot(norm(first), norm(second)), scale = clip > 0 && all > clip ? clip / all : 1.0;
      std::vector<double> weights = a;
      weights.insert(weights.end(), b.begin(), b.end());
      EXPECT_EQ(seen[0].name, "m.0");
      EXPECT_NEAR(seen[0].gradient_norm, norm(first), 1e-12);
      EXPECT_NEAR(seen[1].gradient_norm, norm(second), 1e-12);
      EXPECT_NEAR(seen[0].weight_norm, norm(weights), 1e-6);
      EXPECT_NEAR(seen[1].weight_norm, norm(c), 1e-6);
      EXPECT_NEAR(seen[0].update_norm, 0.5 * scale * norm(first), 1e-6);
      EXPECT_NEAR(seen[1].update_norm, 0.5 * scale * norm(second), 1e-6);
      EXPECT_DOUBLE_EQ(seen[1].ratio(), seen[1].update_norm / seen[1].weight_norm);
    }
  }
  EXPECT_EQ(LayerWatch::Layer{}.ratio(), 0.0);
}

TEST(Watch, ItChangesNoBitOfTraining) {
  const auto trained = [](bool watched) {
    Graph g(3);
    const nn::Llama model(
        g, {.vocab_size = 7, .hidden_size = 8, .intermediate_size = 8, .num_layers = 2, .num_heads = 2, .num_kv_heads = 2});
    const Value loss = g.cross_entropy(model.forward(g, g.input_u32("ids", {5})), g.input_u32("next", {5}));
    const Gradients gradients = differentiate(g, loss);
    if (watched) {
      EXPECT_EQ(watch_gradients(g, gradients),
                (std::vector<std::string>{"model.embed_tokens", "model.layers.0", "model.layers.1", "model.norm"}));
    }
    optim::adamw(g, gradients, {}, {.schedule = {.base = 1e-2}, .clip_norm = 1.0});
    const std::unique_ptr<Backend> backend = cpu_backend(2);
    Session session(g, *backend);
    session.write("ids", std::vector<std::uint32_t>{1, 2, 3, 4, 5});
    session.write("next", std::vector<std::uint32_t>{2, 3, 4, 5, 6});
    std::optional<LayerWatch> watch;
    if (watched) watch.emplace(session);
    for (int step = 0; step < 3; ++step) {
      if (watch) watch->before_step();
      session.step();
      if (watch) {
        double squares = 0;
        for (const auto& layer : watch->after_step()) squares += layer.gradient_norm * layer.gradient_norm;
        EXPECT_NEAR(std::sqrt(squares), session.scalar("gradient_norm"), 1e-5);
      }
    }
    return session.read("model.layers.0.mlp.up_proj.weight");
  };
  EXPECT_EQ(trained(true), trained(false));
}

TEST(Watch, RefusesWhatCannotBeWatched) {
  Graph g;
  const Value x = g.input("x", {2});
  const Value loss = g.sum(g.mul(x, x));
  const Gradients of_input = differentiate(g, loss, {x});
  EXPECT_EQ(message_of([&] { watch_gradients(g, of_input); }), "watch_gradients: there is no gradient of a parameter to watch");
  g.output("loss", loss);
  const std::unique_ptr<Backend> backend = reference_backend();
  Session session(g, *backend);
  EXPECT_EQ(message_of([&] { LayerWatch watch(session); }),
            "layer watch: the session's graph watches no gradients, call watch_gradients on it before the optimizer");
  Watched w;
  Session watched(w.g, *backend);
  LayerWatch watch(watched);
  EXPECT_EQ(message_of([&] { watch.after_step(); }), "layer watch: before_step was not called before this step");
  watched.write("x", std::vector<double>{1, 1, 1});
  watch.before_step();
  watched.step();
  watch.after_step();
  EXPECT_EQ(message_of([&] { watch.after_step(); }), "layer watch: before_step was not called before this step");
}

}  // namespace
}  // namespace graft::report
