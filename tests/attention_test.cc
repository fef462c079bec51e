// What must hold of attention whatever its numbers: which rows see which, what masks and segments mean to each other, no NaN
// anywhere.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "graft/autodiff.h"
#include "tests/run_graph.h"

namespace graft {
namespace {

using testing::Inputs;

class Attention : public ::testing::TestWithParam<const char*> {
 protected:
  const std::unique_ptr<Backend> backend_ = make_backend(GetParam(), 2);
};
INSTANTIATE_TEST_SUITE_P(, Attention, ::testing::Values("reference", "cpu"),
                         [](const auto& info) { return std::string(info.param); });

struct Spec {
  std::int64_t q_rows = 6, kv_rows = 6, heads = 2, kv_heads = 1, dim = 4;
  Mask::Kind mask = Mask::Kind::causal;
  std::int64_t window = 0;
  std::int64_t q_length = 0, kv_length = 0;             // uniform segments
  std::vector<double> q_offsets = {}, kv_offsets = {};  // packed segments
};

std::vector<double> random(std::int64_t size, std::uint32_t seed, double spread = 1.0) {
  std::mt19937 bits(seed);
  std::normal_distribution<float> normal;
  std::vector<double> values(static_cast<std::size_t>(size));
  for (double& value : values) value = spread * normal(bits);
  return values;
}

Inputs random_inputs(const Spec& s, double spread = 1.0) {
  return {{"q", random(s.q_rows * s.heads * s.dim, 1, spread)},
          {"k", random(s.kv_rows * s.kv_heads * s.dim, 2, spread)},
          {"v", random(s.kv_rows * s.kv_heads * s.dim, 3)},
          {"dout", random(s.q_rows * s.heads * s.dim, 4)}};
}

/// out, lse, dq, dk, dv of one attention.
Inputs attend(Backend& backend, const Spec& s, Inputs inputs) {
  Graph g;
  const Value q = g.input("q", {s.q_rows, s.heads * s.dim});
  const Value k = g.input("k", {s.kv_rows, s.kv_heads * s.dim}), v = g.input("v", {s.kv_rows, s.kv_heads * s.dim});
  AttentionOptions options;
  options.mask = s.mask;
  options.window = s.window;
  if (s.q_length > 0) options.segments = Segments::uniform(s.q_length, s.kv_length);
  if (!s.q_offsets.empty()) {
    const Shape count{static_cast<std::int64_t>(s.q_offsets.size())};
    options.segments = Segments::packed(g.input_u32("q_offsets", count), g.input_u32("kv_offsets", count));
    inputs["q_offsets"] = s.q_offsets;
    inputs["kv_offsets"] = s.kv_offsets.empty() ? s.q_offsets : s.kv_offsets;
  }
  const Value out = g.multi_head_attn(q, k, v, s.heads, s.kv_heads, s.dim, true, options);
  g.output("out", out);
  g.output("lse", {out.node, 1});
  const Gradients gradients = differentiate(g, g.sum(g.mul(out, g.input("dout", g.shape(q)))), {q, k, v});
  for (const Gradient& gradient : gradients.all) g.output("d" + g.node(gradient.of).name, gradient.gradient);
  return testing::run_once(g, backend, inputs);
}

std::vector<double> rows(const std::vector<double>& values, std::int64_t cols, std::int64_t begin, std::int64_t end) {
  return {values.begin() + begin * cols, values.begin() + end * cols};
}

void expect_near(const std::vector<double>& got, const std::vector<double>& wanted, const std::string& what,
                 double tolerance = 2e-6) {
  ASSERT_EQ(got.size(), wanted.size()) << what;
  for (std::size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], wanted[i], tolerance) << what << " element " << i;
}

TEST_P(Attention, ARowThatSeesNothingGivesZerosAndMinusInfinity) {
  const Spec specs[] = {{.q_rows = 7, .kv_rows = 3},     // the first four queries
                        {.q_rows = 150, .kv_rows = 40},  // more than a block of them
                        {.q_rows = 8, .kv_rows = 3, .window = 2},
                        {.q_rows = 8, .kv_rows = 4, .q_length = 4, .kv_length = 2},
                        {.q_rows = 5, .kv_rows = 5, .mask = Mask::Kind::full, .q_offsets = {0, 2, 5}, .kv_offsets = {0, 0, 5}}};
  const std::vector<std::int64_t> blind_rows[] = {{0, 1, 2, 3}, {0, 1, 63, 64, 109}, {0, 1, 2, 3, 4}, {0, 1, 4, 5}, {0, 1}};
  for (std::size_t n = 0; n < std::size(specs); ++n) {
    const Spec& s = specs[n];
    const Inputs got = attend(*backend_, s, random_inputs(s));
    for (const std::int64_t row : blind_rows[n]) {
      for (const char* name : {"out", "dq"})
        for (const double value : rows(got.at(name), s.heads * s.dim, row, row + 1))
          EXPECT_EQ(value, 0.0) << name << " row " << row << " of spec " << n;
      for (const double value : rows(got.at("lse"), s.heads, row, row + 1))
        EXPECT_EQ(value, -INFINITY) << "row " << row << " of spec " << n;
    }
    const std::int64_t seeing = blind_rows[n].back() + 1;
    for (const double value : rows(got.at("lse"), s.heads, seeing, seeing + 1)) EXPECT_TRUE(std::isfinite(value)) << "spec " << n;
    for (const auto& [name, values] : got)
      for (const double value : values) EXPECT_FALSE(std::isnan(value)) << name << " of spec " << n;
  }
}

TEST_P(Attention, KeysThatNobodySeesHaveNoGradient) {
  const Spec s = {.q_rows = 3, .kv_rows = 8, .window = 2};  // keys 0 to 3 lie before every window
  const Inputs got = attend(*backend_, s, random_inputs(s));
  for (const char* name : {"dk", "dv"})
    for (const double value : rows(got.at(name), 4, 0, 4)) EXPECT_EQ(value, 0.0) << name;
  for (const double value : rows(got.at("dv"), 4, 4, 5)) EXPECT_NE(value, 0.0);
}

TEST_P(Attention, OverOneKeyIsItsValue) {
  const Spec s = {.window = 1};
  const Inputs inputs = random_inputs(s), got = attend(*backend_, s, inputs);
  for (std::int64_t row = 0; row < 6; ++row) {
    const std::vector<double> v = rows(inputs.at("v"), 4, row, row + 1);
    expect_near(rows(got.at("out"), 4, 2 * row, 2 * row + 1), v, "head 0");
    expect_near(rows(got.at("out"), 4, 2 * row + 1, 2 * row + 2), v, "head 1");
  }
  for (const char* name : {"dq", "dk"})
    for (const double value : got.at(name)) EXPECT_NEAR(value, 0.0, 1e-6) << name;
}

TEST_P(Attention, WithEqualScoresIsTheMeanOfValues) {
  Spec s = {.mask = Mask::Kind::full};
  Inputs inputs = random_inputs(s);
  inputs["q"].assign(inputs["q"].size(), 0.0);
  const Inputs got = attend(*backend_, s, inputs);
  for (const double lse : got.at("lse")) EXPECT_NEAR(lse, std::log(6.0), 1e-6);
  for (std::int64_t d = 0; d < 4; ++d) {
    double mean = 0;
    for (std::size_t row = 0; row < 6; ++row) mean += inputs.at("v")[row * 4 + static_cast<std::size_t>(d)] / 6;
    EXPECT_NEAR(got.at("out")[static_cast<std::size_t>(d)], mean, 1e-6);
  }
}

TEST_P(Attention, AWindowAsLongAsTheSequenceIsCausal) {
  Spec causal = {.q_rows = 70, .kv_rows = 70}, window = causal, longer = causal;
  window.window = 70;
  longer.window = 1000;
  const Inputs inputs = random_inputs(causal), wanted = attend(*backend_, causal, inputs);
  for (const auto& [name, values] : wanted) {
    expect_near(attend(*backend_, window, inputs).at(name), values, name);
    expect_near(attend(*backend_, longer, inputs).at(name), values, name);
  }
}

TEST_P(Attention, CausalWithFewerQueriesIsTheLastRowsOfTheSquare) {
  const Spec square = {.q_rows = 80, .kv_rows = 80}, tail = {.q_rows = 30, .kv_rows = 80};
  const Inputs inputs = random_inputs(square);
  Inputs last = inputs;
  for (const char* name : {"q", "dout"}) last[name] = rows(inputs.at(name), 8, 50, 80);
  const Inputs all = attend(*backend_, square, inputs), got = attend(*backend_, tail, last);
  for (const char* name : {"out", "dq"}) expect_near(got.at(name), rows(all.at(name), 8, 50, 80), name);
  expect_near(got.at("lse"), rows(all.at("lse"), 2, 50, 80), "lse");
}

/// Every segment computed alone must give the rows it has in the batch.
void expect_segments_alone(Backend& backend, const Spec& batch, const std::vector<std::int64_t>& q_offsets,
                           const std::vector<std::int64_t>& kv_offsets) {
  const Inputs inputs = random_inputs(batch), together = attend(backend, batch, inputs);
  for (std::size_t n = 0; n + 1 < q_offsets.size(); ++n) {
    const std::int64_t q0 = q_offsets[n], q1 = q_offsets[n + 1], k0 = kv_offsets[n], k1 = kv_offsets[n + 1];
    if (q0 == q1 || k0 == k1) continue;
    const std::int64_t q_cols = batch.heads * batch.dim, kv_cols = batch.kv_heads * batch.dim;
    const Inputs alone = {{"q", rows(inputs.at("q"), q_cols, q0, q1)},
                          {"k", rows(inputs.at("k"), kv_cols, k0, k1)},
                          {"v", rows(inputs.at("v"), kv_cols, k0, k1)},
                          {"dout", rows(inputs.at("dout"), q_cols, q0, q1)}};
    Spec s = batch;
    s.q_rows = q1 - q0, s.kv_rows = k1 - k0, s.q_length = s.kv_length = 0;
    s.q_offsets.clear(), s.kv_offsets.clear();
    const Inputs got = attend(backend, s, alone);
    const std::string where = " of segment " + std::to_string(n);
    for (const char* name : {"out", "dq"}) expect_near(rows(together.at(name), q_cols, q0, q1), got.at(name), name + where, 1e-5);
    for (const char* name : {"dk", "dv"}) expect_near(rows(together.at(name), kv_cols, k0, k1), got.at(name), name + where, 1e-5);
    const std::vector<double> lse = rows(together.at("lse"), batch.heads, q0, q1);
    for (std::size_t i = 0; i < lse.size(); ++i)
      EXPECT_TRUE(got.at("lse")[i] == lse[i] || std::abs(lse[i] - got.at("lse")[i]) < 1e-5) << "lse" << where;  // may be −inf
  }
}

TEST_P(Attention, SegmentsAreIndependentSequences) {
  for (const Mask::Kind mask : {Mask::Kind::full, Mask::Kind::causal, Mask::Kind::window}) {
    const std::int64_t window = mask == Mask::Kind::window ? 3 : 0;
    const auto kind = window > 0 ? Mask::Kind::causal : mask;
    expect_segments_alone(*backend_, {.q_rows = 12, .kv_rows = 20, .mask = kind, .window = window, .q_length = 3, .kv_length = 5},
                          {0, 3, 6, 9, 12}, {0, 5, 10, 15, 20});
    expect_segments_alone(*backend_,
                          {.q_rows = 140,
                           .kv_rows = 140,
                           .mask = kind,
                           .window = window,
                           .q_offsets = {0, 1, 1, 70, 140},
                           .kv_offsets = {0, 1, 1, 70, 140}},
                          {0, 1, 1, 70, 140}, {0, 1, 1, 70, 140});
    expect_segments_alone(
        *backend_,
        {.q_rows = 9, .kv_rows = 11, .mask = kind, .window = window, .q_offsets = {0, 4, 6, 9}, .kv_offsets = {0, 2, 8, 11}},
        {0, 4, 6, 9}, {0, 2, 8, 11});
  }
}

TEST_P(Attention, AtHeadDim256InABatchTreatsEverySequenceAlike) {
  // the same sequence twice: both halves of every result are the same numbers
  const Spec s = {.q_rows = 140, .kv_rows = 140, .dim = 256, .q_length = 70, .kv_length = 70};
  Inputs inputs = random_inputs(s);
  for (auto& [name, values] : inputs)
    std::copy_n(values.begin(), values.size() / 2, values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2));
  for (const auto& [name, values] : attend(*backend_, s, inputs))
    for (std::size_t i = 0; i < values.size() / 2; ++i)
      ASSERT_NEAR(values[i], values[i + values.size() / 2], 1e-6) << name << " element " << i;
}

