// Drawing tokens from logits: what may be drawn is held against transformers in golden_test.cc; here is how it is drawn, and what is refused.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "graft/generate.h"
#include "graft/philox.h"
#include "tests/message.h"

namespace graft {
namespace {

using testing::message_of;

const std::vector<float> kLogits = {0.5f, 2.0f, -1.0f, 1.5f, 2.0f, 0.0f};

TEST(Sample, AtTemperatureZeroIsTheFirstOfTheLikeliest) {
  for (const std::uint32_t index : {0u, 1u, 7u}) EXPECT_EQ(sample(kLogits, {.temperature = 0.0}, index), 1u);
  const std::vector<TokenProbability> one =
      token_probabilities(kLogits, {.temperature = 0.0, .top_k = 3, .top_p = 0.9, .min_p = 0.1});
  ASSERT_EQ(one.size(), 1u);
  EXPECT_EQ(one[0].token, 1u);
  EXPECT_EQ(one[0].probability, 1.0);
}

TEST(Sample, PenaltyMovesTheLikeliest) {
  const SampleOptions greedy = {.temperature = 0.0, .repetition_penalty = 1.25};
  EXPECT_EQ(sample(kLogits, greedy, 0, std::vector<std::uint32_t>{1}), 4u);
  EXPECT_EQ(sample(kLogits, greedy, 0, std::vector<std::uint32_t>{1, 4, 1}), 1u) << "2 / 1.25 is above 1.5, also if seen twice";
  EXPECT_EQ(sample(std::vector<float>{-1.0f, -1.1f}, greedy, 0, std::vector<std::uint32_t>{0}), 1u)
      << "negative logits are multiplied";
  EXPECT_EQ(sample(kLogits, greedy, 0, std::vector<std::uint32_t>{6, 99}), 1u) << "tokens outside of the vocabulary mean nothing";
}

TEST(Sample, DrawsByPhiloxNumberIndexOfTheSeed) {
  const SampleOptions options = {.temperature = 0.9, .top_k = 4, .seed = 11};
  const std::vector<TokenProbability> tokens = token_probabilities(kLogits, options);
  ASSERT_EQ(tokens.size(), 4u);
  std::vector<int> count(kLogits.size());
  for (std::uint32_t index = 0; index < 4000; ++index) {
    double left = philox::uniform(philox::bits(11, 0x73616d70, index, 0));
    std::uint32_t wanted = tokens.back().token;
    for (std::size_t i = tokens.size(); i-- > 0;) {  // from the end, by the mass that lies before
      double before = 0.0;
      for (std::size_t j = 0; j < i; ++j) before += tokens[j].probability;
      if (left >= before) {
        wanted = tokens[i].token;
        break;
      }
    }
    const std::uint32_t token = sample(kLogits, options, index);
    ASSERT_EQ(token, wanted) << index;
    ++count[token];
  }
  for (const TokenProbability& x : tokens) EXPECT_NEAR(count[x.token] / 4000.0, x.probability, 0.03) << x.token;
  EXPECT_EQ(count[2] + count[5], 0);
}

TEST(Sample, RefusesOptionsThatMakeNoSense) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  const auto message = [](const SampleOptions& options) { return message_of([&] { sample(kLogits, options, 0); }); };
  EXPECT_EQ(message({.temperature = -0.5}), "sample: temperature is -0.500000, must be at least 0");
  EXPECT_EQ(message({.temperature = kNan}), "sample: temperature is nan, must be at least 0");
  EXPECT_EQ(message({.top_k = -1}), "sample: top_k is -1, must be at least 0");
  EXPECT_EQ(message({.top_p = 0.0}), "sample: top_p is 0.000000, must be above 0 and at most 1");
  EXPECT_EQ(message({.top_p = 1.5}), "sample: top_p is 1.500000, must be above 0 and at most 1");
  EXPECT_EQ(message({.top_p = kNan}), "sample: top_p is nan, must be above 0 and at most 1");
  EXPECT_EQ(message({.min_p = -0.1}), "sample: min_p is -0.100000, must be at least 0 and below 1");
  EXPECT_EQ(message({.min_p = 1.0}), "sample: min_p is 1.000000, must be at least 0 and below 1");
  EXPECT_EQ(message({.repetition_penalty = 0.0}), "sample: repetition_penalty is 0.000000, must be above 0");
  EXPECT_EQ(message({.temperature = 1.0, .top_k = 6, .top_p = 1.0, .min_p = 0.0, .repetition_penalty = 2.0}), "no error");
}

TEST(Sample, RefusesLogitsThatAreNotFinite) {
  for (const float bad : {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(), std::nanf("")}) {
    const std::vector<float> logits = {1.0f, bad};
    EXPECT_EQ(message_of([&] { sample(logits, {}, 0); }), "sample: logit 1 is not finite");
  }
  EXPECT_EQ(message_of([] { sample(std::vector<float>{}, {}, 0); }), "sample: there are no logits");
}

}  // namespace
}  // namespace graft
