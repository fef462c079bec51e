// The cpu backend's products and vector functions, below the level of ops.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include "graft/bf16.h"
#include "graft/session.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/gemm_blocks.h"
#include "kernels/cpu/parallel.h"
#include "tests/at_the_end.h"
#include "tests/cpu_variants.h"

namespace graft::cpu {
namespace {

struct Size {
  std::int64_t m, n, k;
};

enum class Addend { none, c_itself, apart };

/// A product with its operands and what C held before.
struct Problem {
  GemmCall call;
  Addend addend;
  std::vector<float> a, b, bias, before, apart;

  Problem(const Size& size, bool transpose_a, bool transpose_b, bool with_bias, Addend with_addend, std::int64_t pad)
      : addend(with_addend) {
    call.m = size.m, call.n = size.n, call.k = size.k;
    call.transpose_a = transpose_a, call.transpose_b = transpose_b;
    call.lda = (transpose_a ? size.m : size.k) + pad;
    call.ldb = (transpose_b ? size.k : size.n) + pad;
    call.ldc = size.n + pad;
    a = numbers((transpose_a ? size.k : size.m) * call.lda);
    b = numbers((transpose_b ? size.n : size.k) * call.ldb);
    bias = numbers(size.n);
    before = numbers(size.m * call.ldc);
    apart = numbers(size.m * call.ldc);
    call.a = a.data();
    call.b = b.data();
    if (with_bias) call.bias = bias.data();
  }

  std::vector<float> run(Gemm& gemm) {
    std::vector<float> c = before;
    call.c = c.data();
    if (addend != Addend::none) call.addend = addend == Addend::apart ? apart.data() : c.data();
    gemm(call);
    return c;
  }

  double wanted(std::int64_t i, std::int64_t j) const {
    const auto at = [](const std::vector<float>& x, std::int64_t index) {
      return static_cast<double>(x[static_cast<std::size_t>(index)]);
    };
    double sum = call.bias != nullptr ? at(bias, j) : 0.0;
    if (addend != Addend::none) sum += at(addend == Addend::apart ? apart : before, i * call.ldc + j);
    for (std::int64_t p = 0; p < call.k; ++p)
      sum += at(a, call.transpose_a ? p * call.lda + i : i * call.lda + p) *
             at(b, call.transpose_b ? j * call.ldb + p : p * call.ldb + j);
    return sum;
  }

  std::string text() const {
    return std::to_string(call.m) + "x" + std::to_string(call.n) + "x" + std::to_string(call.k) + (call.transpose_a ? " ta" : "") +
           (call.transpose_b ? " tb" : "") + (call.bias != nullptr ? " bias" : "") + (addend == Addend::none ? "" : addend == Addend::apart ? " addend" : " accumulate") +
           " ldc " + std::to_string(call.ldc);
  }

