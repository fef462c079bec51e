// Attention of bf16 tensors beyond the shared op cases: several tiles long, each mask with each layout and head dimension, each row of each head against f64.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "graft/bf16.h"
#include "kernels/cuda/kernels.h"
#include "kernels/segments.h"
#include "tests/cuda_on_cpu/device_array.h"
#include "tests/cuda_on_cpu/emulation.h"

namespace graft {
namespace {

using emulation::Options;
using Kind = Mask::Kind;
using Layout = SegmentLayout::Kind;
using Offsets = std::vector<std::uint32_t>;
using Numbers = std::vector<double>;
using testing::DeviceArray;

struct Case {
  const char* name;
  std::int64_t q_rows, kv_rows, heads, kv_heads, head_dim;
  Mask mask = {};
  std::int64_t q_length = 0, kv_length = 0;
  Offsets q_offsets = {}, kv_offsets = {};
  double scale = 0.0;  ///< 0: 1/√head_dim
};
std::ostream& operator<<(std::ostream& out, const Case& c) { return out << c.name; }

constexpr Mask kCausal = {Kind::causal, 0};
constexpr Mask window(std::int64_t length) { return {Kind::window, length}; }

const Case kCases[] = {
    {"dim128_causal_gqa2", 200, 200, 2, 1, 128, kCausal},
    {"dim128_causal_blind_rows", 150, 40, 1, 1, 128, kCausal},
    {"dim128_window_packed", 200, 230, 2, 2, 128, window(40), 0, 0, {0, 1, 1, 130, 200}, {0, 3, 3, 140, 230}},
    {"dim128_uniform_full", 210, 99, 1, 1, 128, {}, 70, 33},
    {"dim64_full_gqa3", 130, 199, 3, 1, 64},
    {"dim64_causal_packed_blind_rows", 131, 200, 2, 1, 64, kCausal, 0, 0, {0, 66, 100, 131}, {0, 130, 130, 200}},
    {"dim64_window_of_far_keys", 70, 400, 1, 1, 64, window(90)},
    // masks that touch a tile at one corner
    {"dim64_causal_30_keys_more", 100, 130, 1, 1, 64, kCausal},
    {"dim64_window_95", 130, 130, 1, 1, 64, window(95)},
    {"dim64_window_2", 130, 130, 1, 1, 64, window(2)},
    {"dim128_window_2_one_key_more", 130, 131, 1, 1, 128, window(2)},
    {"dim64_full_tile_but_one_key", 70, 63, 1, 1, 64},
    {"dim128_full_tile_but_one_query", 63, 70, 1, 1, 128},
    {"dim64_causal_uniform_gqa8", 195, 195, 8, 1, 64, kCausal, 65, 65},
    {"dim80_window_gqa4", 180, 180, 4, 1, 80, window(50)},
    {"dim80_full_packed", 140, 150, 2, 2, 80, {}, 0, 0, {0, 0, 129, 140}, {0, 5, 70, 150}},
    {"dim96_causal_packed", 200, 200, 2, 2, 96, kCausal, 0, 0, {0, 1, 1, 67, 68, 131, 200}, {0, 1, 1, 67, 68, 131, 200}},
    {"dim96_window_uniform_gqa2", 150, 210, 2, 1, 96, window(33), 75, 105},
    {"dim120_full_of_few_queries", 5, 300, 2, 1, 120},
    {"dim8_window_1", 140, 140, 2, 1, 8, window(1)},
    {"dim24_full_of_one_key", 70, 1, 1, 1, 24},
    {"dim64_negative_scale", 40, 70, 1, 1, 64, kCausal, 0, 0, {}, {}, -0.2},
};

/// Normal numbers, rounded to bf16.
Numbers random_numbers(std::int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  Numbers numbers(static_cast<std::size_t>(count));
  for (double& x : numbers) x = to_float(to_bf16(static_cast<float>(normal(random))));
  return numbers;
}

/// What the kernels should give, in f64; delta is of the exact out.
struct Wanted {
  Numbers out, lse, delta, dq, dk, dv;
};

struct Problem {
  const Case& c;
  MultiHeadAttn op;
  Numbers q, k, v, dout;

