#pragma once
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "examples/support/training.h"
#include "graft/data.h"
#include "graft/error.h"
#include "graft/nn.h"
#include "graft/tokenizer.h"

/// What a run was made with: the part of the options that a checkpoint keeps, as JSON, and that a resumed run must not contradict.
struct RunConfig : TrainingSettings {
  // model
  std::int64_t layers = 4, hidden = 128, heads = 4, kv_heads = 0, intermediate = 0;
  double rope_theta = 10000.0, dropout = 0.0;
  bool untied = false;
  // text
  std::string text;               ///< where it came from
  std::uint64_t text_hash = 0;    ///< of its bytes, or of the tokens
  std::vector<int> vocabulary;    ///< the byte values that are tokens, without a tokenizer
  std::string tokens;             ///< the token file, if it was trained on one
  std::string tokenizer;          ///< the text of the tokenizer.json, if there was one
  std::int64_t vocab_size = 0;    ///< 0: one token a byte of `vocabulary`
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(RunConfig, layers, hidden, heads, kv_heads, intermediate, context, rope_theta, dropout, untied, steps, batch,
                                   accumulate, warmup, seed, optimizer, schedule, dtype, lr, min_lr, beta1, beta2, weight_decay, clip, validation, text,
                                   text_hash, vocabulary, tokens, tokenizer, vocab_size)

inline graft::Tokenizer tokenizer_of(const RunConfig& run) {
  if (!run.tokenizer.empty()) return graft::Tokenizer::from_json(run.tokenizer, "of the run");
  std::string bytes;
  for (int byte : run.vocabulary) bytes += static_cast<char>(byte);
  return graft::Tokenizer::bytes(graft::ByteVocabulary(bytes));
}

inline graft::nn::LlamaConfig model_of(const RunConfig& run) {
  graft::nn::LlamaConfig model;
  model.vocab_size = run.vocab_size > 0 ? run.vocab_size : static_cast<std::int64_t>(run.vocabulary.size());
  model.hidden_size = run.hidden;
  model.intermediate_size = run.intermediate;
  model.num_layers = run.layers;
  model.num_heads = run.heads;
  model.num_kv_heads = run.kv_heads;
  model.rope_theta = run.rope_theta;
  model.tie_embeddings = !run.untied;
  model.dropout = run.dropout;
  return model;
}

/// Throws graft::Error naming the file when the checkpoint was not written by `train`.
inline RunConfig run_config_of(const std::string& json, const std::string& file) {
  try {
    nlohmann::json config = nlohmann::json::parse(json);
    for (const auto& [key, missing] : std::map<std::string, nlohmann::json>{{"tokens", ""}, {"tokenizer", ""}, {"vocab_size", 0}})
      if (config.is_object() && !config.contains(key)) config[key] = missing;  // written before there were tokenizers
    return config.get<RunConfig>();
  } catch (const nlohmann::json::exception& error) {
    throw graft::Error("checkpoint \"" + file + "\": its configuration is not one of train: " + error.what());
  }
}
