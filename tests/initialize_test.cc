#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "tests/session_fixture.h"

namespace graft {
namespace {

using testing::Doubles;
using testing::Floats;
using testing::U32s;
using testing::write;

class Initialize : public testing::SessionTest {};

constexpr std::uint64_t kSeed = 0x0123456789abcdef;

/// The k-th uniform number of a tensor, by its definition: Philox4x32-10 of (k / 4, hash of the name, 2³² − 1), keyed by the seed.
double number(std::string_view name, std::uint64_t k) {
  std::uint32_t hash = 0x811c9dc5u;
  for (const char c : name) hash = (hash ^ static_cast<std::uint8_t>(c)) * 0x01000193u;
  std::uint32_t c[4] = {static_cast<std::uint32_t>(k / 4), 0, hash, 0xffffffffu};
  std::uint32_t key[2] = {static_cast<std::uint32_t>(kSeed), static_cast<std::uint32_t>(kSeed >> 32)};
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = 0xD2511F53ull * c[0], b = 0xCD9E8D57ull * c[2];
    const std::uint32_t next[4] = {static_cast<std::uint32_t>(b >> 32) ^ c[1] ^ key[0], static_cast<std::uint32_t>(b),
                                   static_cast<std::uint32_t>(a >> 32) ^ c[3] ^ key[1], static_cast<std::uint32_t>(a)};
    std::memcpy(c, next, sizeof(c));
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return c[k % 4] / 4294967296.0;
}

double gaussian(std::string_view name, std::uint64_t k) {
  const double radius = std::sqrt(-2.0 * std::log(1.0 - number(name, k / 2 * 2))), angle = 2.0 * M_PI * number(name, k / 2 * 2 + 1);
  return radius * (k % 2 ? std::sin(angle) : std::cos(angle));
}

template <class Formula>
void expect_values(const Doubles& values, Formula formula) {
  for (std::size_t k = 0; k < values.size(); ++k) ASSERT_NEAR(values[k], formula(k), 1e-12 * (1.0 + std::abs(formula(k)))) << k;
}

TEST_F(Initialize, ParametersStartAsTheirInitSays) {
  Graph g(kSeed);
  constexpr std::int64_t kOdd = 5001;  // more than one chunk, the last pair cut in half
  g.parameter("fill", {3}, Init::fill(1.5), DType::f64);
  g.parameter("uniform", {7, 5}, Init::uniform(-2.0, 3.0), DType::f64);
  g.parameter("normal", {kOdd}, Init::normal(1.0, 0.5), DType::f64);
  g.parameter("xavier", {6, 2}, Init::xavier(), DType::f64);
  g.parameter("kaiming", {8, 3}, Init::kaiming(), DType::f64);
  g.parameter("xavier_vector", {6}, Init::xavier(), DType::f64);
  g.parameter("kaiming_vector", {8}, Init::kaiming(), DType::f64);
  g.state("state", {4}, Init::uniform(0.0, 1.0), DType::f64);
  g.state("counter", {}, Init::fill(4000000000.0), DType::u32);
  Session session(g, *backend);
  EXPECT_EQ(session.read_f64("fill"), (Doubles{1.5, 1.5, 1.5}));
  expect_values(session.read_f64("uniform"), [](std::size_t k) { return -2.0 + 5.0 * number("uniform", k); });
  expect_values(session.read_f64("normal"), [](std::size_t k) { return 1.0 + 0.5 * gaussian("normal", k); });
  expect_values(session.read_f64("xavier"), [](std::size_t k) { return std::sqrt(6.0 / 8.0) * (2.0 * number("xavier", k) - 1.0); });
  expect_values(session.read_f64("kaiming"), [](std::size_t k) { return std::sqrt(2.0 / 8.0) * gaussian("kaiming", k); });
  expect_values(session.read_f64("xavier_vector"),
                [](std::size_t k) { return std::sqrt(6.0 / 12.0) * (2.0 * number("xavier_vector", k) - 1.0); });
  expect_values(session.read_f64("kaiming_vector"),
                [](std::size_t k) { return std::sqrt(2.0 / 8.0) * gaussian("kaiming_vector", k); });
  expect_values(session.read_f64("state"), [](std::size_t k) { return number("state", k); });
  EXPECT_EQ(session.read_u32("counter"), (U32s{4000000000u}));
}

TEST_F(Initialize, TheFirstInitialValuesNeverChange) {
  Graph g(7);
  g.parameter("model.embed_tokens.weight", {4}, Init::normal(0.0, 0.02));
  g.parameter("lm_head.weight", {2, 2}, Init::xavier());
  Session session(g, *backend);
  EXPECT_EQ(session.read("model.embed_tokens.weight"), (Floats{-0.0162141919f, -0.00566511741f, 0.00264688558f, 0.0171248894f}));
  EXPECT_EQ(session.read("lm_head.weight"), (Floats{-1.03383398f, -0.889482498f, 0.4242194f, -0.276612043f}));
}

TEST_F(Initialize, InitialValuesDependOnSeedAndNameAlone) {
  const auto values = [&](std::uint64_t seed, const char* name, bool others, DType dtype, Backend& on) {
    Graph g(seed);
    if (others) g.parameter("before", {100}, Init::normal(0, 1));
    g.parameter(name, {2, 50}, Init::normal(0, 1), dtype);
    if (others) g.state("after", {100}, Init::normal(0, 1));
    return Session(g, on).read(name);
  };
  const auto cpu = cpu_backend(2);
  const Floats w = values(1, "w", false, DType::f32, *backend);
  EXPECT_EQ(w, values(1, "w", true, DType::f32, *backend));
  EXPECT_EQ(w, values(1, "w", false, DType::f64, *backend)) << "f64 values rounded are the f32 values";
  EXPECT_EQ(w, values(1, "w", false, DType::f32, *cpu));
  EXPECT_NE(w, values(2, "w", false, DType::f32, *backend));
  EXPECT_NE(w, values(1, "v", false, DType::f32, *backend));
}

TEST_F(Initialize, UniformValuesStayBelowTheirUpperEnd) {
  Graph g;
  // Between 2²⁴ and its upper neighbour there is no other f32, so half of the doubles would round to the end.
  g.parameter("w", {2000}, Init::uniform(16777216.0, 16777218.0));
  g.parameter("unit", {100000}, Init::uniform(0.0, 1.0));
  Session session(g, *backend);
  for (const float v : session.read("w")) ASSERT_EQ(v, 16777216.0f);
  double sum = 0.0;
  for (const float v : session.read("unit")) {
    ASSERT_GE(v, 0.0f);
    ASSERT_LT(v, 1.0f);
    sum += v;
  }
  EXPECT_NEAR(sum / 100000, 0.5, 0.005);
}

TEST_F(Initialize, ResetSetsEverythingBackAndResetStatesOnlyTheStates) {
  Graph g(3);
  const Value w = g.parameter("w", {4}, Init::normal(0, 1));
  const Value s = g.state("s", {4}, Init::uniform(0, 1), DType::f32, false);
  const Value n = g.state("n", {}, Init::fill(9), DType::u32);
  g.assign(g.add(s, w), s);
  g.record(Increment{}, {n});
  Session session(g, *backend);
  const Floats w0 = session.read("w"), s0 = session.read("s");
  write(session, "w", {1, 1, 1, 1});
  session.step();
  session.reset_states();
  EXPECT_EQ(session.read("s"), s0);
  EXPECT_EQ(session.read_u32("n"), (U32s{9}));
  EXPECT_EQ(session.read("w"), (Floats{1, 1, 1, 1}));
  session.step();
  session.reset();
  EXPECT_EQ(session.read("w"), w0);
  EXPECT_EQ(session.read("s"), s0);
}

}  // namespace
}  // namespace graft
