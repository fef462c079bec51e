// The optimizers against their formulas in plain loops. The loss is Σ p ∘ g with g an input: a test says what the gradients are.
#include "graft/optim.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <map>

#include "graft/backend.h"
#include "graft/philox.h"
#include "graft/session.h"

namespace graft {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

using Tensors = std::map<std::string, std::vector<double>>;

const std::map<std::string, Shape> kShapes = {{"fc.weight", {3, 2}}, {"fc.bias", {2}}, {"norm.weight", {3}}, {"gain", {}}};

/// Different in every tensor and step, some elements large, some exactly 0.
std::vector<double> gradient_at(const std::string& name, int step, std::int64_t size) {
  std::vector<double> g;
  for (std::int64_t i = 0; i < size; ++i) {
    const double u = philox::uniform(philox::bits(name.size(), static_cast<std::uint32_t>(step), 7, static_cast<std::uint64_t>(i)));
    g.push_back((step + i) % 11 == 3 ? 0.0 : (u - 0.4) * (i % 3 == 0 ? 5.0 : 0.3));
  }
  return g;
}

Tensors gradients_at(int step) {
  Tensors all;
  for (const auto& [name, shape] : kShapes) all[name] = gradient_at(name, step, shape.size());
  return all;
}

using Optimizer = std::function<optim::Update(Graph&, const Gradients&, Value loss)>;

struct Trial {
  explicit Trial(const Optimizer& optimizer, DType dtype = DType::f64, std::unique_ptr<Backend> with = reference_backend())
      : backend(std::move(with)) {
    Graph g(3);
    Value loss = g.input("extra", {}, dtype);
    for (const auto& [name, shape] : kShapes) {
      const Value p = g.parameter(name, shape, Init::uniform(-1.0, 1.0), dtype);
      loss = g.add(loss, g.sum(g.mul(p, g.input("g:" + name, shape, dtype))));
    }
    g.parameter("unused.weight", {2, 2}, Init::normal(0.0, 1.0), dtype);
    optimizer(g, differentiate(g, loss), loss);
    session = std::make_unique<Session>(g, *backend);
    session->write("extra", std::vector<double>{0.0});
  }

  void step(const Tensors& gradients) {
    for (const auto& [name, g] : gradients) session->write("g:" + name, g);
    session->step();
  }

  Tensors parameters() {
    Tensors all;
    for (const auto& [name, shape] : kShapes) all[name] = session->read_f64(name);
    return all;
  }

