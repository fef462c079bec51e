// graft against PyTorch and Hugging Face: the values in tests/golden/, which make_golden.py wrote.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <set>

#include "graft/autodiff.h"
#include "graft/error.h"
#include "graft/generate.h"
#include "graft/optim.h"
#include "tests/run_graph.h"

namespace graft {
namespace {

struct Golden {
  std::int64_t rows = 0, cols = 0;
  std::vector<double> values;
};
using GoldenFile = std::map<std::string, Golden>;

/// A file that is missing, cut off or empty throws, so that its test fails.
GoldenFile load(const std::string& topic) {
  const std::string path = std::string(GRAFT_SOURCE_DIR) + "/tests/golden/" + topic + ".txt";
  std::ifstream file(path);
  if (!file) throw std::runtime_error("no golden values at " + path);
  GoldenFile tensors;
  std::string name, type;
  Golden golden;
  while (file >> name >> type >> golden.rows >> golden.cols) {
    golden.values.resize(static_cast<std::size_t>(golden.rows * golden.cols));
    for (double& value : golden.values) {
      std::string word;
      if (!(file >> word)) throw std::runtime_error(path + " ends within " + name);
      value = std::stod(word);
    }
    tensors[name] = golden;
  }
  if (tensors.empty()) throw std::runtime_error(path + " holds nothing");
  return tensors;
}

TEST(GoldenFiles, FailATestWhenTheyAreMissing) { EXPECT_THROW(load("no_such_topic"), std::runtime_error); }

/// ‖got − wanted‖ ≤ rtol · ‖wanted‖, infinities being equal.
::testing::AssertionResult near(const std::vector<double>& got, const std::vector<double>& wanted, double rtol) {
  if (got.size() != wanted.size()) return ::testing::AssertionFailure() << got.size() << " elements, wanted " << wanted.size();
  double error = 0.0, norm = 0.0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (std::isinf(wanted[i]) && got[i] == wanted[i]) continue;
    error += (got[i] - wanted[i]) * (got[i] - wanted[i]);
    norm += wanted[i] * wanted[i];
  }
  if (std::sqrt(error) <= rtol * std::sqrt(norm)) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "relative error " << std::sqrt(error / norm) << ", first element " << got[0]
                                       << ", wanted " << wanted[0];
}

/// Runs `graph` as f64 on the reference and as recorded on the cpu backend; each output must be the golden tensor of that name
/// behind `prefix`.
void expect_golden(const Graph& graph, const testing::Inputs& inputs, const GoldenFile& golden, const std::string& prefix = {}) {
  ASSERT_FALSE(graph.outputs().empty());
  const testing::Inputs exact = testing::run_once(graph.to_f64(), *reference_backend(), inputs);
  const testing::Inputs fast = testing::run_once(graph, *cpu_backend(2), inputs);
  for (const auto& [name, value] : graph.outputs()) {
    const std::vector<double>& wanted = golden.at(prefix + name).values;
    EXPECT_TRUE(near(exact.at(name), wanted, 1e-10)) << prefix << name << " on the reference";
    EXPECT_TRUE(near(fast.at(name), wanted, 1e-5)) << prefix << name << " on the cpu";
  }
}

/// Adds the gradients of Σ out ∘ dout as outputs "d" + name.
void add_gradients(Graph& g, Value out, Value dout, const std::vector<Value>& wrt) {
  const Gradients gradients = differentiate(g, g.sum(g.mul(out, dout)), wrt);
  ASSERT_EQ(gradients.all.size(), wrt.size());
  for (const Gradient& gradient : gradients.all) g.output("d" + g.node(gradient.of).name, gradient.gradient);
}

struct AttentionCase {
  const char* name;
  std::int64_t heads, kv_heads, dim;
  bool causal;
};

class GoldenAttention : public ::testing::TestWithParam<AttentionCase> {};

TEST_P(GoldenAttention, MatchesPyTorch) {
  const auto& [name, heads, kv_heads, dim, causal] = GetParam();
  const GoldenFile golden = load("attention");
  const std::string prefix = std::string(name) + ".";
  const Golden &q = golden.at(prefix + "q"), &k = golden.at(prefix + "k");
  Graph g;
  const Value vq = g.input("q", {q.rows, q.cols}), vk = g.input("k", {k.rows, k.cols}), vv = g.input("v", {k.rows, k.cols});
  AttentionOptions options;
  options.mask = causal ? Mask::Kind::causal : Mask::Kind::full;
  const Value out = g.multi_head_attn(vq, vk, vv, heads, kv_heads, dim, true, options);
  g.output("out", out);
  g.output("lse", {out.node, 1});
  add_gradients(g, out, g.input("dout", {q.rows, q.cols}), {vq, vk, vv});
  testing::Inputs inputs;
  for (const char* input : {"q", "k", "v", "dout"}) inputs[input] = golden.at(prefix + input).values;
  expect_golden(g, inputs, golden, prefix);
}

INSTANTIATE_TEST_SUITE_P(, GoldenAttention,
                         ::testing::Values(AttentionCase{"causal", 2, 2, 8, true}, AttentionCase{"full", 2, 2, 8, false},
                                           AttentionCase{"cross", 2, 2, 8, false}, AttentionCase{"causal_gqa", 4, 2, 5, true},
                                           AttentionCase{"causal_mqa", 4, 1, 16, true},
                                           AttentionCase{"causal_bottom_right", 4, 2, 6, true},
                                           AttentionCase{"cross_gqa", 8, 2, 4, false}),
                         [](const auto& info) { return std::string(info.param.name); });

class GoldenRope : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenRope, MatchesHuggingFaceLlama) {
  const GoldenFile golden = load("rope");
  const std::string prefix = std::string(GetParam()) + ".";
  const Golden& x = golden.at(prefix + "x");
  const std::vector<double>& settings = golden.at(prefix + "settings").values;
  const auto dim = static_cast<std::int64_t>(settings[1]), first = static_cast<std::int64_t>(settings[2]);
  for (const bool dynamic : {false, true}) {
    Graph g;
    const Value vx = g.input("x", {x.rows, x.cols});
    testing::Inputs inputs = {{"x", x.values}, {"dout", golden.at(prefix + "dout").values}};
    if (dynamic) inputs["offset"] = {settings[2]};
    const Value out = dynamic ? g.rope_dynamic_offset(vx, settings[0], g.input_u32("offset", {}), dim)
                              : g.rope_with_offset(vx, settings[0], first, dim);
    g.output("out", out);
    add_gradients(g, out, g.input("dout", {x.rows, x.cols}), {vx});
    expect_golden(g, inputs, golden, prefix);
  }
}

