#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "graft/generate.h"
#include "graft/graph.h"
#include "graft/nn.h"
#include "graft/safetensors.h"
#include "graft/session.h"

/// Models of Hugging Face's transformers, in and out: folders of config.json and model.safetensors (docs/huggingface.md).
///
///     const auto model = graft::hf::load("folder");
///     Graph g;
///     const auto net = model.build(g);
///     const Value logits = net.forward(g, g.input_u32("ids", {n}));
///     …
///     Session session(g, *backend);
///     model.restore(session);
///     … train …
///     graft::hf::save("tuned", session, model.config());
namespace graft::hf {

/// What a config.json says: the model it describes, and all of its text, keys that graft has no use for included.
class Config {
 public:
  using Model = std::variant<nn::LlamaConfig, nn::Gpt2Config>;
  /// From the text of a config.json: Llama, Mistral, Qwen2 and GPT-2 for causal language modelling. Throws Error that names the key and its
  /// value when graft cannot compute what it asks for, beginning with `what`. Dropout is left at 0, for inference; whoever trains may set it.
  static Config parse(std::string_view json, const std::string& what = "config.json");
  /// Of a model made here, as transformers would write it: LlamaForCausalLM; Qwen2ForCausalLM with biases of q, k and v alone; Mistral-
  /// ForCausalLM with a window. max_positions is for the reader's information. Throws Error when none of them has what `model` has.
  static Config of(const nn::LlamaConfig& model, std::int64_t max_positions);
  static Config of(const nn::Gpt2Config& model);

  const Model& model() const { return model_; }
  /// For a Generator; Model::restore then takes Generator::session().
  Decoder decoder() const;
  const std::string& json() const { return json_; }

 private:
  Config(Model model, std::string json) : model_(std::move(model)), json_(std::move(json)) {}
  Model model_;
  std::string json_;
};

/// The decoder that a Config describes, recorded in a graph.
struct Network {
  std::variant<nn::Llama, nn::Gpt2> model;
  /// Registers the parameters, under their Hugging Face names. Those that begin at random are restored from a Model.
  Network(Graph& graph, const Config& config);
  /// ids u32 [n] → logits [n, vocab_size]. Sequences are stacked as `segments` says (GPT-2: not packed).
  Value forward(Graph& graph, Value ids, const Segments& segments = {}) const;
};

/// A model in a folder: its configuration, and its weights mapped into memory. Names and shapes fit each other.
class Model {
 public:
  const Config& config() const { return config_; }
  Network build(Graph& graph) const { return Network(graph, config_); }
  /// Sets the parameters of a session to the weights, converted to f32. Strict: one Error lists every parameter that is missing there or has
  /// another shape, and every one there that the model has not, unless `others_stay` (adapters, say); nothing is changed then.
  void restore(Session& session, bool others_stay = false) const;
  /// One parameter as graft lays it out, matrices [in, out]; `to` has its size. Throws Error that lists the near names.
  void read(std::string_view parameter, std::span<float> to) const;
  const Safetensors& weights() const { return weights_; }

 private:
  friend Model load(const std::filesystem::path& folder);
  struct Weight {
    std::string parameter;
    Shape shape;        // here
    bool transposed;    // there
    std::size_t index;  // in weights_.tensors()
  };
  Model(Config config, Safetensors weights) : config_(std::move(config)), weights_(std::move(weights)) {}
  void read(const Weight& weight, std::span<float> to) const;
  Config config_;
  Safetensors weights_;
  std::vector<Weight> map_;
};

/// Reads config.json and model.safetensors, or the shards of model.safetensors.index.json. Throws Error naming the file and what is wrong:
/// one Error lists every missing, unexpected and mismatched tensor. Buffers that older versions saved beside the weights (attn.bias,
/// attn.masked_bias, rotary_emb.inv_freq) are passed over, and so is an lm_head that is tied and equal to the embedding.
Model load(const std::filesystem::path& folder);

/// The float type of the weights in a folder.
enum class SaveAs : std::uint8_t { f32, bf16, f16 };
/// How `save` writes a folder.
struct SaveOptions {
  SaveAs dtype = SaveAs::f32;                    ///< rounded to the nearest, ties to even; f16 refuses what is too large for it
  std::int64_t max_shard_bytes = 5'000'000'000;  ///< above that the weights are split, with an index; a tensor is never split
};
/// Writes a folder that transformers loads: config.json (with its dtype set) and the weights of the session's parameters. The folder is made
/// if needed and may hold other files, a tokenizer's say, but no model. Strict on the parameters as Model::restore. Throws Error, and then
/// nothing is left of what was written.
void save(const std::filesystem::path& folder, Session& session, const Config& config, const SaveOptions& options = {});

}  // namespace graft::hf