 private:
  std::uint32_t seed_ = 1;
  std::vector<float> numbers(std::int64_t n) {
    std::vector<float> values(static_cast<std::size_t>(n));
    for (float& x : values) {
      seed_ = seed_ * 1664525u + 1013904223u;
      x = static_cast<float>(seed_ >> 8) / 8388608.0f - 1.0f;
    }
    return values;
  }
};

template <class F>
void for_each_problem(const std::vector<Size>& sizes, const F& f) {
  for (const Size& size : sizes)
    for (const bool transpose_a : {false, true})
      for (const bool transpose_b : {false, true})
        for (const auto& [bias, addend] : {std::pair{false, Addend::none}, {true, Addend::none}, {false, Addend::c_itself}, {true, Addend::apart}})
          for (const std::int64_t pad : {0, 5}) f(Problem(size, transpose_a, transpose_b, bias, addend, pad));
}

std::vector<Size> small_sizes() {
  std::vector<Size> sizes;
  for (const std::int64_t m : {1, 2, 7, 33})
    for (const std::int64_t n : {1, 3, 16, 65})
      for (const std::int64_t k : {1, 5, 64, 131}) sizes.push_back({m, n, k});
  for (const Size& row : {Size{1, 400, 300}, {1, 1000, 77}, {3, 2100, 45}, {500, 1, 300}, {2500, 1, 19}, {130, 70, 200}})
    sizes.push_back(row);
  return sizes;
}

class GemmTest : public ::testing::TestWithParam<GemmChoice> {};
INSTANTIATE_TEST_SUITE_P(, GemmTest, ::testing::Values(GemmChoice::packed, GemmChoice::onednn),
                         [](const auto& info) { return info.param == GemmChoice::packed ? "packed" : "onednn"; });

TEST_P(GemmTest, IsTheProductForEveryTransposeBiasAndStride) {
  ThreadTeam team(2);
  Gemm gemm(team, GetParam());
  for_each_problem(small_sizes(), [&](Problem problem) {
    const std::vector<float> c = problem.run(gemm);
    for (std::int64_t i = 0; i < problem.call.m; ++i) {
      for (std::int64_t j = 0; j < problem.call.ldc; ++j) {
        const std::size_t at = static_cast<std::size_t>(i * problem.call.ldc + j);
        if (j >= problem.call.n) {
          ASSERT_EQ(c[at], problem.before[at]) << problem.text() << ": behind row " << i;
        } else {
          ASSERT_NEAR(c[at], problem.wanted(i, j), 1e-4) << problem.text() << " at " << i << ", " << j;
        }
      }
    }
  });
}

/// Large enough for many blocks, with a rest in both directions.
const Size kLarge = {100, 1333, 260};

TEST_P(GemmTest, IsTheProductWhereThreadsShareIt) {
  const GemmBlocks blocks = gemm_blocks(kLarge.m, kLarge.n, kLarge.k, false);
  ASSERT_GT(blocks.row_parts, 1);
  ASSERT_GT(blocks.col_parts, 1);
  ASSERT_NE(kLarge.m % blocks.rows, 0);
  ASSERT_NE(kLarge.n % blocks.cols, 0);
  const Size one_row = {40, 700, 800}, one_tall_row = {149, 1100, 400};  // of blocks, whose threads keep a packed A
  EXPECT_EQ(gemm_blocks(one_row.m, one_row.n, one_row.k, false).row_parts, 1);
  EXPECT_EQ(gemm_blocks(one_tall_row.m, one_tall_row.n, one_tall_row.k, true).row_parts, 1);
  ThreadTeam team(3);
  for_each_problem({kLarge, one_row, one_tall_row}, [&](Problem problem) {
    Gemm gemm(team, GetParam());  // with no more scratch memory than this product wants
    const std::vector<float> c = problem.run(gemm);
    for (std::int64_t i = 0; i < problem.call.m; ++i)
      for (std::int64_t j = i % 23; j < problem.call.n; j += 23)
        ASSERT_NEAR(c[static_cast<std::size_t>(i * problem.call.ldc + j)], problem.wanted(i, j), 1e-4)
            << problem.text() << " at " << i << ", " << j;
  });
}

TEST_P(GemmTest, HasTheSameBitsWithOneTwoAndFourThreads) {
  ThreadTeam pair(2), quartet(4);
  Gemm one(Threads{}, GetParam()), two(pair, GetParam()), four(quartet, GetParam());
  for_each_problem({kLarge, {1, 1000, 300}, {5, 2100, 70}, {900, 1, 300}, {64, 64, 2000}}, [&](Problem problem) {
    const std::vector<float> c = problem.run(one);
    EXPECT_EQ(problem.run(two), c) << problem.text();
    EXPECT_EQ(problem.run(four), c) << problem.text();
  });
}

TEST_P(GemmTest, TakesBf16AndWritesFloatsOrBf16) {
  ThreadTeam team(2);
  Gemm gemm(team, GetParam());
  if (!gemm.takes_bf16()) GTEST_SKIP() << "no bf16 products of " << gemm.description() << " on this processor";
  for (const bool bf16_out : {false, true})
    for_each_problem({kLarge, {33, 65, 700}, {48, 16, 64}, {160, 6, 272}}, [&](Problem problem) {
      if (bf16_out && problem.addend != Addend::none) return;
      std::vector<Bf16> a, b, c16(problem.before.size(), to_bf16(7.0f));
      const auto to_halves = [](std::vector<float>& from, std::vector<Bf16>& to) {
        for (float& x : from) x = to_float(to.emplace_back(to_bf16(x)));
      };
      to_halves(problem.a, a), to_halves(problem.b, b);
      problem.call.a = a.data(), problem.call.b = b.data();
      problem.call.bf16 = true, problem.call.bf16_out = bf16_out;
      std::vector<float> c = problem.before;
      if (bf16_out) {
        problem.call.c = c16.data();
        gemm(problem.call);
        std::transform(c16.begin(), c16.end(), c.begin(), [](Bf16 x) { return to_float(x); });
      } else {
        c = problem.run(gemm);
      }
      for (std::int64_t i = 0; i < problem.call.m; ++i)
        for (std::int64_t j = 0; j < problem.call.ldc; ++j) {
          const float got = c[static_cast<std::size_t>(i * problem.call.ldc + j)];
          if (j >= problem.call.n) {
            ASSERT_EQ(got, bf16_out ? 7.0f : problem.before[static_cast<std::size_t>(i * problem.call.ldc + j)]) << problem.text();
          } else {
            const double want = problem.wanted(i, j);
            ASSERT_NEAR(got, want, 1e-4 + (bf16_out ? std::abs(want) / 256 : 0.0)) << problem.text() << " at " << i << ", " << j;
          }
        }
    });
}

TEST(PackedGemm, EndsInsideOfTilesOfEveryWidth) {
  Gemm gemm(Threads{}, GemmChoice::packed);
  for (std::int64_t n = 160; n < 160 + 33; ++n)
    for_each_problem({{47 + n % 16, n, 80}}, [&](Problem problem) {
      const std::vector<float> c = problem.run(gemm);
      for (std::int64_t i = 0; i < problem.call.m; ++i)
        for (std::int64_t j = 140; j < n; ++j)
          ASSERT_NEAR(c[static_cast<std::size_t>(i * problem.call.ldc + j)], problem.wanted(i, j), 1e-4) << problem.text() << " at " << i << ", " << j;
    });
}

/// Floats that end where memory ends.
class AtTheEnd {
 public:
  explicit AtTheEnd(const std::vector<float>& values) : memory_(values.size() * sizeof(float)) { std::copy(values.begin(), values.end(), data()); }
  float* data() { return reinterpret_cast<float*>(memory_.data()); }