INSTANTIATE_TEST_SUITE_P(, GoldenRope, ::testing::Values("theta_10000", "theta_500000", "offset"),
                         [](const auto& info) { return std::string(info.param); });

TEST(GoldenCrossEntropy, MatchesPyTorch) {
  const GoldenFile golden = load("cross_entropy");
  int cases = 0;
  for (const Reduction reduction : {Reduction::mean, Reduction::sum})
    for (const double smoothing : {0.0, 0.1})
      for (const bool ignoring : {false, true}) {
        const std::string prefix = std::string(reduction == Reduction::mean ? "mean" : "sum") +
                                   (smoothing > 0 ? "_smoothed" : "_plain") + (ignoring ? "_ignoring." : "_all.");
        Graph g;
        const Value logits = g.input("logits", {6, 9});
        const Value loss = g.cross_entropy(logits, g.input_u32("labels", {6}), {reduction, smoothing, ignoring ? 3 : kIgnoreIndex});
        g.output("loss", loss);
        g.output("dlogits", differentiate(g, loss, {logits}).of(g, logits));
        expect_golden(g, {{"logits", golden.at(prefix + "logits").values}, {"labels", golden.at(prefix + "labels").values}}, golden,
                      prefix);
        ++cases;
      }
  EXPECT_EQ(static_cast<std::size_t>(4 * cases), golden.size());
}

TEST(GoldenFunctions, MatchPyTorch) {
  const GoldenFile golden = load("functions");
  for (const UnaryFn fn :
       {UnaryFn::gelu, UnaryFn::gelu_tanh, UnaryFn::silu, UnaryFn::softplus, UnaryFn::sigmoid, UnaryFn::tanh, UnaryFn::relu}) {
    Graph g;
    const Value x = g.input("x", {32}), out = g.unary(fn, x);
    g.output("out", out);
    add_gradients(g, out, g.input("dout", {32}), {x});
    expect_golden(g, {{"x", golden.at("x").values}, {"dout", golden.at("dout").values}}, golden, op_name(Unary{fn}) + ".");
  }
  Graph g;
  const Value x = g.input("x", {3, 4}), loss = g.bce_with_logits(x, g.input("target", {3, 4}));
  g.output("loss", loss);
  g.output("dx", differentiate(g, loss, {x}).of(g, x));
  expect_golden(g, {{"x", golden.at("bce.x").values}, {"target", golden.at("bce.target").values}}, golden, "bce.");
}