  explicit Problem(const Case& of)
      : c(of),
        op{{c.heads, c.kv_heads, c.head_dim},
           c.mask,
           c.scale != 0.0 ? c.scale : 1.0 / std::sqrt(static_cast<double>(c.head_dim)),
           {}},
        q(random_numbers(c.q_rows * c.heads * c.head_dim, 1)),
        k(random_numbers(c.kv_rows * c.kv_heads * c.head_dim, 2)),
        v(random_numbers(c.kv_rows * c.kv_heads * c.head_dim, 3)),
        dout(random_numbers(c.q_rows * c.heads * c.head_dim, 4)) {
    if (c.q_length > 0) op.segments = {Layout::uniform, c.q_length, c.kv_length};
    if (!c.q_offsets.empty()) op.segments.kind = Layout::packed;
  }

  detail::SegmentList segments() const {
    const auto view = [](const Offsets& offsets) {
      return TensorView{const_cast<std::uint32_t*>(offsets.data()),
                        {DType::u32, {std::max<std::int64_t>(1, static_cast<std::int64_t>(offsets.size()))}}};
    };
    const TensorView offsets[] = {view(c.q_offsets), view(c.kv_offsets)};
    return {op.segments, c.q_rows, c.kv_rows, offsets};
  }

  Wanted solve() const;
};

Wanted Problem::solve() const {
  const std::int64_t dim = c.head_dim, group = c.heads / c.kv_heads;
  Wanted w = {Numbers(q.size()),
              Numbers(static_cast<std::size_t>(c.q_rows * c.heads)),
              Numbers(static_cast<std::size_t>(c.q_rows * c.heads)),
              Numbers(q.size()),
              Numbers(k.size()),
              Numbers(k.size())};
  const detail::SegmentList list = segments();
  for (std::int64_t s = 0; s < list.count(); ++s) {
    const detail::Segment segment = list[s];
    for (std::int64_t i = 0; i < segment.q_seq(); ++i) {
      const detail::KeyRange keys = detail::visible_keys(c.mask, i, segment.q_seq(), segment.kv_seq());
      for (std::int64_t head = 0; head < c.heads; ++head) {
        const std::int64_t row = (segment.q_begin + i) * c.heads + head;
        const double *query = &q[static_cast<std::size_t>(row * dim)], *grad = &dout[static_cast<std::size_t>(row * dim)];
        double *out = &w.out[static_cast<std::size_t>(row * dim)], *dq = &w.dq[static_cast<std::size_t>(row * dim)];
        double& lse = w.lse[static_cast<std::size_t>(row)] = -std::numeric_limits<double>::infinity();
        double& delta = w.delta[static_cast<std::size_t>(row)];
        const auto at = [&](std::int64_t j) {
          return static_cast<std::size_t>(((segment.kv_begin + j) * c.kv_heads + head / group) * dim);
        };
        const auto dot = [&](const double* a, const double* b) {
          double sum = 0.0;
          for (std::int64_t d = 0; d < dim; ++d) sum += a[d] * b[d];
          return sum;
        };
        if (keys.first == keys.last) continue;
        Numbers p;
        double sum = 0.0;
        for (std::int64_t j = keys.first; j < keys.last; ++j) sum += p.emplace_back(std::exp(op.scale * dot(query, &k[at(j)])));
        lse = std::log(sum);
        for (std::int64_t j = keys.first; j < keys.last; ++j) {
          p[static_cast<std::size_t>(j - keys.first)] /= sum;
          for (std::int64_t d = 0; d < dim; ++d)
            out[d] += p[static_cast<std::size_t>(j - keys.first)] * v[at(j) + static_cast<std::size_t>(d)];
        }
        delta = dot(out, grad);
        for (std::int64_t j = keys.first; j < keys.last; ++j) {
          const double weight = p[static_cast<std::size_t>(j - keys.first)],
                       ds = op.scale * weight * (dot(grad, &v[at(j)]) - delta);
          for (std::int64_t d = 0; d < dim; ++d) {
            const std::size_t e = at(j) + static_cast<std::size_t>(d);
            dq[d] += ds * k[e];
            w.dk[e] += ds * query[d];
            w.dv[e] += weight * grad[d];
          }
        }
      }
    }
  }
  return w;
}

/// The same in bits of bf16.
using Bits = std::vector<std::uint16_t>;
Bits bits_of(const Numbers& numbers) {
  Bits bits;
  for (const double x : numbers) bits.push_back(to_bf16(static_cast<float>(x)).bits);
  return bits;
}
std::vector<float> floats_of(const Numbers& numbers) { return {numbers.begin(), numbers.end()}; }

/// What the kernels give.
struct Got {
  Bits out, dq, dk, dv;
  std::vector<float> lse;
  bool operator==(const Got&) const = default;
};

/// Which results are asked for; the others are empty.
struct Asked {
  bool out = true, lse = true, dq = true, dk = true, dv = true;
};

Got run(const Problem& problem, const Wanted& wanted, const Options& options, const Asked& asked = {}) {
  const emulation::With with(options);
  const Case& c = problem.c;
  cuda::Context context;
  const DeviceArray<std::uint16_t> q(bits_of(problem.q)), k(bits_of(problem.k)), v(bits_of(problem.v)), dout(bits_of(problem.dout));
  const DeviceArray<std::uint16_t> out(problem.q.size()), dq(problem.q.size()), dk(problem.k.size()), dv(problem.k.size());
  const DeviceArray<float> lse(wanted.lse.size()), true_lse(floats_of(wanted.lse)), delta(floats_of(wanted.delta));
  const Offsets none = {0};
  const DeviceArray<std::uint32_t> q_offsets(c.q_offsets.empty() ? none : c.q_offsets),
      kv_offsets(c.kv_offsets.empty() ? none : c.kv_offsets);
  const TensorType q_type = {DType::bf16, {c.q_rows, c.heads * c.head_dim}},
                   kv_type = {DType::bf16, {c.kv_rows, c.kv_heads * c.head_dim}};
  const TensorType lse_type = {DType::f32, {c.q_rows, c.heads}};
  const auto with_offsets = [&](std::vector<TensorView> in) {
    const TensorType type = {DType::u32, {static_cast<std::int64_t>(std::max<std::size_t>(1, c.q_offsets.size()))}};
    if (!c.q_offsets.empty()) in.insert(in.end(), {{q_offsets.data(), type}, {kv_offsets.data(), type}});
    return in;
  };
  const std::vector<TensorView> in = with_offsets({{q.data(), q_type}, {k.data(), kv_type}, {v.data(), kv_type}});
  const TensorView outputs[] = {{asked.out ? out.data() : nullptr, q_type}, {asked.lse ? lse.data() : nullptr, lse_type}};
  cuda::run(problem.op, Step{nullptr, in, outputs, nullptr}, context);

  const std::vector<TensorView> grad_in = with_offsets({{q.data(), q_type},
                                                        {k.data(), kv_type},
                                                        {v.data(), kv_type},
                                                        {true_lse.data(), lse_type},
                                                        {dout.data(), q_type},
                                                        {delta.data(), lse_type}});
  const Node nodes[] = {{MultiHeadAttnGradV{problem.op}, {}, {}, ""},
                        {MultiHeadAttnGradQ{problem.op}, {}, {}, ""},
                        {MultiHeadAttnGradK{problem.op}, {}, {}, ""}};
  const TensorView grad_out[] = {{dv.data(), kv_type}, {dq.data(), q_type}, {dk.data(), kv_type}};
  const bool wants[] = {asked.dv, asked.dq, asked.dk};
  std::vector<Step> steps;
  for (std::size_t i = 0; i < 3; ++i)
    if (wants[i]) steps.push_back({&nodes[i], grad_in, std::span(&grad_out[i], 1), nullptr});
  EXPECT_EQ(steps.empty() ? 0u : cuda::run_attention_gradients(steps, context), steps.size());
  emulation::synchronize();
  const auto values = [](bool wanted, const auto& array) { return wanted ? array.values() : decltype(array.values())(); };
  return {values(asked.out, out), values(asked.dq, dq), values(asked.dk, dk), values(asked.dv, dv), values(asked.lse, lse)};
}

/// Each row of each head: what is off is rounding to bf16, of the result and of the operands P and dS, each to 2⁻⁹ at most.
void expect_close(const Bits& got, const Numbers& want, std::int64_t head_dim, const char* what) {
  const auto dim = static_cast<std::size_t>(head_dim);
  for (std::size_t row = 0; row < want.size(); row += dim) {
    double off = 0.0, norm = 0.0;
    for (std::size_t i = row; i < row + dim; ++i) {
      const double difference = to_float(Bf16{got[i]}) - want[i];
      off += difference * difference;
      norm += want[i] * want[i];
    }
    ASSERT_LE(std::sqrt(off), 0x1.4p-8 * std::sqrt(norm) + 1e-5)
        << what << ", row and head " << row / dim << ", norm " << std::sqrt(norm);
  }
}

class AttentionBf16 : public ::testing::TestWithParam<Case> {};

TEST_P(AttentionBf16, MatchesF64RowByRowAndInAnyOrder) {
  const Problem problem(GetParam());
  const Wanted wanted = problem.solve();
  const Got got = run(problem, wanted, {.locate = false});
  for (std::size_t i = 0; i < wanted.lse.size(); ++i) {
    if (std::isinf(wanted.lse[i])) {
      ASSERT_EQ(got.lse[i], -std::numeric_limits<float>::infinity()) << i;
    } else {
      ASSERT_NEAR(got.lse[i], wanted.lse[i], 1e-5 * std::max(1.0, std::abs(wanted.lse[i]))) << i;
    }
  }
  expect_close(got.out, wanted.out, GetParam().head_dim, "out");
  expect_close(got.dq, wanted.dq, GetParam().head_dim, "dq");
  expect_close(got.dk, wanted.dk, GetParam().head_dim, "dk");
  expect_close(got.dv, wanted.dv, GetParam().head_dim, "dv");
  EXPECT_TRUE(got == run(problem, wanted, {.order = Options::Order::shuffled, .races = true, .locate = false}));
}

INSTANTIATE_TEST_SUITE_P(, AttentionBf16, ::testing::ValuesIn(kCases),
                         [](const auto& info) { return std::string(info.param.name); });

constexpr Case kSmall[] = {{"dim64", 70, 70, 1, 1, 64, kCausal}, {"dim128", 70, 70, 1, 1, 128, kCausal}};

TEST(AttentionBf16Outputs, AreTheSameAlone) {
  for (const Case& c : kSmall) {
    const Problem problem(c);
    const Wanted wanted = problem.solve();
    const Got all = run(problem, wanted, {.locate = false});
    Got alone;
    alone.out = run(problem, wanted, {.locate = false}, {true, false, false, false, false}).out;
    alone.lse = run(problem, wanted, {.locate = false}, {false, true, false, false, false}).lse;
    alone.dq = run(problem, wanted, {.locate = false}, {true, true, true, false, false}).dq;
    alone.dk = run(problem, wanted, {.locate = false}, {true, true, false, true, false}).dk;
    alone.dv = run(problem, wanted, {.locate = false}, {true, true, false, false, true}).dv;
    EXPECT_TRUE(alone == all) << c.name;
  }
}

/// Rows that fill up a tile are zeros, and so are their scores: 2 to the power of 0 − lse is infinite where all real scores are far below.
TEST(AttentionBf16Outputs, AreFiniteWhereScoresAreFarBelowZero) {
  for (const std::int64_t dim : {64, 128}) {
    const Case c = {"far", 40, 70, 1, 1, dim, {}, 0, 0, {}, {}, 0.5};
    Problem problem(c);
    for (std::size_t row = 0; row < problem.q.size(); row += static_cast<std::size_t>(dim)) problem.q[row] = 24.0;
    for (std::size_t row = 0; row < problem.k.size(); row += static_cast<std::size_t>(dim)) problem.k[row] = -24.0;
    const Wanted wanted = problem.solve();
    ASSERT_LT(*std::max_element(wanted.lse.begin(), wanted.lse.end()), -200.0);
    const Got got = run(problem, wanted, {.locate = false});
    expect_close(got.out, wanted.out, dim, "out");
    expect_close(got.dv, wanted.dv, dim, "dv");
    for (const Bits* bits : {&got.dq, &got.dk})
      for (const std::uint16_t x : *bits) ASSERT_TRUE(std::isfinite(to_float(Bf16{x})));
  }
}

/// A key that all queries see with a score of −∞ has no weight and no gradient, also where queries do not fill their tile.
TEST(AttentionBf16Outputs, KeysOfMinusInfinityHaveNoGradient) {
  constexpr std::size_t kKey = 3;
  for (const std::int64_t dim : {64, 128}) {
    const auto width = static_cast<std::size_t>(dim);
    const Case c = {"minus_infinity", 70, 40, 1, 1, dim};
    Problem problem(c);
    for (std::size_t row = 0; row < problem.q.size(); row += width) problem.q[row] = 1.0;
    problem.k[kKey * width] = 0.0;
    const Wanted wanted = problem.solve();
    problem.k[kKey * width] = -std::numeric_limits<double>::infinity();  // lse and delta stay those of 0: they matter to other keys alone
    const Got got = run(problem, wanted, {.locate = false});
    for (const Bits* bits : {&got.dk, &got.dv})
      for (std::size_t i = kKey * width; i < (kKey + 1) * width; ++i) ASSERT_EQ(to_float(Bf16{(*bits)[i]}), 0.0f) << i;
  }
}

}  // namespace
}  // namespace graft