TEST_P(Attention, GroupedHeadsEqualRepeatedHeads) {
  const Spec grouped = {.heads = 6, .kv_heads = 2}, repeated = {.heads = 6, .kv_heads = 6};
  Inputs inputs = random_inputs(grouped), wide = inputs;
  for (const char* name : {"k", "v"}) {
    wide[name].clear();
    for (std::int64_t row = 0; row < 6; ++row)
      for (std::int64_t head = 0; head < 6; ++head) {
        const std::vector<double> part = rows(inputs.at(name), 4, row * 2 + head / 3, row * 2 + head / 3 + 1);
        wide[name].insert(wide[name].end(), part.begin(), part.end());
      }
  }
  const Inputs got = attend(*backend_, grouped, inputs), wanted = attend(*backend_, repeated, wide);
  for (const char* name : {"out", "lse", "dq"}) expect_near(got.at(name), wanted.at(name), name);
  for (const char* name : {"dk", "dv"})  // summed over the query heads of a kv head
    for (std::size_t row = 0; row < 6; ++row)
      for (std::size_t kv_head = 0; kv_head < 2; ++kv_head)
        for (std::size_t d = 0; d < 4; ++d) {
          double sum = 0;
          for (std::size_t head = 3 * kv_head; head < 3 * kv_head + 3; ++head) sum += wanted.at(name)[row * 24 + head * 4 + d];
          EXPECT_NEAR(got.at(name)[row * 8 + kv_head * 4 + d], sum, 1e-5) << name;
        }
}

