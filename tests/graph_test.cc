// Effects on states, names, scopes, printing, hashes.
#include <gtest/gtest.h>

#include <functional>
#include <set>

#include "graft/error.h"
#include "graft/graph.h"

namespace graft {
namespace {

void expect_error(const std::function<void()>& act, const std::string& message) {
  try {
    act();
    FAIL() << "no error, wanted: " << message;
  } catch (const Error& error) {
    EXPECT_EQ(error.what(), message);
  }
}

TEST(GraphEffects, AnOverwrittenStateIsNotReadAgain) {
  Graph g;
  const Value cache = g.state("cache.k", {8, 4}), pos = g.input_u32("pos", {});
  const Value written = g.cache_write(g.input("row", {1, 4}), cache, pos, "write");
  const std::string say = R"(reads "cache.k" after "write" overwrote it, use the value that "write" returned)";
  expect_error(
      [&] {
        g.cached_attention(g.input("q", {1, 4}), cache, written, pos, 1, 1, 4, {}, "attn");
      },
      R"(cached_attention "attn": )" + say);
  expect_error([&] { g.cache_write(g.find("row"), cache, pos, "again"); }, R"(cache_write "again": )" + say);
  expect_error([&] { g.output("k", cache); },
               R"(output "k": "cache.k" was overwritten by "write", use the value that it returned)");
  EXPECT_NO_THROW(g.cached_attention(g.find("q"), written, written, pos, 1, 1, 4));
  EXPECT_NO_THROW(g.cache_write(g.find("row"), written, pos));
}

TEST(GraphEffects, AViewOfAnOverwrittenStateIsNotReadAgain) {
  Graph g;
  const Value state = g.state("s", {2, 3});
  const Value view = g.reshape(state, {6}, "flat"), copy = g.exp(state);
  g.assign(g.input("x", {2, 3}), state, "set");
  expect_error([&] { g.exp(view); }, R"(exp "exp_1": reads "flat" after "set" overwrote it, use the value that "set" returned)");
  EXPECT_NO_THROW(g.log(copy));
}

TEST(GraphEffects, DropoutAfterTheCounterAdvancedIsRefused) {
  Graph g;
  const Value x = g.input("x", {4});
  g.dropout(x, 0.5);
  g.advance_rng();
  g.advance_rng();  // nothing is left to advance
  expect_error(
      [&] { g.dropout(x, 0.5, "late"); },
      R"(dropout "late": reads "rng/counter" after "rng/advance" overwrote it, use the value that "rng/advance" returned)");
}

TEST(GraphNames, NumbersUnnamedNodesAndKeepsGivenNames) {
  Graph g;
  const Value x = g.input("x", {2, 2});
  EXPECT_EQ(g.node(g.exp(x)).name, "exp_0");
  EXPECT_EQ(g.node(g.exp(x)).name, "exp_1");
  EXPECT_EQ(g.node(g.log(x)).name, "log_0");
  EXPECT_EQ(g.node(g.softmax(x, "exp_2")).name, "exp_2");
  EXPECT_EQ(g.node(g.exp(x)).name, "exp_3");
  EXPECT_EQ(g.node(g.causal_attention(x, x, x, 1, 1, 2)).name, "causal_attention_0");
}

TEST(GraphNames, ScopesPrefixNodesAndNotSources) {
  Graph g;
  const Value x = g.input("x", {2});
  {
    const Graph::Scope layer(g, "layers.0");
    EXPECT_EQ(g.node(g.exp(x)).name, "layers.0.exp_0");
    {
      const Graph::Scope inner(g, "mlp");
      EXPECT_EQ(g.node(g.softmax(x, "act")).name, "layers.0.mlp.act");
      EXPECT_EQ(g.node(g.parameter("w", {2})).name, "w");
    }
    EXPECT_EQ(g.node(g.exp(x)).name, "layers.0.exp_1");
  }
  EXPECT_EQ(g.node(g.exp(x)).name, "exp_0");
}

TEST(GraphNames, FindsSourcesAndNodesByName) {
  Graph g;
  const Value x = g.input("x", {2}), y = g.softmax(x, "y");
  EXPECT_EQ(g.find("x"), x);
  EXPECT_EQ(g.find("y"), y);
  EXPECT_FALSE(g.find("z"));
}

TEST(GraphNames, ListsParametersInTheirOrder) {
  Graph g;
  const Value b = g.parameter("b", {2});
  g.input("x", {2});
  const Value a = g.parameter("a", {2});
  EXPECT_EQ(g.parameters(), (std::vector<Value>{b, a}));
}

TEST(GraphNames, AValueMayBeSeveralOutputs) {
  Graph g;
  const Value y = g.exp(g.input("x", {2}));
  g.output("a", y);
  g.output("b", y);
  g.output("a", y);
  EXPECT_EQ(g.outputs().size(), 2u);
}

/// A small graph with something of every kind that printing knows.
Graph small() {
  Graph g(3);
  const Value x = g.input("x", {4, 8}), labels = g.input_u32("labels", {4});
  const Value w = g.parameter("head.weight", {8, 5}, Init::normal(0.0, 0.02));
  const Value attn = g.causal_attention(x, x, x, 4, 4, 2, {.window = 3, .segments = Segments::uniform(2)});
  const Value h = g.add(x, g.dropout(g.scale(attn, 0.5), 0.1));
  const CrossEntropyResult loss = g.cross_entropy_with(g.matmul(h, w), labels, {Reduction::sum, 0.1, 7}, "loss");
  const Graph::Scope scope(g, "metrics");
  g.output("perplexity", g.exp(g.div(loss.loss, loss.counted)));
  g.output("row_lse", loss.lse);
  return g;
}

TEST(GraphPrinting, TextIsOneLineANode) {
  EXPECT_EQ(small().to_text(), R"(x = input() -> f32[4, 8]
labels = input() -> u32[4]
head.weight = parameter[init=normal(0, 0.02)]() -> f32[8, 5]
causal_attention_0 = multi_head_attn[heads=4/4x2 mask=window(3) scale=0.7071067811865475 segments=2/2](x, x, x) -> f32[4, 8], f32[4, 4]
scale_0 = scale[0.5](causal_attention_0) -> f32[4, 8]
rng/counter = state[init=0]() -> u32[]
dropout_0 = dropout[p=0.1 seed=3 stream=0](scale_0, rng/counter) -> f32[4, 8]
add_0 = add(x, dropout_0) -> f32[4, 8]
matmul_0 = matmul(add_0, head.weight) -> f32[4, 5]
loss = cross_entropy[reduction=sum label_smoothing=0.1 ignore_index=7](matmul_0, labels) -> f32[], f32[4], f32[]
metrics.div_0 = div(loss, loss:2) -> f32[]
metrics.exp_0 = exp(metrics.div_0) -> f32[]
output perplexity = metrics.exp_0
output row_lse = loss:1
)");
}

TEST(GraphPrinting, DotHoldsNodesEdgesSlotsAndOutputs) {
  Graph g;
  const Value x = g.input("x", {2, 3}), labels = g.input_u32("labels", {2});
  const CrossEntropyResult loss = g.cross_entropy_with(x, labels, {}, "the \"loss\"");
  g.output("lse", g.exp(loss.lse));
  EXPECT_EQ(g.to_dot(), R"(digraph graft {
  node [shape=box, fontname="Helvetica", fontsize=10];
  n0 [label="x\ninput\nf32[2, 3]", style=filled, fillcolor="#e8eef7"];
  n1 [label="labels\ninput\nu32[2]", style=filled, fillcolor="#e8eef7"];
  n2 [label="the \"loss\"\ncross_entropy\nreduction=mean\nf32[], f32[2], f32[]"];
  n0 -> n2;
  n1 -> n2;
  n3 [label="exp_0\nexp\nf32[2]"];
  n2 -> n3 [label="1"];
  o0 [label="lse", shape=ellipse];
  n3 -> o0;
}
)");
}

TEST(GraphHash, IsTheSameOnEveryMachine) {
  EXPECT_EQ(small().hash(), small().hash());
  EXPECT_EQ(small().hash(), 3615067963771814114u);
}

TEST(GraphHash, ChangesWithEveryAttribute) {
  const auto hash = [](double alpha, Shape shape, Init init, std::vector<double> values, const char* output) {
    Graph g;
    const Value w = g.parameter("w", shape, init);
    g.output(output, g.mul(g.scale(w, alpha), g.constant(shape, std::move(values))));
    return g.hash();
  };
  std::vector<double> many(12, 1.0), other = many;
  other.back() = 2.0;
  const std::vector<std::uint64_t> hashes = {
      hash(0.5, {3, 4}, Init::ones(), many, "y"),         hash(0.25, {3, 4}, Init::ones(), many, "y"),
      hash(0.5, {4, 3}, Init::ones(), many, "y"),         hash(0.5, {3, 4}, Init::fill(2), many, "y"),
      hash(0.5, {3, 4}, Init::ones(), other, "y"),        hash(0.5, {3, 4}, Init::ones(), many, "z"),
      hash(0.5, {3, 4}, Init::normal(0, 1), many, "y"),   hash(0.5, {3, 4}, Init::uniform(0, 1), many, "y"),
      hash(0.5000000001, {3, 4}, Init::ones(), many, "y")};
  EXPECT_EQ(std::set<std::uint64_t>(hashes.begin(), hashes.end()).size(), hashes.size());
}

TEST(GraphWidening, WidensBf16TooAndLeavesU32) {
  Graph g;
  const Value x = g.input("x", {2, 3});
  g.output("y", g.cast(g.cast(x, DType::bf16), DType::f32));
  g.embedding(x, g.input_u32("ids", {1}));
  const Graph wide = g.to_f64();
  EXPECT_EQ(to_string(wide.type(wide.find("x"))), "f64[2, 3]");
  EXPECT_EQ(to_string(wide.type(wide.find("ids"))), "u32[1]");
  EXPECT_EQ(to_string(wide.type(wide.find("cast_0"))), "f64[2, 3]");
  EXPECT_EQ(to_string(wide.type(wide.find("cast_1"))), "f64[2, 3]");
  EXPECT_EQ(to_string(g.type(x)), "f32[2, 3]");
}

TEST(GraphMasks, AttentionOfEachKindRecordsItsMask) {
  Graph g;
  const Value q = g.input("q", {4, 6}), k = g.input("k", {4, 6});
  const auto mask = [&](Value v) { return std::get<MultiHeadAttn>(g.node(v).op).mask; };
  EXPECT_EQ(mask(g.causal_attention(q, k, k, 2, 2, 3)), (Mask{Mask::Kind::causal, 0}));
  EXPECT_EQ(mask(g.full_attention(q, k, k, 2, 2, 3)), (Mask{Mask::Kind::full, 0}));
  EXPECT_EQ(mask(g.cross_attention(q, k, k, 2, 2, 3)), (Mask{Mask::Kind::full, 0}));
  EXPECT_EQ(mask(g.multi_head_attn(q, k, k, 2, 2, 3, false)), (Mask{Mask::Kind::causal, 0}));
  EXPECT_EQ(mask(g.multi_head_attn(q, k, k, 2, 2, 3, true)), (Mask{Mask::Kind::full, 0}));
  EXPECT_EQ(mask(g.multi_head_attn(q, k, k, 2, 2, 3, true, {.mask = Mask::Kind::causal})), (Mask{Mask::Kind::causal, 0}));
  EXPECT_EQ(mask(g.causal_attention(q, k, k, 2, 2, 3, {.window = 2})), (Mask{Mask::Kind::window, 2}));
}

}  // namespace
}  // namespace graft
