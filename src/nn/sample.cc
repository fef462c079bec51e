#include <algorithm>
#include <cmath>
#include <string>

#include "graft/error.h"
#include "graft/generate.h"
#include "graft/philox.h"

namespace graft {
namespace {

void require(bool condition, const char* option, double got, const char* must) {
  if (!condition) throw Error(std::string("sample: ") + option + " is " + std::to_string(got) + ", must be " + must);
}

/// Probabilities of what is left, from weights exp(score − largest score).
struct Candidates {
  std::vector<TokenProbability> tokens;  // by id

  template <class Keep>
  void keep_if(const Keep& keep) {
    std::erase_if(tokens, [&](const TokenProbability& x) { return !keep(x); });
    normalize();
  }
  void normalize() {
    double total = 0.0;
    for (const TokenProbability& x : tokens) total += x.probability;
    for (TokenProbability& x : tokens) x.probability /= total;
  }
};

}  // namespace

void check(const SampleOptions& options) {
  require(options.temperature >= 0.0, "temperature", options.temperature, "at least 0");
  if (options.top_k < 0) throw Error("sample: top_k is " + std::to_string(options.top_k) + ", must be at least 0");
  require(options.top_p > 0.0 && options.top_p <= 1.0, "top_p", options.top_p, "above 0 and at most 1");
  require(options.min_p >= 0.0 && options.min_p < 1.0, "min_p", options.min_p, "at least 0 and below 1");
  require(options.repetition_penalty > 0.0, "repetition_penalty", options.repetition_penalty, "above 0");
}

std::vector<TokenProbability> token_probabilities(std::span<const float> logits, const SampleOptions& options,
                                                  std::span<const std::uint32_t> seen) {
  check(options);
  if (logits.empty()) throw Error("sample: there are no logits");
  for (std::size_t i = 0; i < logits.size(); ++i)
    if (!std::isfinite(logits[i])) throw Error("sample: logit " + std::to_string(i) + " is not finite");
  std::vector<double> scores(logits.begin(), logits.end());
  for (const std::uint32_t token : seen) {
    if (token >= scores.size()) continue;
    const double logit = logits[token];  // a token seen twice counts once
    scores[token] = logit > 0.0 ? logit / options.repetition_penalty : logit * options.repetition_penalty;
  }
  const auto best = std::max_element(scores.begin(), scores.end());
  if (options.temperature == 0.0) return {{static_cast<std::uint32_t>(best - scores.begin()), 1.0}};

  Candidates left;
  const double largest = *best;
  double least = -std::numeric_limits<double>::infinity();
  if (options.top_k > 0 && options.top_k < static_cast<std::int64_t>(scores.size())) {
    std::vector<double> ordered = scores;
    std::nth_element(ordered.begin(), ordered.begin() + (options.top_k - 1), ordered.end(), std::greater<>());
    least = ordered[static_cast<std::size_t>(options.top_k - 1)];
  }
  for (std::size_t i = 0; i < scores.size(); ++i)
    if (scores[i] >= least)
      left.tokens.push_back({static_cast<std::uint32_t>(i), std::exp((scores[i] - largest) / options.temperature)});
  left.normalize();
  if (options.top_p < 1.0) {
    // From the least likely one on, tokens go as long as they have no more than 1 − p together; the last one stays.
    std::vector<TokenProbability> rising = left.tokens;
    std::stable_sort(rising.begin(), rising.end(), [](const auto& a, const auto& b) { return a.probability < b.probability; });
    double gone = 0.0;
    std::vector<char> keep(scores.size(), 1);
    for (std::size_t i = 0; i + 1 < rising.size() && (gone += rising[i].probability) <= 1.0 - options.top_p; ++i)
      keep[rising[i].token] = 0;
    left.keep_if([&](const TokenProbability& x) { return keep[x.token] != 0; });
  }
  if (options.min_p > 0.0) {
    double top = 0.0;
    for (const TokenProbability& x : left.tokens) top = std::max(top, x.probability);
    left.keep_if([&](const TokenProbability& x) { return x.probability >= options.min_p * top; });
  }
  return left.tokens;
}

std::uint32_t sample(std::span<const float> logits, const SampleOptions& options, std::uint32_t index,
                     std::span<const std::uint32_t> seen) {
  const std::vector<TokenProbability> tokens = token_probabilities(logits, options, seen);
  constexpr std::uint32_t kStream = 0x73616d70;  // apart from dropout's streams
  double left = philox::uniform(philox::bits(options.seed, kStream, index, 0));
  for (const TokenProbability& x : tokens)
    if ((left -= x.probability) < 0.0) return x.token;
  return tokens.back().token;
}

}  // namespace graft