  std::unique_ptr<Backend> backend;
  std::unique_ptr<Session> session;
};

/// One tensor in plain loops: p, first and second moment.
struct Plain {
  std::vector<double> p, m, v;
  explicit Plain(std::vector<double> start = {}) : p(std::move(start)), m(p.size(), 0.0), v(p.size(), 0.0) {}
};

struct At {
  double lr, scale, weight_decay;
  int t;  // 1-based
};

using Rule = std::function<void(Plain& x, const std::vector<double>& g, const At& at)>;

double global_norm(const Tensors& gradients) {
  double sum = 0.0;
  for (const auto& [name, g] : gradients)
    for (double x : g) sum += x * x;
  return std::sqrt(sum);
}

struct Expected {
  Schedule schedule;
  double clip_norm = 0.0;
  std::function<double(const std::string&)> weight_decay = [](const std::string&) { return 0.0; };
  std::function<double(const std::string&)> lr_scale = [](const std::string&) { return 1.0; };
};

void expect_near(const std::vector<double>& got, const std::vector<double>& want, double tolerance, const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (std::size_t i = 0; i < got.size(); ++i)
    EXPECT_NEAR(got[i], want[i], tolerance * std::max(1.0, std::abs(want[i]))) << what << " [" << i << "]";
}

/// 20 steps of the session beside 20 steps of the loops.
void expect_follows(Trial& trial, const Rule& rule, const Expected& expected, double tolerance = 1e-12) {
  std::map<std::string, Plain> plain;
  for (const auto& [name, values] : trial.parameters()) plain[name] = Plain(values);
  for (int step = 0; step < 20; ++step) {
    const Tensors gradients = gradients_at(step);
    trial.step(gradients);
    const double norm = global_norm(gradients);
    const double scale = expected.clip_norm > 0.0 && norm > expected.clip_norm ? expected.clip_norm / norm : 1.0;
    const double lr = optim::learning_rate(expected.schedule, step);
    for (auto& [name, x] : plain)
      rule(x, gradients.at(name), {lr * expected.lr_scale(name), scale, expected.weight_decay(name), step + 1});
    EXPECT_NEAR(trial.session->scalar("learning_rate"), lr, tolerance);
    EXPECT_NEAR(trial.session->scalar("gradient_norm"), norm, tolerance * norm);
  }
  for (const auto& [name, values] : trial.parameters()) expect_near(values, plain[name].p, tolerance, name);
  EXPECT_EQ(trial.session->read_u32("optimizer/step"), std::vector<std::uint32_t>{20});
  EXPECT_EQ(trial.session->read_u32("optimizer/skipped"), std::vector<std::uint32_t>{0});
}

// torch.optim.SGD, dampening 0
Rule sgd_rule(double momentum, bool nesterov) {
  return [=](Plain& x, const std::vector<double>& grad, const At& at) {
    for (std::size_t i = 0; i < x.p.size(); ++i) {
      const double g = at.scale * grad[i] + at.weight_decay * x.p[i];
      x.m[i] = momentum * x.m[i] + g;
      x.p[i] -= at.lr * (nesterov ? g + momentum * x.m[i] : x.m[i]);
    }
  };
}

// Kingma and Ba 2015, algorithm 1; Loshchilov and Hutter 2019, algorithm 2
Rule adam_rule(double beta1, double beta2, double eps, bool decoupled) {
  return [=](Plain& x, const std::vector<double>& grad, const At& at) {
    for (std::size_t i = 0; i < x.p.size(); ++i) {
      double g = at.scale * grad[i];
      if (decoupled)
        x.p[i] *= 1.0 - at.lr * at.weight_decay;
      else
        g += at.weight_decay * x.p[i];
      x.m[i] = beta1 * x.m[i] + (1.0 - beta1) * g;
      x.v[i] = beta2 * x.v[i] + (1.0 - beta2) * g * g;
      const double m = x.m[i] / (1.0 - std::pow(beta1, at.t)), v = x.v[i] / (1.0 - std::pow(beta2, at.t));
      x.p[i] -= at.lr * m / (std::sqrt(v) + eps);
    }
  };
}

// Chen et al. 2023, algorithm 2
Rule lion_rule(double beta1, double beta2) {
  return [=](Plain& x, const std::vector<double>& grad, const At& at) {
    for (std::size_t i = 0; i < x.p.size(); ++i) {
      const double g = at.scale * grad[i], c = beta1 * x.m[i] + (1.0 - beta1) * g;
      const double sign = c > 0.0 ? 1.0 : c < 0.0 ? -1.0 : 0.0;
      x.p[i] -= at.lr * (sign + at.weight_decay * x.p[i]);
      x.m[i] = beta2 * x.m[i] + (1.0 - beta2) * g;
    }
  };
}

optim::UpdateOptions constant(double rate) {
  optim::UpdateOptions options;
  options.schedule = {.kind = Schedule::Kind::constant, .base = rate};
  options.groups.clear();
  return options;
}

Optimizer with(const optim::Sgd& s, const optim::UpdateOptions& o) {
  return [=](Graph& g, const Gradients& d, Value) { return optim::sgd(g, d, s, o); };
}
Optimizer with(const optim::Adam& s, const optim::UpdateOptions& o) {
  return [=](Graph& g, const Gradients& d, Value) { return optim::adam(g, d, s, o); };
}
Optimizer with(const optim::AdamW& s, const optim::UpdateOptions& o) {
  return [=](Graph& g, const Gradients& d, Value) { return optim::adamw(g, d, s, o); };
}
Optimizer with(const optim::Lion& s, const optim::UpdateOptions& o) {
  return [=](Graph& g, const Gradients& d, Value) { return optim::lion(g, d, s, o); };
}

Expected everywhere(const optim::UpdateOptions& options, double weight_decay) {
  Expected expected{options.schedule, options.clip_norm};
  expected.weight_decay = [=](const std::string&) { return weight_decay; };
  return expected;
}

TEST(Sgd, PlainFollowsTheFormula) {
  Trial trial(with(optim::Sgd{}, constant(0.05)));
  expect_follows(trial, sgd_rule(0.0, false), everywhere(constant(0.05), 0.0));
}

TEST(Sgd, MomentumAndDecayFollowTheFormula) {
  Trial trial(with(optim::Sgd{.momentum = 0.9, .weight_decay = 0.1}, constant(0.05)));
  expect_follows(trial, sgd_rule(0.9, false), everywhere(constant(0.05), 0.1));
}

TEST(Sgd, NesterovFollowsTheFormula) {
  Trial trial(with(optim::Sgd{.momentum = 0.8, .weight_decay = 0.1, .nesterov = true}, constant(0.05)));
  expect_follows(trial, sgd_rule(0.8, true), everywhere(constant(0.05), 0.1));
}

TEST(Adam, DecayIsPartOfTheGradient) {
  Trial trial(with(optim::Adam{.beta1 = 0.8, .beta2 = 0.95, .eps = 1e-3, .weight_decay = 0.2}, constant(0.05)));
  expect_follows(trial, adam_rule(0.8, 0.95, 1e-3, false), everywhere(constant(0.05), 0.2));
}

TEST(AdamW, DecayIsDecoupled) {
  Trial trial(with(optim::AdamW{.beta1 = 0.8, .beta2 = 0.95, .eps = 1e-3, .weight_decay = 0.2}, constant(0.05)));
  expect_follows(trial, adam_rule(0.8, 0.95, 1e-3, true), everywhere(constant(0.05), 0.2));
}

TEST(AdamW, DefaultsAreThoseOfPyTorch) {
  Trial trial(with(optim::AdamW{}, constant(1e-3)));
  expect_follows(trial, adam_rule(0.9, 0.999, 1e-8, true), everywhere(constant(1e-3), 0.01));
}

TEST(Lion, FollowsTheFormula) {
  Trial trial(with(optim::Lion{.beta1 = 0.7, .beta2 = 0.9, .weight_decay = 0.3}, constant(0.02)));
  expect_follows(trial, lion_rule(0.7, 0.9), everywhere(constant(0.02), 0.3));
}

TEST(Lion, ZeroGradientsMoveNothing) {
  Trial trial(with(optim::Lion{.weight_decay = 0.0}, constant(0.02)));
  Tensors zeros = gradients_at(0);
  for (auto& [name, g] : zeros) std::fill(g.begin(), g.end(), 0.0);
  const Tensors before = trial.parameters();
  trial.step(zeros);
  EXPECT_EQ(trial.parameters(), before);
}

/// Everything at once: clipping, a schedule with warm-up, groups with decay and rate of their own, the first match wins.
struct Everything {
  optim::UpdateOptions options;
  Expected expected;

