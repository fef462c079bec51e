#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "graft/checkpoint.h"
#include "graft/nn.h"
#include "graft/session.h"

namespace graft {

struct SampleOptions {
  double temperature = 0.8;  ///< 0: always the likeliest token
  std::int64_t top_k = 0;    ///< above 0: only the k likeliest tokens
  std::uint64_t seed = 0;
};

/// Draws a token from logits: softmax(logits / temperature) over the top k; Philox number `index` of the seed decides, so a text can be drawn again.
/// Throws Error on a negative temperature or when a logit is not finite.
std::uint32_t sample(std::span<const float> logits, const SampleOptions& options, std::uint32_t index);

/// Writes text with a Llama through its KV cache, one token a step.
class Generator {
 public:
  /// With weights of its own, to be restored from a checkpoint. max_seq: rows of the caches; a longer text goes on from its newest half.
  Generator(const nn::LlamaConfig& config, Backend& backend, std::int64_t max_seq);
  /// On the weights of a session that trains the same model; it must outlive the generator.
  Generator(const nn::LlamaConfig& config, Session& owner, std::int64_t max_seq);
  ~Generator();

  /// Takes the weights ("model/…") of a checkpoint; see Session::restore_parameters.
  void restore(const Checkpoint& checkpoint);
  /// Reads the prompt, which must not be empty, then draws `count` tokens, calling `each` (if given) on every new one; false stops. Returns the new tokens.
  std::vector<std::uint32_t> generate(std::span<const std::uint32_t> prompt, std::int64_t count, const SampleOptions& options = {},
                                      const std::function<bool(std::uint32_t)>& each = {});

 private:
  Generator(const nn::LlamaConfig& config, Backend* backend, Session* owner, std::int64_t max_seq);
  void feed(std::uint32_t token);
  std::unique_ptr<Session> session_;
  std::int64_t max_seq_;
  std::vector<std::uint32_t> seen_;  // the tokens whose keys and values are cached
};

}  // namespace graft
