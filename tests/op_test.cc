// The generic proofs: every case of every op, see tests/op_cases.h.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <set>

#include "graft/error.h"
#include "graft/gtest.h"
#include "tests/cpu_variants.h"
#include "tests/op_cases.h"
#include "tests/run_graph.h"

namespace graft {
namespace {

using testing::Inputs;
using testing::OpCase;
using testing::has_differences;
using testing::obstacle;
using testing::OpCases;
using testing::with_gradients;
using testing::Wrapped;

const OpCases& every_case() {
  static const OpCases all = testing::all_cases();
  return all;
}

OpCases chosen(bool (*choose)(const OpCase&, const Wrapped&)) {
  OpCases some;
  for (const OpCase& op_case : every_case()) try {
      if (choose(op_case, testing::wrap(op_case))) some.push_back(op_case);
    } catch (const std::exception&) {
      some.push_back(op_case);  // fails by name when it runs
    }
  return some;
}

bool holds_bf16(const OpCase&, const Wrapped& wrapped) {
  for (const Node& node : wrapped.graph.nodes())
    if (node.outputs[0].dtype == DType::bf16) return true;
  return false;
}
bool is_refused(const OpCase&, const Wrapped& wrapped) {
  return wrapped.loss && !wrapped.inputs.empty() && obstacle(wrapped.graph, wrapped.loss, wrapped.inputs);
}

std::string name_of(const ::testing::TestParamInfo<OpCase>& info) { return info.param.name; }

class OpGradient : public ::testing::TestWithParam<OpCase> {};
class OpRefusesGradient : public ::testing::TestWithParam<OpCase> {};
class OpCpu : public ::testing::TestWithParam<OpCase> {};
class OpReference : public ::testing::TestWithParam<OpCase> {};
class OpGraph : public ::testing::TestWithParam<OpCase> {};
class OpBf16 : public ::testing::TestWithParam<OpCase> {};

TEST_P(OpGradient, MatchesFiniteDifferences) {
  const Wrapped wrapped = testing::wrap(GetParam());
  GradientCheckOptions options;
  options.inputs = testing::values_of(GetParam(), wrapped.graph);
  options.wrt = wrapped.inputs;
  const GradientCheckReport report = gradient_check(wrapped.graph, wrapped.loss, options);
  EXPECT_TRUE(report.passed) << report.to_string();
  EXPECT_EQ(report.unreached, GetParam().unreached);
  EXPECT_EQ(report.rows.size() + report.unreached.size(), wrapped.inputs.size());
}

TEST_P(OpRefusesGradient, NamesTheNodeAndTheReason) {
  Wrapped wrapped = testing::wrap(GetParam());
  std::set<std::string> blamed;  // when several nodes are in the way, any of them may be named
  for (const Node& node : wrapped.graph.nodes())
    if (const std::string reason = testing::no_gradient_of(node.op); !reason.empty())
      blamed.insert("\"" + node.name + "\": " + reason);
  try {
    differentiate(wrapped.graph, wrapped.loss, wrapped.inputs);
    FAIL() << "was differentiated";
  } catch (const Error& error) {
    const std::string message = error.what();
    const bool named = std::any_of(blamed.begin(), blamed.end(), [&](const std::string& part) {
      const auto colon = part.find("\": ");
      return message.find(part.substr(0, colon + 1)) != std::string::npos &&
             message.find(part.substr(colon + 3)) != std::string::npos;
    });
    EXPECT_TRUE(named) << message;
  }
}

TEST_P(OpCpu, MatchesReference) {
  const Graph graph = with_gradients(GetParam());
  BackendCheckOptions options;
  options.inputs = testing::values_of(GetParam(), graph);
  options.rtol = GetParam().rtol;
  for (const auto& backend : testing::cpu_backends(2)) EXPECT_TRUE(backend_matches(graph, *backend, options)) << GetParam().rtol_reason;
}

/// Bit for bit.
void expect_same(const Inputs& got, const Inputs& wanted, const std::string& where) {
  for (const auto& [name, values] : wanted)
    for (std::size_t i = 0; i < values.size(); ++i)
      ASSERT_EQ(std::bit_cast<std::uint64_t>(values[i]), std::bit_cast<std::uint64_t>(got.at(name)[i]))
          << name << " element " << i << ", " << where;
}

TEST_P(OpCpu, GivesTheSameBitsWithAnyNumberOfThreads) {
  const Graph graph = with_gradients(GetParam());
  const Inputs inputs = testing::values_of(GetParam(), graph);
  for (const cpu::Variant& variant : testing::cpu_variants()) {
    const Inputs one = testing::run_once(graph, *cpu::make_backend(variant, 1), inputs);
    for (const int threads : {2, 4}) {
      const auto backend = cpu::make_backend(variant, threads);
      expect_same(testing::run_once(graph, *backend, inputs), one, backend->description());
    }
  }
}

TEST_P(OpCpu, RunsF64AsTheReferenceDoes) {
  const Graph graph = with_gradients(GetParam()).to_f64();
  const Inputs inputs = testing::values_of(GetParam(), graph);
  expect_same(testing::run_once(graph, *cpu_backend(2), inputs), testing::run_once(graph, *reference_backend(), inputs), "f64");
}

/// The graph with its arithmetic in bf16 spelled out: values are widened by casts, computed with in f32, rounded by casts. Left as they are:
/// products, which another library may sum in another order, and what writes to states.
Graph spelled_out(const Graph& graph) {
  Graph made(graph.seed());
  std::vector<std::vector<Value>> now;
  for (const Node& node : graph.nodes()) {
    const auto is = [&]<class... T>(std::type_identity<T>...) { return (std::holds_alternative<T>(node.op) || ...); };
    const bool same = node.inputs.empty() || is(std::type_identity<Cast>(), std::type_identity<MatMul>(), std::type_identity<LinearCrossEntropy>(),
                                                std::type_identity<LinearCrossEntropyGrad>(), std::type_identity<CacheWrite>(), std::type_identity<Assign>());
    std::vector<Value> inputs;
    for (const Value v : node.inputs) {
      inputs.push_back(now[static_cast<std::size_t>(v.node)][static_cast<std::size_t>(v.slot)]);
      if (!same && made.type(inputs.back()).dtype == DType::bf16) inputs.back() = made.cast(inputs.back(), DType::f32);
    }
    Op op = node.op;
    std::visit(
        [&](auto& o) {
          if constexpr (requires { o.bf16; }) o.bf16 = o.bf16 && same;
        },
        op);
    const Value v = made.record(op, inputs, node.inputs.empty() ? node.name : std::string());
    now.emplace_back();
    for (std::int32_t slot = 0; slot < static_cast<std::int32_t>(node.outputs.size()); ++slot) {
      const Value out{v.node, slot};
      const bool narrow = node.outputs[static_cast<std::size_t>(slot)].dtype == DType::bf16;
      now.back().push_back(narrow && !same ? made.cast(out, DType::bf16) : out);
    }
  }
  for (const auto& [name, v] : graph.outputs()) made.output(name, now[static_cast<std::size_t>(v.node)][static_cast<std::size_t>(v.slot)]);
  return made;
}

TEST_P(OpBf16, ComputesInF32AndRoundsOnce) {
  const Graph graph = with_gradients(GetParam()), wide = spelled_out(graph);
  const Inputs inputs = testing::values_of(GetParam(), graph);
  const auto reference = reference_backend();
  expect_same(testing::run_once(graph, *reference, inputs), testing::run_once(wide, *reference, inputs), "reference");
  for (const auto& backend : testing::cpu_backends(2))
    expect_same(testing::run_once(graph, *backend, inputs), testing::run_once(wide, *backend, inputs), backend->description());
}

/// Where the scaled inputs die at the op, its outputs may take their place; with keep_all nothing takes any place.
void expect_same_in_place(const OpCase& op_case, Backend& backend) {
  for (const Graph& graph : {with_gradients(op_case), testing::wrap(op_case).graph}) {
    const Inputs inputs = testing::values_of(op_case, graph);
    expect_same(testing::run_once(graph, backend, inputs), testing::run_once(graph, backend, inputs, {.keep_all = true}),
                "in place");
  }
}

TEST_P(OpCpu, GivesTheSameBitsInPlace) {
  for (const auto& backend : testing::cpu_backends(2)) expect_same_in_place(GetParam(), *backend);
}
TEST_P(OpReference, GivesTheSameBitsInPlace) { expect_same_in_place(GetParam(), *reference_backend()); }

TEST_P(OpReference, InF32MatchesItselfInF64) {
  const Graph graph = with_gradients(GetParam());
  const std::unique_ptr<Backend> backend = reference_backend();
  BackendCheckOptions options;
  options.inputs = testing::values_of(GetParam(), graph);
  options.rtol = GetParam().rtol;
  EXPECT_TRUE(backend_matches(graph, *backend, options)) << GetParam().rtol_reason;
}

TEST_P(OpGraph, PrintsVerifiesAndWidens) {
  const Graph graph = with_gradients(GetParam());
  EXPECT_NO_THROW(graph.verify());
  const std::string text = "\n" + graph.to_text(), dot = graph.to_dot();
  for (const Node& node : graph.nodes()) {
    EXPECT_NE(text.find("\n" + node.name + " = " + op_name(node.op)), std::string::npos) << node.name << text;
    EXPECT_NE(dot.find(node.name + "\\n" + op_name(node.op)), std::string::npos) << node.name << dot;
    EXPECT_NE(text.find(op_attributes(node.op)), std::string::npos);
  }
  EXPECT_EQ(graph.hash(), with_gradients(GetParam()).hash());
  const Graph wide = graph.to_f64();
  EXPECT_NO_THROW(wide.verify());
  for (const Node& node : wide.nodes())
    for (const TensorType& type : node.outputs) EXPECT_NE(type.dtype, DType::f32) << node.name;
}

INSTANTIATE_TEST_SUITE_P(, OpGradient, ::testing::ValuesIn(chosen(has_differences)), name_of);
INSTANTIATE_TEST_SUITE_P(, OpRefusesGradient, ::testing::ValuesIn(chosen(is_refused)), name_of);
INSTANTIATE_TEST_SUITE_P(, OpCpu, ::testing::ValuesIn(every_case()), name_of);
INSTANTIATE_TEST_SUITE_P(, OpReference, ::testing::ValuesIn(every_case()), name_of);
INSTANTIATE_TEST_SUITE_P(, OpBf16, ::testing::ValuesIn(chosen(holds_bf16)), name_of);
INSTANTIATE_TEST_SUITE_P(, OpGraph, ::testing::ValuesIn(every_case()), name_of);

/// Name and, where the attributes make another function of it, axis.
std::string key_of(const Op& op) {
  const bool by_axis =
      std::holds_alternative<Reduce>(op) || std::holds_alternative<ReduceMaxGrad>(op) || std::holds_alternative<Concat>(op);
  return op_name(op) + (by_axis ? " " + op_attributes(op) : "");
}

template <class T>
void expect_kinds(std::set<std::string>& keys) {
  constexpr std::array kAxes = {Axis::all, Axis::rows, Axis::columns};
  if constexpr (std::is_same_v<T, Unary> || std::is_same_v<T, UnaryGrad>) {
    for (const UnaryFn fn : kUnaryFns) keys.insert(key_of(T{fn}));
  } else if constexpr (std::is_same_v<T, Binary>) {
    for (const BinaryFn fn : kBinaryFns) keys.insert(key_of(T{fn}));
  } else if constexpr (std::is_same_v<T, Reduce>) {
    for (const ReduceFn fn : {ReduceFn::sum, ReduceFn::mean, ReduceFn::max})
      for (const Axis axis : kAxes) keys.insert(key_of(T{fn, axis}));
  } else if constexpr (std::is_same_v<T, ReduceMaxGrad>) {
    for (const Axis axis : kAxes) keys.insert(key_of(T{axis}));
  } else if constexpr (std::is_same_v<T, Concat>) {
    for (const Axis axis : {Axis::rows, Axis::columns}) keys.insert(key_of(T{axis}));
  } else {
    keys.insert(key_of(T{}));
  }
}

TEST(OpCaseList, HoldsEveryOp) {
  std::set<std::string> expected, found;
  [&]<std::size_t... I>(std::index_sequence<I...>) { (expect_kinds<std::variant_alternative_t<I, Op>>(expected), ...); }
  (std::make_index_sequence<std::variant_size_v<Op>>());
  for (const OpCase& op_case : every_case()) {
    const Graph graph = with_gradients(op_case);
    for (const Node& node : graph.nodes()) found.insert(key_of(node.op));
  }
  for (const std::string& key : expected) EXPECT_TRUE(found.contains(key)) << "no case graph holds " << key;
}

TEST(OpCaseList, HoldsEveryAttentionMaskInEverySegmentLayout) {
  std::set<std::pair<Mask::Kind, SegmentLayout::Kind>> found, expected;
  for (const Mask::Kind mask : {Mask::Kind::full, Mask::Kind::causal, Mask::Kind::window})
    for (const auto segments : {SegmentLayout::Kind::single, SegmentLayout::Kind::uniform, SegmentLayout::Kind::packed})
      expected.emplace(mask, segments);
  for (const OpCase& op_case : every_case()) {
    const Graph graph = with_gradients(op_case);
    for (const Node& node : graph.nodes())
      if (const auto* grad = std::get_if<MultiHeadAttnGradK>(&node.op))
        found.emplace(grad->attn.mask.kind, grad->attn.segments.kind);
  }
  EXPECT_EQ(found, expected);
}

TEST(OpCaseList, SaysWhyAToleranceIsWider) {
  for (const OpCase& op_case : every_case()) EXPECT_EQ(op_case.rtol > 1e-5, !op_case.rtol_reason.empty()) << op_case.name;
}

/// A gradient that only a saved statistic would carry.
void expect_statistic_refused(const std::function<Value(Graph&)>& record, std::int32_t slot, const std::string& what) {
  Graph g;
  const Value out = record(g);
  const Value loss = g.sum(Value{out.node, slot});
  try {
    differentiate(g, loss, {g.find("x")});
    FAIL() << what << " was differentiated";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("\"" + g.node(out).name + "\""), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find(what), std::string::npos) << error.what();
  }
}

TEST(OpRefusesGradientOf, StatisticsOfNorms) {
  const auto rms = [](Graph& g) { return g.rms_norm(g.input("x", {2, 3}), g.input("w", {3})); };
  const auto layer = [](Graph& g) { return g.layer_norm(g.input("x", {2, 3}), g.input("w", {3}), g.input("b", {3})); };
  expect_statistic_refused(rms, 1, "rstd");
  expect_statistic_refused(layer, 1, "mean");
  expect_statistic_refused(layer, 2, "rstd");
}

TEST(OpRefusesGradientOf, TheLseOfLinearCrossEntropy) {
  expect_statistic_refused(
      [](Graph& g) {
        return g.linear_cross_entropy(g.input("x", {2, 3}), g.input("w", {3, 4}), g.input_u32("t", {2})).loss;
      },
      1, "lse");
}

}  // namespace
}  // namespace graft