 private:
  testing::AtTheEnd memory_;
};

TEST(PackedGemm, ReadsNothingBehindItsOperands) {
  Gemm gemm(Threads{}, GemmChoice::packed);
  for (const Size& size : {Size{100, 175, 83}, {98, 161, 64}, {59, 193, 70}, {150, 159, 33}})
    for (const bool transpose_a : {false, true})
      for (const bool transpose_b : {false, true}) {
        Problem problem(size, transpose_a, transpose_b, true, Addend::none, 0);
        const std::vector<float> c = problem.run(gemm);
        AtTheEnd a(problem.a), b(problem.b), bias(problem.bias), there(problem.before);
        problem.call.a = a.data(), problem.call.b = b.data(), problem.call.bias = bias.data(), problem.call.c = there.data();
        gemm(problem.call);
        EXPECT_TRUE(std::equal(c.begin(), c.end(), there.data())) << problem.text();
      }
}

TEST(PackedGemm, HasTheSameBitsInTheSecondProductOfTheSameMemory) {
  Gemm gemm(Threads{}, GemmChoice::packed), other(Threads{}, GemmChoice::packed);
  Problem problem(kLarge, false, true, false, Addend::none, 0);
  problem.run(gemm);
  for (float& x : problem.b) x = 1.0f - x;  // where it was: what is packed of it is out of date
  EXPECT_EQ(problem.run(gemm), problem.run(other));
}

TEST(GemmBlocks, CoverTheResultAndAreWorthAThread) {
  for (const bool transpose_a : {false, true})
    for (const std::int64_t m : {1, 17, 64, 200, 2048, 5000})
      for (const std::int64_t n : {1, 65, 384, 1024, 3000, 4096})
        for (const std::int64_t k : {1, 64, 384, 4096}) {
          const GemmBlocks blocks = gemm_blocks(m, n, k, transpose_a);
          EXPECT_GE(blocks.rows * blocks.row_parts, m);
          EXPECT_LT(blocks.rows * (blocks.row_parts - 1), m);
          EXPECT_GE(blocks.cols * blocks.col_parts, n);
          EXPECT_LT(blocks.cols * (blocks.col_parts - 1), n);
          EXPECT_LE(blocks.rows, transpose_a ? 1024 : 256);
          EXPECT_LE(blocks.cols, 2048);
          const bool large = m >= 1024 && n >= 384 && k >= 384, little = m * n * k < (1 << 19) && m <= 256 && n <= 512;
          EXPECT_TRUE(!large || blocks.count() >= 6) << m << ", " << n << ", " << k;
          EXPECT_TRUE(!little || blocks.count() == 1) << m << ", " << n << ", " << k;
        }
}

TEST(GemmBlocks, AreWholeRowsOrCutAlongTheLongerSideOfATransposedProduct) {
  const auto cut = [](std::int64_t m, std::int64_t n, bool transpose_a) {
    const GemmBlocks blocks = gemm_blocks(m, n, 2048, transpose_a);
    return std::vector<std::int64_t>{blocks.rows, blocks.cols};
  };
  using Cut = std::vector<std::int64_t>;
  EXPECT_EQ(cut(2048, 1024, false), (Cut{256, 1024}));
  EXPECT_EQ(cut(768, 344, false), (Cut{96, 344}));
  EXPECT_EQ(cut(64, 4096, false), (Cut{64, 512}));
  EXPECT_EQ(cut(256, 4096, false), (Cut{256, 512}));  // B is large: few rows are not worth packing it again
  EXPECT_EQ(cut(256, 512, false), (Cut{128, 128}));
  EXPECT_EQ(cut(256, 256, false), (Cut{64, 256}));
  EXPECT_EQ(cut(384, 1024, true), (Cut{384, 128}));
  EXPECT_EQ(cut(1024, 384, true), (Cut{128, 384}));
  EXPECT_EQ(cut(512, 512, true), (Cut{64, 512}));
  EXPECT_EQ(cut(100, 300, true), (Cut{64, 192}));
  EXPECT_EQ(cut(2048, 2048, false), (Cut{256, 2048}));
  EXPECT_EQ(cut(768, 4096, false), (Cut{256, 2048}));
  EXPECT_EQ(cut(384, 512, false), (Cut{128, 256}));
  EXPECT_EQ(cut(1024, 2048, true), (Cut{1024, 256}));
  EXPECT_EQ(gemm_blocks(96, 128, 8192, false).rows, 48) << "beside a large B of few columns";
  EXPECT_EQ(gemm_blocks(128, 64, 64, false).count(), 2) << "twice what is worth a thread";
}

// ---- functions of vectors -----------------------------------------------------------------------------------------------

class VectorMath : public ::testing::TestWithParam<Variant> {
 protected:
  static std::vector<float> on_cpu(UnaryFn fn, const std::vector<float>& x);
  static void expect_ulps(UnaryFn fn, const std::vector<float>& x, double bound, double (*exact)(double));
};
INSTANTIATE_TEST_SUITE_P(, VectorMath, ::testing::ValuesIn(graft::testing::cpu_variants()),
                         [](const auto& info) { return "variant" + std::to_string(info.index); });

std::vector<float> VectorMath::on_cpu(UnaryFn fn, const std::vector<float>& x) {
  Graph graph;
  graph.output("y", graph.unary(fn, graph.input("x", {static_cast<std::int64_t>(x.size())})));
  const auto backend = make_backend(GetParam(), 2);
  Session session(graph, *backend);
  session.write("x", std::span<const float>(x));
  session.step();
  return session.read("y");
}

/// Floats of every exponent between the two bit patterns, of both signs.
std::vector<float> floats(float smallest, float largest) {
  std::vector<float> x;
  for (std::uint32_t bits = std::bit_cast<std::uint32_t>(smallest); bits <= std::bit_cast<std::uint32_t>(largest); bits += 9973) {
    x.push_back(std::bit_cast<float>(bits));
    x.push_back(-x.back());
  }
  return x;
}

/// The distance of two neighbouring floats at x.
double ulp(double x) { return std::max(std::ldexp(1.0, std::ilogb(x) - 23), std::ldexp(1.0, -149)); }

void VectorMath::expect_ulps(UnaryFn fn, const std::vector<float>& x, double bound, double (*exact)(double)) {
  const std::vector<float> y = on_cpu(fn, x);
  double worst = 0.0;
  std::size_t at = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double want = exact(x[i]), error = std::abs(y[i] - want) / ulp(want);
    if (!(error <= worst)) worst = error, at = i;
  }
  EXPECT_LE(worst, bound) << "at " << x[at] << ": " << y[at] << ", exactly " << exact(x[at]);
  EXPECT_GT(worst, 0.4) << "the bound is not tried";
}

TEST_P(VectorMath, ExpIsWithinTwoUlps) {
  std::vector<float> x = floats(1e-10f, 88.7f);
  std::erase_if(x, [](float v) { return v < -87.3f; });
  expect_ulps(UnaryFn::exp, x, 2.0, [](double v) { return std::exp(v); });
}

TEST_P(VectorMath, ExpOfLargeNumbersIsZeroSubnormalOrInfinite) {
  const float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> y =
      on_cpu(UnaryFn::exp, {0.0f, -0.0f, 88.73f, 200.0f, infinity, -104.0f, -110.0f, -1e30f, -infinity, nan, 88.72f});
  EXPECT_EQ(std::vector<float>(y.begin(), y.begin() + 9), (std::vector<float>{1, 1, infinity, infinity, infinity, 0, 0, 0, 0}));
  EXPECT_TRUE(std::isnan(y[9]));
  EXPECT_NEAR(y[10] / std::exp(static_cast<double>(88.72f)), 1.0, 3e-7);
  for (const float x : {-87.5f, -95.0f, -103.0f})
    EXPECT_NEAR(on_cpu(UnaryFn::exp, {x})[0], std::exp(static_cast<double>(x)), 1.5e-45) << x;
}

TEST_P(VectorMath, SigmoidIsWithinThreeUlps) {
  std::vector<float> x = floats(1e-10f, 80.0f);
  expect_ulps(UnaryFn::sigmoid, x, 3.0, [](double v) { return 1.0 / (1.0 + std::exp(-v)); });
}

TEST_P(VectorMath, TanhIsWithinFourUlps) {
  expect_ulps(UnaryFn::tanh, floats(1e-10f, 30.0f), 4.0, [](double v) { return std::tanh(v); });
}

TEST_P(VectorMath, GeluIsWithinItsBound) {
  const std::vector<float> x = floats(1e-10f, 30.0f), y = on_cpu(UnaryFn::gelu, x);
  double worst = 0.0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double v = x[i], want = 0.5 * v * std::erfc(-v / std::sqrt(2.0));
    worst = std::max(worst, (std::abs(y[i] - want) - 1e-14) / std::abs(want));
    // x² is rounded before exp: the error grows with x².
    ASSERT_LE(std::abs(y[i] - want), v < -8.0 ? 1e-13 : (v < -3.0 ? 6e-6 : 1e-6) * std::abs(want)) << v;
  }
  EXPECT_GT(worst, 1e-7) << "the bound is not tried";
}

TEST_P(VectorMath, NanStaysNanAndInfinitiesAreLimits) {
  const float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<std::pair<UnaryFn, std::pair<float, float>>> limits = {{UnaryFn::sigmoid, {0.0f, 1.0f}},
                                                                           {UnaryFn::tanh, {-1.0f, 1.0f}},
                                                                           {UnaryFn::relu, {0.0f, infinity}},
                                                                           {UnaryFn::exp, {0.0f, infinity}}};
  for (const auto& [fn, limit] : limits) {
    const std::vector<float> y = on_cpu(fn, {-infinity, infinity, nan});
    EXPECT_EQ(y[0], limit.first) << op_name(Unary{fn});
    EXPECT_EQ(y[1], limit.second) << op_name(Unary{fn});
    EXPECT_TRUE(std::isnan(y[2])) << op_name(Unary{fn});
  }
  for (const UnaryFn fn : {UnaryFn::gelu, UnaryFn::gelu_tanh, UnaryFn::silu, UnaryFn::softplus, UnaryFn::sqrt, UnaryFn::abs})
    EXPECT_TRUE(std::isnan(on_cpu(fn, {nan})[0])) << op_name(Unary{fn});
}

}  // namespace
}  // namespace graft::cpu