TEST(GoldenNorms, MatchPyTorch) {
  const GoldenFile golden = load("norms");
  for (const bool layer : {false, true}) {
    Graph g;
    const Value x = g.input("x", {5, 12}), weight = g.input("weight", {12});
    testing::Inputs inputs = {
        {"x", golden.at("x").values}, {"weight", golden.at("weight").values}, {"dout", golden.at("dout").values}};
    std::vector<Value> wrt = {x, weight};
    if (layer) {
      wrt.push_back(g.input("bias", {12}));
      inputs["bias"] = golden.at("bias").values;
    }
    const Value out = layer ? g.layer_norm(x, weight, wrt[2]) : g.rms_norm(x, weight);
    g.output("out", out);
    add_gradients(g, out, g.input("dout", {5, 12}), wrt);
    expect_golden(g, inputs, golden, layer ? "layer_norm." : "rms_norm.");
  }
}

/// Row `step` of a golden tensor.
std::vector<double> row(const Golden& golden, std::int64_t step) {
  return {golden.values.begin() + step * golden.cols, golden.values.begin() + (step + 1) * golden.cols};
}

TEST(GoldenAdamW, MatchesTwentyStepsOfPyTorch) {
  const GoldenFile golden = load("adamw");
  Graph g;
  const Value w = g.parameter("w", {4, 3}), b = g.parameter("b", {3});
  const Value loss = g.mse(g.add(g.matmul(g.input("x", {8, 4}), w), b), g.input("target", {8, 3}));
  g.output("loss", loss);
  optim::UpdateOptions options;
  options.schedule = {.kind = Schedule::Kind::constant, .base = 0.05};
  options.clip_norm = 0.5;
  options.groups = {{.pattern = "b", .weight_decay = 0.0}};
  optim::adamw(g, differentiate(g, loss), {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1}, options);

  const std::unique_ptr<Backend> reference = reference_backend(), cpu = cpu_backend(2);
  for (const bool exact : {true, false}) {
    Session session(exact ? g.to_f64() : g, exact ? *reference : *cpu);
    for (const char* name : {"x", "target"}) testing::write(session, name, golden.at(name).values);
    testing::write(session, "w", golden.at("w.start").values);
    testing::write(session, "b", golden.at("b.start").values);
    const double rtol = exact ? 1e-10 : 1e-5;
    for (std::int64_t step = 0; step < 20; ++step) {
      session.step();
      ASSERT_TRUE(near(session.read_f64("loss"), {golden.at("losses").values[static_cast<std::size_t>(step)]}, rtol))
          << "step " << step;
      ASSERT_TRUE(near(session.read_f64("gradient_norm"), {golden.at("norms").values[static_cast<std::size_t>(step)]}, rtol))
          << "step " << step;
      ASSERT_TRUE(near(session.read_f64("w"), row(golden.at("w"), step), rtol)) << "step " << step;
      ASSERT_TRUE(near(session.read_f64("b"), row(golden.at("b"), step), rtol)) << "step " << step;
    }
    EXPECT_TRUE(near(session.read_f64("optimizer/exp_avg/w"), golden.at("exp_avg").values, rtol));
    EXPECT_TRUE(near(session.read_f64("optimizer/exp_avg_sq/w"), golden.at("exp_avg_sq").values, rtol));
  }
}

TEST(Golden, TokensThatMayBeDrawnAreThoseOfTransformers) {
  const GoldenFile golden = load("sampling");
  int cases = 0;
  for (const auto& [key, logits] : golden) {
    if (!key.ends_with(".logits")) continue;
    const std::string name = key.substr(0, key.size() - 6);
    const std::vector<double>&given = golden.at(name + "options").values, &seen = golden.at(name + "seen").values;
    const SampleOptions options = {.temperature = given[0],
                                   .top_k = static_cast<std::int64_t>(given[1]),
                                   .top_p = given[2],
                                   .min_p = given[3],
                                   .repetition_penalty = given[4]};
    std::vector<double> probabilities(logits.values.size());
    std::set<std::uint32_t> kept, wanted;
    for (const TokenProbability& x : token_probabilities(std::vector<float>(logits.values.begin(), logits.values.end()), options,
                                                         std::vector<std::uint32_t>(seen.begin(), seen.end()))) {
      probabilities[x.token] = x.probability;
      kept.insert(x.token);
    }
    for (std::uint32_t token = 0; token < logits.values.size(); ++token)
      if (golden.at(name + "probabilities").values[token] > 0.0) wanted.insert(token);
    EXPECT_EQ(kept, wanted) << name;
    EXPECT_TRUE(near(probabilities, golden.at(name + "probabilities").values, 1e-14)) << name;
    ++cases;
  }
  EXPECT_EQ(cases, 21);
}

}  // namespace
}  // namespace graft
