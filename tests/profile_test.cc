#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "graft/graft.h"

namespace graft {
namespace {

Graph small_graph() {
  Graph g;
  const Value x = g.input("x", {4, 8}), w = g.parameter("w", {8, 16}, Init::normal(0, 1));
  const Value loss = g.mean(g.silu(g.matmul(x, w, false, false, "product")));
  g.output("loss", loss);
  optim::adamw(g, differentiate(g, loss), {}, {});
  return g;
}

TEST(Profile, RunsWholeStepsAndTimesEveryNodeOfThePlan) {
  const Graph g = small_graph();
  const auto backend = reference_backend();
  Session profiled(g, *backend), stepped(g, *backend);
  const std::vector<float> x(32, 0.5f);
  profiled.write("x", x);
  stepped.write("x", x);
  const Profile profile = profiled.profile(3);
  for (int i = 0; i < 3; ++i) stepped.step();
  EXPECT_EQ(profiled.read("w"), stepped.read("w"));
  EXPECT_EQ(profiled.scalar("optimizer/step"), 3.0);
  ASSERT_EQ(profile.nodes.size(), profiled.plan().order().size());
  double sum = 0;
  for (const NodeTime& node : profile.nodes) {
    EXPECT_GT(node.seconds, 0.0) << node.name;
    EXPECT_DOUBLE_EQ(node.start, sum) << node.name;
    sum += node.seconds;
  }
  EXPECT_DOUBLE_EQ(profile.seconds, sum);
}

TEST(Profile, ChecksInputsAsAStepDoes) {
  const Graph g = small_graph();
  const auto backend = reference_backend();
  Session session(g, *backend);
  EXPECT_THROW(session.profile(), Error);
  session.write("x", std::vector<float>(32, 0.5f));
  EXPECT_THROW(session.profile(0), Error);
}

TEST(Cost, CountsProductsAndBytes) {
  const Graph g = small_graph();
  const Cost product = cost(g, g.node(g.find("product")));
  EXPECT_EQ(product.flops, 2.0 * 4 * 8 * 16);
  EXPECT_EQ(product.bytes, 4.0 * (4 * 8 + 8 * 16 + 4 * 16));
  EXPECT_EQ(cost(g, g.node(g.find("w"))).bytes, 0.0);
}

TEST(Cost, CountsTheKeysThatAttentionSees) {
  Graph g;
  const Value q = g.input("q", {6, 8}), k = g.input("k", {6, 4}), v = g.input("v", {6, 4});
  const auto flops = [&](Value node) { return cost(g, g.node(node)).flops; };
  EXPECT_EQ(flops(g.full_attention(q, k, v, 2, 1, 4)), 4.0 * 36 * 8);
  EXPECT_EQ(flops(g.causal_attention(q, k, v, 2, 1, 4)), 4.0 * 21 * 8);
  EXPECT_EQ(flops(g.causal_attention(q, k, v, 2, 1, 4, {.window = 2})), 4.0 * 11 * 8);
  EXPECT_EQ(flops(g.causal_attention(q, k, v, 2, 1, 4, {.segments = Segments::uniform(3)})), 4.0 * 12 * 8);
  const Value attention = g.full_attention(q, k, v, 2, 1, 4, {}, "attention");
  differentiate(g, g.sum(attention), {q, k, v});
  double backward = 0;
  for (const Node& node : g.nodes())
    if (op_name(node.op).starts_with("multi_head_attn_grad")) backward += cost(g, node).flops;
  EXPECT_EQ(backward, 2.0 * (3 + 3 + 2) * 36 * 8);
}

TEST(Cost, OfLinearCrossEntropyIsOneProductAndThreeInItsGradient) {
  for (const bool transposed : {false, true}) {
    Graph g;
    const Value x = g.parameter("x", {6, 8}), w = g.parameter("w", transposed ? Shape{10, 8} : Shape{8, 10});
    const Value loss = g.linear_cross_entropy(x, w, g.input_u32("labels", {6}), {}, transposed).loss;
    EXPECT_EQ(cost(g, g.node(loss)).flops, 2.0 * 6 * 8 * 10 + 4.0 * 6 * 10);
    const Gradients gradients = differentiate(g, loss);
    EXPECT_EQ(cost(g, g.node(gradients.of(g, x))).flops, 3 * 2.0 * 6 * 8 * 10 + 4.0 * 6 * 10);
  }
}

TEST(Cost, OfALookUpIsTheRowsLookedUp) {
  Graph g;
  const Value e = g.embedding(g.parameter("table", {1000, 8}), g.input_u32("ids", {3}));
  EXPECT_EQ(cost(g, g.node(e)).bytes, 4.0 * (3 * 8 + 3 + 3 * 8));
}

TEST(Profile, TableHasTimeShareAndPercentageOfTheBindingCeiling) {
  Profile profile;
  profile.nodes = {{"a", "matmul", 0.0, 0.002, {4e6, 1e6}}, {"b", "matmul", 0.002, 0.001, {2e6, 1e6}}, {"c", "neg", 0.003, 0.001, {0, 8e6}}};
  profile.seconds = 0.004;
  const std::string table = profile.to_string({4e9, 16e9});
  EXPECT_NE(table.find("matmul                        2      3.000   75.0%       2.0      0.7       50%"), std::string::npos) << table;
  EXPECT_NE(table.find("neg                           1      1.000   25.0%       0.0      8.0       50%"), std::string::npos) << table;
  EXPECT_NE(table.find("total                         3      4.000  100.0%"), std::string::npos) << table;
  EXPECT_LT(table.find("matmul"), table.find("neg"));
}

TEST(Profile, TraceIsOneJsonEventANode) {
  Profile profile;
  profile.nodes = {{"say \"a\"", "matmul", 0.0, 0.002, {4e6, 1e6}}, {"b", "neg", 0.002, 0.001, {0, 8e6}}};
  const std::filesystem::path file = std::filesystem::path(testing::TempDir()) / "graft_trace.json";
  profile.write_trace(file);
  std::ifstream in(file);
  const std::string json{std::istreambuf_iterator<char>(in), {}};
  EXPECT_NE(json.find(R"("ts":2000.000,"dur":1000.000,"name":"b","cat":"neg")"), std::string::npos) << json;
  EXPECT_NE(json.find(R"("name":"say \"a\"")"), std::string::npos) << json;
  EXPECT_NE(json.find(R"("GFLOP/s":2.00,"GB/s":0.50)"), std::string::npos) << json;
  std::filesystem::remove(file);
  EXPECT_THROW(profile.write_trace(file / "no" / "such" / "folder"), Error);
}

TEST(Profile, CeilingsArePositiveAndFinite) {
  const auto backend = cpu_backend(1);
  const Ceilings ceilings = measure_ceilings(*backend);
  EXPECT_GT(ceilings.flops, 1e8);
  EXPECT_GT(ceilings.bytes, 1e8);
  EXPECT_LT(ceilings.flops, 1e15);
}

}  // namespace
}  // namespace graft
