// The cpu backend at sizes where it splits work: right against the reference, and the same bits with any number of threads.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "graft/error.h"
#include "graft/gtest.h"
#include "graft/optim.h"
#include "tests/cpu_variants.h"
#include "tests/run_graph.h"

namespace graft {
namespace {

/// A graph whose ops are large enough for several threads, with u32 inputs where it has some.
struct Large {
  std::string name;
  std::function<testing::Inputs(Graph&)> build;
  double rtol = 1e-5;
};
std::ostream& operator<<(std::ostream& out, const Large& large) { return out << large.name; }

/// Outputs y, and the gradients of all parameters (and inputs of f32) of Σ y ∘ weights.
void output_with_gradients(Graph& g, Value y) {
  g.output("y", y);
  const Value weights = g.parameter("weights", g.shape(y), Init::normal(0.0, 1.0));
  differentiate(g, g.sum(g.mul(y, weights)), {}, true);
}

Value random(Graph& g, const std::string& name, Shape shape, double mean = 0.0) {
  return g.parameter(name, shape, Init::normal(mean, 1.0));
}

std::vector<double> counting(std::int64_t n, std::uint32_t modulus) {
  std::vector<double> values;
  for (std::int64_t i = 0; i < n; ++i) values.push_back(static_cast<double>((i * 7919 + i * i) % modulus));
  return values;
}

Large product(bool transpose_a, bool transpose_b) {
  return {"matmul" + std::string(transpose_a ? "_ta" : "") + (transpose_b ? "_tb" : ""), [=](Graph& g) {
            const Value a = random(g, "a", transpose_a ? Shape{150, 333} : Shape{333, 150});
            const Value b = random(g, "b", transpose_b ? Shape{210, 150} : Shape{150, 210});
            output_with_gradients(g, g.matmul_bias(a, b, random(g, "bias", {210}), transpose_a, transpose_b));
            return testing::Inputs();
          }};
}

Large unary(UnaryFn fn) {
  return {op_name(Unary{fn}), [=](Graph& g) {
            const bool positive = fn == UnaryFn::log || fn == UnaryFn::sqrt;
            const Value x = g.parameter("x", {301, 167}, positive ? Init::uniform(0.5, 3.0) : Init::normal(0.0, 3.0));
            output_with_gradients(g, g.unary(fn, x, 0.7));
            return testing::Inputs();
          }};
}

Large binary(BinaryFn fn) {
  return {op_name(Binary{fn}), [=](Graph& g) {
            const Value x = random(g, "x", {301, 167});
            const auto b = [&](const char* name, Shape shape) { return g.parameter(name, shape, Init::uniform(0.5, 2.0)); };
            Value y = g.binary(fn, x, b("same", {301, 167}));
            y = g.binary(fn, y, b("row", {167}));
            y = g.binary(fn, y, b("column", {301, 1}));
            output_with_gradients(g, g.binary(fn, y, b("scalar", {})));
            return testing::Inputs();
          }};
}

/// Without offsets two sequences of 290 rows each.
Large attention(std::string name, std::int64_t head_dim, Mask mask, std::vector<double> offsets = {}) {
  return {std::move(name), [=](Graph& g) {
            constexpr std::int64_t kRows = 580, kHeads = 4, kKvHeads = 2;
            const Value q = random(g, "q", {kRows, kHeads * head_dim}), k = random(g, "k", {kRows, kKvHeads * head_dim});
            const Value v = random(g, "v", {kRows, kKvHeads * head_dim});
            AttentionOptions options;
            options.window = mask.window;
            options.mask = mask.kind;
            testing::Inputs inputs;
            if (!offsets.empty()) {
              options.segments = Segments::packed(g.input_u32("offsets", {6}));
              inputs["offsets"] = offsets;
            } else {
              options.segments = Segments::uniform(290);
            }
            const Value r = g.rope(q, 10000.0, head_dim, options.segments);
            output_with_gradients(g, g.multi_head_attn(r, k, v, kHeads, kKvHeads, head_dim, false, options));
            return inputs;
          }};
}

Large reduce(ReduceFn fn) {
  return {"reduce_" + op_name(Reduce{fn}), [=](Graph& g) {
            const Value x = random(g, "x", {301, 167}, 0.3);
            g.output("all", g.reduce(fn, x, Axis::all));
            g.output("rows", g.reduce(fn, x, Axis::rows));
            g.output("columns", g.reduce(fn, x, Axis::columns));
            return testing::Inputs();
          }};
}

Large updates(std::string name, std::function<void(Graph&, const Gradients&)> optimizer) {
  return {std::move(name), [=](Graph& g) {
            const Value w = random(g, "w", {190, 301}), x = random(g, "x", {40, 190});
            const Value loss = g.mean(g.mul(g.matmul(x, w), g.matmul(x, w)));
            g.output("loss", loss);
            optimizer(g, differentiate(g, loss));
            return testing::Inputs();
          }};
}

optim::UpdateOptions clipped() {
  optim::UpdateOptions options;
  options.schedule.base = 0.01;
  options.clip_norm = 0.5;
  return options;
}

std::vector<Large> all_large() {
  std::vector<Large> all;
  for (const bool a : {false, true})
    for (const bool b : {false, true}) all.push_back(product(a, b));
  for (const UnaryFn fn : kUnaryFns) all.push_back(unary(fn));
  for (const BinaryFn fn : kBinaryFns) all.push_back(binary(fn));
  for (const ReduceFn fn : {ReduceFn::sum, ReduceFn::mean, ReduceFn::max}) all.push_back(reduce(fn));
  all.push_back({"swiglu", [](Graph& g) {
                   output_with_gradients(g, g.swiglu(random(g, "gate", {301, 167}), random(g, "up", {301, 167})));
                   return testing::Inputs();
                 }});
  all.push_back({"dropout", [](Graph& g) {
                   output_with_gradients(g, g.dropout(random(g, "x", {301, 167}), 0.3));
                   return testing::Inputs();
                 }});
  all.push_back({"shape", [](Graph& g) {
                   const Value x = random(g, "x", {301, 167}), t = g.transpose(x), s = g.slice(t, 3, 150, 20, 270);
                   const Value parts[] = {s, g.slice(t, 0, 150, 1, 200), s};
                   output_with_gradients(g, g.concat(parts, Axis::columns));
                   return testing::Inputs();
                 }});
  all.push_back({"softmax", [](Graph& g) {
                   output_with_gradients(g, g.softmax(g.log_softmax(random(g, "x", {301, 167}))));
                   return testing::Inputs();
                 }});
  all.push_back({"norms", [](Graph& g) {
                   const Value x = random(g, "x", {301, 167}, 1.0);
                   const Value y = g.rms_norm(x, random(g, "w", {167}));
                   output_with_gradients(g, g.layer_norm(y, random(g, "v", {167}), random(g, "b", {167})));
                   return testing::Inputs();
                 }});
  all.push_back({"tokens", [](Graph& g) {
                   const Value ids = g.input_u32("ids", {301}), labels = g.input_u32("labels", {301});
                   const Value logits = g.embedding(random(g, "table", {131, 167}), ids);
                   const auto [loss, lse, counted] = g.cross_entropy_with(logits, labels, {.label_smoothing = 0.1});
                   g.output("lse", lse);
                   g.output("counted", counted);
                   g.output("loss", loss);
                   differentiate(g, g.scale(loss, 1.5), {}, true);
                   testing::Inputs inputs = {{"ids", counting(301, 131)}, {"labels", counting(301, 167)}};
                   inputs["labels"][5] = inputs["labels"][300] = kIgnoreIndex;
                   return inputs;
                 }});
  for (const bool transposed : {false, true}) {
    all.push_back({std::string("linear_cross_entropy") + (transposed ? "_transposed" : ""), [=](Graph& g) {
                     const Value x = random(g, "x", {301, 67}), w = random(g, "w", transposed ? Shape{8193, 67} : Shape{67, 8193});
                     const CrossEntropyResult loss =
                         g.linear_cross_entropy(x, w, g.input_u32("labels", {301}), {.label_smoothing = 0.1}, transposed);
                     g.output("lse", loss.lse);
                     g.output("counted", loss.counted);
                     g.output("loss", loss.loss);
                     differentiate(g, g.scale(loss.loss, 1.5), {}, true);
                     testing::Inputs inputs = {{"labels", counting(301, 8193)}};
                     inputs["labels"][5] = inputs["labels"][300] = kIgnoreIndex;
                     return inputs;
                   }});
  }
  all.push_back(attention("attention_causal", 64, {Mask::Kind::causal}));
  all.push_back(attention("attention_window_packed", 24, {Mask::Kind::window, 140}, {0, 1, 1, 130, 260, 580}));
  all.push_back(attention("attention_full_packed", 16, {Mask::Kind::full}, {0, 1, 1, 130, 260, 580}));
  // As many sequences as tiles, though one has them all.
  all.push_back(attention("attention_empty_sequences", 16, {Mask::Kind::causal}, {0, 0, 0, 0, 0, 580}));
  all.push_back(
      {"cached_attention", [](Graph& g) {
         const Value q = random(g, "q", {1, 4 * 24}), k = random(g, "k", {700, 2 * 24}), v = random(g, "v", {700, 2 * 24});
         g.output("y", g.cached_attention(q, k, v, g.input_u32("kv_len", {}), 4, 2, 24));
         return testing::Inputs{{"kv_len", {600}}};
       }});
  all.push_back(updates("adamw", [](Graph& g, const Gradients& gradients) { optim::adamw(g, gradients, {}, clipped()); }));
  all.push_back(updates("sgd", [](Graph& g, const Gradients& gradients) {
    optim::sgd(g, gradients, {0.9, 0.1, true}, clipped());
  }));
  all.push_back(updates("lion", [](Graph& g, const Gradients& gradients) { optim::lion(g, gradients, {}, clipped()); }));
  return all;
}

class Cpu : public ::testing::TestWithParam<Large> {};
INSTANTIATE_TEST_SUITE_P(, Cpu, ::testing::ValuesIn(all_large()), [](const auto& info) { return info.param.name; });

TEST_P(Cpu, MatchesTheReferenceWhereThreadsShareTheWork) {
  Graph graph(7);
  const testing::Inputs inputs = GetParam().build(graph);
  for (const auto& backend : testing::cpu_backends(3))
    EXPECT_TRUE(backend_matches(graph, *backend, {.rtol = GetParam().rtol, .inputs = inputs}));
}

TEST_P(Cpu, HasTheSameBitsWithOneTwoAndFourThreads) {
  Graph graph(7);
  const testing::Inputs inputs = GetParam().build(graph);
  for (const cpu::Variant& variant : testing::cpu_variants()) {
    const testing::Inputs one = testing::run_once(graph, *cpu::make_backend(variant, 1), inputs);
    for (const int threads : {2, 4}) {
      const auto backend = cpu::make_backend(variant, threads);
      const testing::Inputs got = testing::run_once(graph, *backend, inputs);
      ASSERT_EQ(got.size(), one.size());
      for (const auto& [name, values] : one) EXPECT_EQ(got.at(name), values) << name << ", " << backend->description();
    }
  }
}

TEST(CpuBackend, RunsF64OnTheReferenceKernels) {
  Graph graph(7);
  const testing::Inputs inputs = attention("", 16, {Mask::Kind::causal}, {0, 1, 1, 130, 260, 580}).build(graph);
  const Graph wide = graph.to_f64();
  EXPECT_EQ(testing::run_once(wide, *cpu_backend(2), inputs), testing::run_once(wide, *reference_backend(), inputs));
}

TEST(CpuBackend, SaysWhatItIs) {
  EXPECT_TRUE(cpu_backend(1)->description().ends_with(", 1 thread)")) << cpu_backend(1)->description();
  EXPECT_TRUE(cpu_backend(3)->description().ends_with(", 3 threads)")) << cpu_backend(3)->description();
  EXPECT_TRUE(cpu_backend(3)->description().starts_with("cpu (")) << cpu_backend(3)->description();
}

TEST(CpuBackend, IsTheFirstVariantThatTheProcessorRuns) {
  const auto all = cpu::variants();
  ASSERT_FALSE(all.empty());
  EXPECT_TRUE(all.back().runs());
  const std::string name(testing::cpu_variants().front().name), text = cpu_backend(1)->description();
  EXPECT_TRUE(text.ends_with((name.empty() ? "" : ", " + name) + ", 1 thread)")) << text;
  EXPECT_EQ(std::count(text.begin(), text.end(), ','), name.empty() ? 1 : 2) << text;
  EXPECT_EQ(all.size() == 1, name.empty());
  for (const cpu::Variant& variant : testing::cpu_variants())
    EXPECT_NE(cpu::make_backend(variant, 1)->description().find(variant.name), std::string::npos) << variant.name;
}

TEST(CpuBackend, RefusesANegativeNumberOfThreads) {
  try {
    cpu_backend(-2);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "cpu backend: the number of threads must not be negative, got -2");
  }
}

TEST(CpuBackend, SaysHowMuchMemoryItCouldNotHave) {
  for (const auto& backend : testing::cpu_backends(1))
    for (const std::size_t bytes : {std::size_t{1} << 60, std::numeric_limits<std::size_t>::max()}) try {
        backend->free(backend->allocate(bytes));
        FAIL() << "no error";
      } catch (const Error& error) {
        EXPECT_EQ(error.what(), "cpu backend: not enough memory for " + std::to_string(bytes) + " bytes");
      }
}

TEST(CpuBackend, TilesOfKeysThatAddToTheSameQueriesTakeTurns) {
  Graph g(3);
  const Value q = random(g, "q", {1500, 4}), k = random(g, "k", {1500, 4}), v = random(g, "v", {1500, 4});
  const Value out = g.full_attention(q, k, v, 1, 1, 4);
  const Gradients gradients = differentiate(g, g.sum(g.mul(out, random(g, "dout", {1500, 4}))), {q});
  g.output("dq", gradients.all[0].gradient);
  const auto one = cpu_backend(1), four = cpu_backend(4);
  Session alone(g, *one), together(g, *four);
  alone.step();
  for (int step = 0; step < 5; ++step) {
    together.step();
    ASSERT_EQ(together.read("dq"), alone.read("dq")) << "step " << step;
  }
}

TEST(CpuBackend, AttentionsScratchMemoryDoesNotGrowWithTheSequence) {
  const auto scratch = [](std::int64_t rows) {
    Graph g;
    const Value q = g.input("q", {rows, 6 * 64}), kv = g.input("kv", {rows, 2 * 64});
    const Value out = g.causal_attention(q, kv, kv, 6, 2, 64);
    const Gradients gradients = differentiate(g, g.sum(out), {q});
    const auto backend = cpu_backend(2);
    return std::max(backend->workspace(g, g.node(out)), backend->workspace(g, g.node(gradients.all[0].gradient)));
  };
  EXPECT_LT(scratch(16384) - scratch(256), 8192u);  // what tiles there are
}

TEST(CpuBackend, SoftmaxWeightsOfAttentionAreRightToTheLastBits) {
#if defined(__FMA__)
  constexpr double kGrowth = 1.0 / 16.0;  // units in the last place for each unit of x
#else
  constexpr double kGrowth = 1.0 / 2.0;  // a multiple of ln 2 is rounded before it is taken away
#endif
  constexpr std::int64_t kRows = 4000;
  Graph g;
  const Value q = g.input("q", {kRows, 1}), k = g.constant({2, 1}, {0.0, -1.0}), v = g.constant({2, 1}, {0.0, 1.0});
  g.output("out", g.cross_attention(q, k, v, 1, 1, 1));
  std::vector<double> x;
  for (std::int64_t i = 0; i < kRows; ++i) x.push_back(static_cast<float>(0.0217 * static_cast<double>(i)));  // up to 87
  const std::vector<double> out = testing::run_once(g, *cpu_backend(1), {{"q", x}}).at("out");
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double want = std::exp(-x[i]) / (1.0 + std::exp(-x[i]));
    ASSERT_NEAR(out[i], want, want * std::ldexp(4.0 + x[i] * kGrowth, -23)) << "exp(-" << x[i] << ")";
  }
}

TEST(CpuBackend, LayerNormKeepsItsPrecisionFarFromZero) {
  Graph g(3);
  const Value x = g.parameter("x", {5, 100}, Init::normal(3000.0, 1.0));
  g.output("y", g.layer_norm(x, g.parameter("w", {100}, Init::ones()), g.parameter("b", {100})));
  EXPECT_TRUE(backend_matches(g, *cpu_backend(1), {.rtol = 1e-6, .inputs = {}}));
}

}  // namespace
}  // namespace graft
