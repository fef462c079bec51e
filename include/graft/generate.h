#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "graft/checkpoint.h"
#include "graft/nn.h"
#include "graft/session.h"

namespace graft {

/// How a token is drawn from logits. The steps are those of Hugging Face's generate, in its order: repetition penalty, temperature,
/// top-k, top-p, min-p; each sees the probabilities among the tokens that the ones before it left.
struct SampleOptions {
  double temperature = 0.8;         ///< logits are divided by it; 0: always the likeliest token
  std::int64_t top_k = 0;           ///< above 0: only the k likeliest tokens (and those as likely as the k-th)
  double top_p = 1.0;               ///< below 1: the fewest tokens, likeliest first, that together have at least this probability
  double min_p = 0.0;               ///< above 0: no token less likely than min_p times the likeliest
  double repetition_penalty = 1.0;  ///< of tokens in the text so far: positive logits are divided by it, negative ones multiplied
  std::uint64_t seed = 0;
};

/// Throws Error naming the option: temperature below 0, top_k below 0, top_p outside (0, 1], min_p outside [0, 1), repetition_penalty
/// not above 0.
void check(const SampleOptions& options);

struct TokenProbability {
  std::uint32_t token;
  double probability;
};
/// The tokens that may be drawn, by id, with their probabilities; `seen`: the text so far, prompt included. Throws Error on bad options
/// or when a logit is not finite.
std::vector<TokenProbability> token_probabilities(std::span<const float> logits, const SampleOptions& options, std::span<const std::uint32_t> seen = {});

/// Draws one of them; Philox number `index` of the seed decides, so a text can be drawn again.
std::uint32_t sample(std::span<const float> logits, const SampleOptions& options, std::uint32_t index, std::span<const std::uint32_t> seen = {});

/// A model that can be decoded through caches.
struct Decoder {
  /// Records the model with caches of `sequences` sequences of max_seq tokens, and one step → logits.
  std::function<Value(Graph& graph, std::int64_t sequences, std::int64_t max_seq, const nn::DecodeStep& step)> record;
  std::int64_t vocab_size = 0;
  Decoder(const nn::LlamaConfig& config);  // NOLINT(google-explicit-constructor): a configuration is a decoder
  Decoder(const nn::Gpt2Config& config);   // NOLINT(google-explicit-constructor)
};

struct GeneratorOptions {
  std::int64_t max_seq = 0;  ///< tokens the model looks back on; a longer text goes on from its newest half
  std::int64_t batch = 1;    ///< texts written at once
  std::int64_t prefill = 64; ///< tokens of a prompt that go through the model at once; at most max_seq are
  /// Applied to the graphs before they run: passes::lora, say.
  std::function<Graph(const Graph&)> pass = {};
};

struct GenerateOptions {
  std::int64_t max_tokens = 0;         ///< new ones, at most
  SampleOptions sampling = {};         ///< text i draws with seed + i
  std::vector<std::uint32_t> stop = {};  ///< a text ends with the first of these; it is the last token returned
};

/// Writes texts with a model through its KV caches: prompts go through it in chunks, each text by itself; then all texts take one token a
/// step. A text does not depend on the others, bit for bit, on the reference backend, and on the cpu backend in batches of up to 8.
class Generator {
 public:
  /// With weights of its own, to be restored from a checkpoint or written. Throws Error naming the option that makes no sense.
  Generator(const Decoder& decoder, Backend& backend, const GeneratorOptions& options);
  /// On the weights of a session that trains the same model; it must outlive the generator.
  Generator(const Decoder& decoder, Session& owner, const GeneratorOptions& options);
  ~Generator();

  /// Takes the weights ("model/…") of a checkpoint; see Session::restore_parameters.
  void restore(const Checkpoint& checkpoint);
  /// Where the weights are, for Session::write.
  Session& session();
  /// Reads the prompts, none of which may be empty, then draws tokens; more prompts than the batch wait for a place. Calls `each` (if given)
  /// on every new token with the number of its prompt; false ends that text. Returns the new tokens.
  std::vector<std::vector<std::uint32_t>> generate(std::span<const std::vector<std::uint32_t>> prompts, const GenerateOptions& options,
                                                   const std::function<bool(std::size_t, std::uint32_t)>& each = {});
  /// One prompt.
  std::vector<std::uint32_t> generate(std::span<const std::uint32_t> prompt, std::int64_t count, const SampleOptions& options = {},
                                      const std::function<bool(std::uint32_t)>& each = {});

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace graft