  explicit Everything(double weight_decay) {
    options.schedule = {.kind = Schedule::Kind::cosine, .base = 0.05, .min = 0.01, .total = 15, .warmup = 4};
    options.clip_norm = 4.0;
    options.groups = {{"*.bias", 0.0, 0.5}, {"fc.*", 0.7}, {"g?in", std::nullopt, 0.25}};
    expected = {options.schedule, options.clip_norm};
    expected.weight_decay = [=](const std::string& name) {
      return name == "fc.bias" ? 0.0 : name == "fc.weight" ? 0.7 : weight_decay;
    };
    expected.lr_scale = [](const std::string& name) { return name == "fc.bias" ? 0.5 : name == "gain" ? 0.25 : 1.0; };
  }
};

TEST(Optim, GradientsOfTheTestsAreClippedInSomeStepsOnly) {
  int clipped = 0;
  for (int step = 0; step < 20; ++step) clipped += global_norm(gradients_at(step)) > Everything(0.0).options.clip_norm;
  EXPECT_GT(clipped, 2);
  EXPECT_LT(clipped, 18);
}

TEST(Sgd, ClipsFollowsScheduleAndGroups) {
  const Everything all(0.1);
  Trial trial(with(optim::Sgd{.momentum = 0.9, .weight_decay = 0.1}, all.options));
  expect_follows(trial, sgd_rule(0.9, false), all.expected);
}

TEST(Adam, ClipsFollowsScheduleAndGroups) {
  const Everything all(0.1);
  Trial trial(with(optim::Adam{.weight_decay = 0.1}, all.options));
  expect_follows(trial, adam_rule(0.9, 0.999, 1e-8, false), all.expected);
}

TEST(AdamW, ClipsFollowsScheduleAndGroups) {
  const Everything all(0.1);
  Trial trial(with(optim::AdamW{.weight_decay = 0.1}, all.options));
  expect_follows(trial, adam_rule(0.9, 0.999, 1e-8, true), all.expected);
}

TEST(Lion, ClipsFollowsScheduleAndGroups) {
  const Everything all(0.1);
  Trial trial(with(optim::Lion{.weight_decay = 0.1}, all.options));
  expect_follows(trial, lion_rule(0.9, 0.99), all.expected);
}

TEST(Optim, Float32OnTheCpuBackendFollowsTheFormulas) {
  const Everything all(0.1);
  Trial sgd(with(optim::Sgd{.momentum = 0.9, .weight_decay = 0.1, .nesterov = true}, all.options), DType::f32, cpu_backend(2));
  expect_follows(sgd, sgd_rule(0.9, true), all.expected, 1e-5);
  Trial adam(with(optim::Adam{.weight_decay = 0.1}, all.options), DType::f32, cpu_backend(2));
  expect_follows(adam, adam_rule(0.9, 0.999, 1e-8, false), all.expected, 1e-5);
  Trial adamw(with(optim::AdamW{.weight_decay = 0.1}, all.options), DType::f32, cpu_backend(2));
  expect_follows(adamw, adam_rule(0.9, 0.999, 1e-8, true), all.expected, 1e-5);
  Trial lion(with(optim::Lion{.weight_decay = 0.1}, all.options), DType::f32, cpu_backend(2));
  expect_follows(lion, lion_rule(0.9, 0.99), all.expected, 1e-5);
}

TEST(Optim, DefaultGroupsDecayMatricesOnly) {
  optim::UpdateOptions options = constant(0.05);
  options.groups = optim::default_groups();
  Expected expected{options.schedule};
  expected.weight_decay = [](const std::string& name) { return name == "fc.weight" || name == "gain" ? 0.5 : 0.0; };
  Trial trial(with(optim::AdamW{.weight_decay = 0.5}, options));
  expect_follows(trial, adam_rule(0.9, 0.999, 1e-8, true), expected);
}

// ---- skipping, and parameters without gradients

std::vector<std::byte> bytes_of(Session& session) {
  std::vector<std::byte> all;
  for (const SavedTensor& tensor : session.snapshot().tensors)
    if (tensor.path.find("optimizer/s") != 0) all.insert(all.end(), tensor.bytes.begin(), tensor.bytes.end());
  return all;
}

void expect_skips(Trial& trial, const Rule& rule, const std::function<void(Tensors&)>& spoil) {
  std::map<std::string, Plain> plain;
  for (const auto& [name, values] : trial.parameters()) plain[name] = Plain(values);
  const auto good = [&](int step) {
    const Tensors gradients = gradients_at(step);
    trial.step(gradients);
    for (auto& [name, x] : plain) rule(x, gradients.at(name), {0.05, 1.0, 0.1, step + 1});
  };
  good(0);
  good(1);
  const std::vector<std::byte> before = bytes_of(*trial.session);
  Tensors bad = gradients_at(9);
  spoil(bad);
  trial.step(bad);
  EXPECT_EQ(bytes_of(*trial.session), before);
  EXPECT_EQ(trial.session->read_u32("optimizer/skipped"), std::vector<std::uint32_t>{1});
  EXPECT_EQ(trial.session->read_u32("optimizer/step"), std::vector<std::uint32_t>{2});
  trial.session->write("extra", std::vector<double>{0.0});
  good(2);
  for (const auto& [name, values] : trial.parameters()) expect_near(values, plain[name].p, 1e-12, name);
  EXPECT_EQ(trial.session->read_u32("optimizer/step"), std::vector<std::uint32_t>{3});
}

TEST(Optim, NonFiniteGradientSkipsTheUpdateAndNothingElse) {
  for (const double bad : {kNan, kInf, -kInf}) {
    const auto spoil = [&](Tensors& g) { g.at("fc.bias")[1] = bad; };
    Trial sgd(with(optim::Sgd{.momentum = 0.9, .weight_decay = 0.1}, constant(0.05)));
    expect_skips(sgd, sgd_rule(0.9, false), spoil);
    Trial adamw(with(optim::AdamW{.weight_decay = 0.1}, constant(0.05)));
    expect_skips(adamw, adam_rule(0.9, 0.999, 1e-8, true), spoil);
    Trial lion(with(optim::Lion{.weight_decay = 0.1}, constant(0.05)));
    expect_skips(lion, lion_rule(0.9, 0.99), spoil);
  }
}

TEST(Optim, NonFiniteLossSkipsTheUpdate) {
  for (const double bad : {kNan, kInf}) {
    Trial trial([](Graph& g, const Gradients& d, Value loss) {
      optim::UpdateOptions options = constant(0.05);
      options.loss = loss;
      return optim::adamw(g, d, {.weight_decay = 0.1}, options);
    });
    expect_skips(trial, adam_rule(0.9, 0.999, 1e-8, true),
                 [&](Tensors&) { trial.session->write("extra", std::vector<double>{bad}); });
  }
}

TEST(Optim, LossIsLookedAtOnlyWhenGiven) {
  Trial trial(with(optim::AdamW{}, constant(0.05)));
  trial.session->write("extra", std::vector<double>{kInf});
  trial.step(gradients_at(0));
  EXPECT_EQ(trial.session->read_u32("optimizer/step"), std::vector<std::uint32_t>{1});
}

TEST(Optim, ParametersThatTheLossDoesNotReachAreLeftAlone) {
  Trial trial(with(optim::AdamW{.weight_decay = 0.5}, constant(0.05)));
  const std::vector<double> before = trial.session->read_f64("unused.weight");
  trial.step(gradients_at(0));
  EXPECT_EQ(trial.session->read_f64("unused.weight"), before);
  EXPECT_TRUE(trial.session->graph().find("optimizer/exp_avg/fc.weight"));
  EXPECT_FALSE(trial.session->graph().find("optimizer/exp_avg/unused.weight"));
}

TEST(Optim, GradientsOfInputsAreNeitherUpdatedNorMeasured) {
  Graph g;
  const Value x = g.input("x", {2}), w = g.parameter("w", {2}, Init::ones());
  const Value loss = g.sum(g.mul(w, x));
  optim::sgd(g, differentiate(g, loss, {w, x}), {}, constant(1.0));
  const auto backend = reference_backend();
  Session session(g, *backend);
  session.write("x", std::vector<float>{3.0f, 4.0f});
  session.step();
  EXPECT_EQ(session.scalar("gradient_norm"), 5.0);
  EXPECT_EQ(session.read("w"), (std::vector<float>{-2.0f, -3.0f}));
  EXPECT_EQ(session.read("x"), (std::vector<float>{3.0f, 4.0f}));
}

TEST(Optim, RecordsReadableNodes) {
  Graph g;
  const Value w = g.parameter("w", {2}, Init::ones());
  const optim::Update update = optim::sgd(g, differentiate(g, g.sum(g.dropout(w, 0.5))), {}, constant(1.0));
  EXPECT_EQ(op_name(g.node(g.find("update/w")).op), "sgd_update");
  EXPECT_EQ(g.outputs().at("learning_rate"), update.learning_rate);
  EXPECT_EQ(g.outputs().at("gradient_norm"), update.gradient_norm);
  EXPECT_TRUE(g.find("optimizer/momentum/w"));
  EXPECT_EQ(op_name(g.nodes().back().op), "increment");  // rng/counter
}

}  // namespace
}  // namespace graft