TEST_P(Attention, StaysFiniteWithHugeLogits) {
  for (const double spread : {8.0, 100.0, 1e4}) {
    const Spec s = {.q_rows = 70, .kv_rows = 70};
    const Inputs got = attend(*backend_, s, random_inputs(s, spread));
    for (const auto& [name, values] : got)
      for (const double value : values) ASSERT_TRUE(std::isfinite(value)) << name << ", spread " << spread;
    for (const double value : got.at("out")) ASSERT_LT(std::abs(value), 6.0);  // a mean of values
  }
}

TEST_P(Attention, ForgetsKeysThatLaterOnesOutweigh) {
  const Spec all{.q_rows = 3, .kv_rows = 500, .heads = 1, .dim = 8, .mask = Mask::Kind::full};
  constexpr std::int64_t kFirst = 400;  // from here on scores are 200 larger: far behind, in another tile of keys
  Inputs inputs = random_inputs(all);
  for (std::int64_t i = 0; i < all.q_rows; ++i) inputs["q"][static_cast<std::size_t>(i * all.dim)] = 20.0;
  for (std::int64_t j = 0; j < all.kv_rows; ++j) inputs["k"][static_cast<std::size_t>(j * all.dim)] = j < kFirst ? 0.0 : 30.0;
  Spec late = all;
  late.kv_rows -= kFirst;
  Inputs of_late = inputs;
  for (const char* name : {"k", "v"}) of_late[name] = rows(inputs[name], all.dim, kFirst, all.kv_rows);
  Inputs got = attend(*backend_, all, inputs), wanted = attend(*backend_, late, of_late);
  for (const char* name : {"out", "lse", "dq"}) expect_near(got[name], wanted[name], name, 1e-4);
  for (const char* name : {"dk", "dv"}) expect_near(rows(got[name], all.dim, kFirst, all.kv_rows), wanted[name], name, 1e-4);
}

