#pragma once
// A Hugging Face folder as the programs use it: model, tokenizer, tokens that end a text.
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "graft/generate.h"
#include "graft/hf.h"
#include "graft/lora.h"
#include "graft/tokenizer.h"

/// Whether a folder holds a model for transformers: a config.json.
bool is_hf_folder(const std::filesystem::path& folder);

/// Of its tokenizer.json, or with `bytes` one token a byte value. Throws Error naming the folder when there is none.
graft::Tokenizer tokenizer_of(const std::filesystem::path& folder, bool bytes);
/// The ids of a text; throws Error when one is not below `vocab_size`, naming text and token.
std::vector<std::uint32_t> encode(const graft::Tokenizer& tokenizer, const std::string& text, std::int64_t vocab_size, const std::string& name);

/// eos_token_id of generation_config.json, else of config.json: one, several or none.
std::vector<std::uint32_t> stop_tokens(const std::filesystem::path& folder);
/// Tokens of a sequence that the model was made for.
std::int64_t max_positions(const graft::hf::Config& config);
std::int64_t vocab_size(const graft::hf::Config& config);
/// The model's forward pass with this dropout: ids u32 [n], sequences of `context` → logits.
graft::Value logits_of(graft::Graph& graph, const graft::hf::Config& config, graft::Value ids, std::int64_t context, double dropout);

/// The parameters of the model as a graph names them.
std::vector<std::string> parameter_names(const graft::hf::Config& config);
/// Sets the weights of a session, trained or frozen ones; what the model has not (adapters) stays.
void set_weights(const graft::hf::Model& model, graft::Session& session);
/// 64-bit hash of configuration and weights, not cryptographic.
std::uint64_t hash_of(const graft::hf::Model& model);
std::uint64_t hash_of(std::span<const std::byte> bytes, std::uint64_t seed = 0xcbf29ce484222325u);

/// Writes the weights of a session, adapters merged, as a folder for transformers, with the tokenizer's files of the folder `from`.
void export_model(const std::filesystem::path& to, const std::filesystem::path& from, const graft::hf::Config& config, graft::Session& session,
                  const graft::LoraOptions* adapters, graft::hf::SaveAs dtype);