TEST_P(Attention, ChangingAFutureKeyChangesNoEarlierRow) {
  const Spec s = {.q_rows = 70, .kv_rows = 70};
  Inputs inputs = random_inputs(s);
  const Inputs before = attend(*backend_, s, inputs);
  for (const char* name : {"k", "v"})
    for (std::size_t d = 0; d < 4; ++d) inputs[name][65 * 4 + d] = 50.0;
  const Inputs after = attend(*backend_, s, inputs);
  EXPECT_EQ(rows(before.at("out"), 8, 0, 65), rows(after.at("out"), 8, 0, 65));
  EXPECT_NE(rows(before.at("out"), 8, 65, 66), rows(after.at("out"), 8, 65, 66));
}

TEST_P(Attention, CachedAttentionSeesTheFilledRowsOnly) {
  Graph g;
  const Value q = g.input("q", {1, 8}), k = g.input("k", {70, 4}), v = g.input("v", {70, 4});
  g.output("out", g.cached_attention(q, k, v, g.input_u32("kv_len", {}), 2, 1, 4));
  Inputs inputs = {{"q", random(8, 1)}, {"k", random(280, 2)}, {"v", random(280, 3)}, {"kv_len", {66}}};
  const std::vector<double> wanted = testing::run_once(g, *backend_, inputs).at("out");
  for (const char* name : {"k", "v"}) std::fill(inputs[name].begin() + 66 * 4, inputs[name].end(), NAN);
  EXPECT_EQ(testing::run_once(g, *backend_, inputs).at("out"), wanted);
  const Spec s = {.q_rows = 1, .kv_rows = 66};
  inputs = {{"q", inputs["q"]}, {"k", rows(inputs["k"], 4, 0, 66)}, {"v", rows(inputs["v"], 4, 0, 66)}, {"dout", random(8, 4)}};
  expect_near(wanted, attend(*backend_, s, inputs).at("out"), "decode");
}

TEST_P(Attention, WithoutGradientsGivesTheLseNoMemory) {
  Graph g;
  const Value q = g.input("q", {6, 8});
  const Value out = g.causal_attention(q, q, q, 2, 2, 4);
  g.output("out", out);
  Session session(g, *backend_);
  EXPECT_EQ(session.plan().buffer_of({out.node, 1}), Plan::kNone);
  session.write("q", random(48, 1));
  EXPECT_NO_THROW(session.step());
}

}  // namespace
}  // namespace graft
