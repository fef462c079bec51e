#include <cmath>
#include <limits>
#include <optional>

#include "graft/error.h"
#include "graft/hf.h"
#include "src/hf/json.h"

namespace graft::hf {
namespace {

using detail::Json;
using detail::shown;

/// The members of an object; errors read `{what}: key "hidden_act" is "relu", must be "silu"`. A null is as if it were not there.
class Keys {
 public:
  Keys(const Json& json, std::string what, std::string prefix = "")
      : json_(json), what_(std::move(what)), prefix_(std::move(prefix)) {}

  const Json* find(const char* key) const {
    const auto found = json_.find(key);
    return found == json_.end() || found->is_null() ? nullptr : &*found;
  }
  bool has(const char* key) const { return json_.contains(key); }  ///< also as null
  [[noreturn]] void refuse(const char* key, const std::string& must) const {
    const Json* value = find(key);
    throw Error(what_ + ": key \"" + prefix_ + key + "\" is " + (value ? shown(*value) : "missing") + ", " + must);
  }
  std::int64_t size(const char* key, std::optional<std::int64_t> otherwise = {}, std::int64_t least = 1) const {
    const Json* value = find(key);
    if (value == nullptr && otherwise) return *otherwise;
    constexpr std::int64_t kMost = std::int64_t{1} << 24;  // so that the elements and bytes of a tensor can be counted
    if (value == nullptr || !value->is_number_integer() || value->get<std::int64_t>() < least ||
        value->get<std::int64_t>() > kMost ||
        (value->is_number_unsigned() && value->get<std::uint64_t>() > static_cast<std::uint64_t>(kMost)))
      refuse(key, "must be a whole number from " + std::to_string(least) + " to " + std::to_string(kMost));
    return value->get<std::int64_t>();
  }
  double number(const char* key, std::optional<double> otherwise = {}) const {
    const Json* value = find(key);
    if (value == nullptr && otherwise) return *otherwise;
    if (value == nullptr || !value->is_number() || !(value->get<double>() > 0.0) || !std::isfinite(value->get<double>()))
      refuse(key, "must be a number above 0");
    return value->get<double>();
  }
  bool flag(const char* key, bool otherwise) const {
    const Json* value = find(key);
    if (value == nullptr) return otherwise;
    if (!value->is_boolean()) refuse(key, "must be true or false");
    return value->get<bool>();
  }
  std::string text(const char* key, const std::string& otherwise) const {
    const Json* value = find(key);
    if (value == nullptr) return otherwise;
    if (!value->is_string()) refuse(key, "must be text");
    return value->get<std::string>();
  }
  /// The key may be missing or have this value, nothing else.
  void only(const char* key, const Json& value, const std::string& must) const {
    const Json* found = find(key);
    if (found != nullptr && *found != value) refuse(key, must);
  }
  const std::string& what() const { return what_; }

 private:
  const Json& json_;
  std::string what_, prefix_;
};

/// theta and scaling, from "rope_parameters" (transformers 5) or "rope_theta" and "rope_scaling" (before).
void read_rope(const Keys& keys, nn::LlamaConfig& model) {
  model.rope_theta = keys.number("rope_theta", 10000.0);
  keys.only("partial_rotary_factor", 1.0, "only whole heads are rotated");
  const char* name = keys.find("rope_scaling") != nullptr ? "rope_scaling" : "rope_parameters";
  const Json* found = keys.find(name);
  if (found == nullptr) return;
  if (!found->is_object()) keys.refuse(name, "must be an object");
  const Keys rope(*found, keys.what(), std::string(name) + ".");
  model.rope_theta = rope.number("rope_theta", model.rope_theta);
  rope.only("partial_rotary_factor", 1.0, "only whole heads are rotated");
  for (const auto& [key, value] : found->items())
    if (value.is_object()) rope.refuse(key.c_str(), "rotations that differ from layer to layer are not supported");
  const char* type_key = rope.find("rope_type") != nullptr ? "rope_type" : "type";
  const std::string type = rope.text(type_key, "default");
  RopeScaling& scaling = model.rope_scaling;
  if (type == "default") return;
  if (type == "linear") {
    scaling.kind = RopeScaling::Kind::linear;
    scaling.factor = rope.number("factor");
  } else if (type == "llama3") {
    scaling.kind = RopeScaling::Kind::llama3;
    scaling.factor = rope.number("factor");
    scaling.low_freq_factor = rope.number("low_freq_factor");
    scaling.high_freq_factor = rope.number("high_freq_factor");
    if (scaling.high_freq_factor <= scaling.low_freq_factor) rope.refuse("high_freq_factor", "must be above low_freq_factor");
    // transformers' order: beside the rotation's parameters, in them, or the longest text at all.
    if (keys.find("original_max_position_embeddings") != nullptr) {
      scaling.original_context = keys.size("original_max_position_embeddings");
    } else if (rope.find("original_max_position_embeddings") != nullptr) {
      scaling.original_context = rope.size("original_max_position_embeddings");
    } else {
      scaling.original_context = keys.size("max_position_embeddings");
    }
  } else {
    rope.refuse(type_key, R"(must be "default", "linear" or "llama3")");
  }
}

/// Which layers look back over a window only: `layer_types` says it layer by layer, if it is there.
void read_layer_types(const Keys& keys, nn::LlamaConfig& model, bool decides) {
  const Json* types = keys.find("layer_types");
  if (types == nullptr) return;
  if (!types->is_array() || types->size() != static_cast<std::size_t>(model.num_layers))
    keys.refuse("layer_types", "must name the type of each of the layers");
  std::int64_t full = 0, sliding = 0;
  for (const Json& type : *types) {
    if (type == "full_attention") {
      if (sliding > 0) keys.refuse("layer_types", "layers of full attention after ones with a window are not supported");
      ++full;
    } else if (type == "sliding_attention") {
      ++sliding;
    } else {
      keys.refuse("layer_types", R"(must be of "full_attention" and "sliding_attention")");
    }
  }
  if (sliding > 0 && model.window == 0) keys.refuse("layer_types", "but there is no sliding_window");
  if (decides) {
    model.full_layers = full;
  } else if (full != (model.window > 0 ? 0 : model.num_layers)) {
    keys.refuse("layer_types", "layers that differ are not supported in this type of model");
  }
}

nn::LlamaConfig read_llama(const Keys& keys, const std::string& type) {
  nn::LlamaConfig model;
  model.vocab_size = keys.size("vocab_size");
  model.hidden_size = keys.size("hidden_size");
  model.intermediate_size = keys.size("intermediate_size");
  model.num_layers = keys.size("num_hidden_layers");
  model.num_heads = keys.size("num_attention_heads");
  // What transformers takes where a key is missing; a null means something else.
  const std::int64_t kv_heads = type == "mistral" ? 8 : type == "qwen2" ? 32 : model.num_heads;
  model.num_kv_heads = keys.size("num_key_value_heads", keys.has("num_key_value_heads") ? model.num_heads : kv_heads);
  const std::int64_t window = keys.has("sliding_window") ? 0 : 4096;
  model.head_dim = keys.size("head_dim", 0);
  keys.size("max_position_embeddings", 2048);  // for others
  model.norm_eps = keys.number("rms_norm_eps", 1e-6);
  model.tie_embeddings = keys.flag("tie_word_embeddings", false);
  read_rope(keys, model);
  if (type == "llama") {
    model.qkv_bias = model.o_bias = keys.flag("attention_bias", false);
    model.mlp_bias = keys.flag("mlp_bias", false);
  } else if (type == "qwen2") {
    model.qkv_bias = true;
    if (keys.flag("use_sliding_window", false)) {
      model.window = keys.size("sliding_window", window);
      model.full_layers = keys.size("max_window_layers", 28, 0);
    }
  } else {
    model.window = keys.size("sliding_window", window);
  }
  read_layer_types(keys, model, type == "qwen2");
  model.full_layers = model.window > 0 ? std::min(model.full_layers, model.num_layers) : 0;
  keys.only("hidden_act", "silu", R"(must be "silu")");
  return model;
}

nn::Gpt2Config read_gpt2(const Keys& keys) {
  nn::Gpt2Config model;
  model.vocab_size = keys.size("vocab_size");
  model.max_positions = keys.size("n_positions");
  model.hidden_size = keys.size("n_embd");
  model.num_layers = keys.size("n_layer");
  model.num_heads = keys.size("n_head");
  model.intermediate_size = keys.size("n_inner", 4 * model.hidden_size);
  model.norm_eps = keys.number("layer_norm_epsilon", 1e-5);
  model.tie_embeddings = keys.flag("tie_word_embeddings", true);
  const std::string activation = keys.text("activation_function", "gelu_new");
  if (activation == "gelu_new" || activation == "gelu_pytorch_tanh") {
    model.activation = UnaryFn::gelu_tanh;
  } else if (activation == "gelu") {
    model.activation = UnaryFn::gelu;
  } else {
    keys.refuse("activation_function", R"(must be "gelu_new", "gelu_pytorch_tanh" or "gelu")");
  }
  keys.only("scale_attn_weights", true, "must be true");
  keys.only("scale_attn_by_inverse_layer_idx", false, "must be false");
  return model;
}

struct Family {
  const char *type, *architecture;
};
constexpr Family kFamilies[] = {
    {"llama", "LlamaForCausalLM"}, {"mistral", "MistralForCausalLM"}, {"qwen2", "Qwen2ForCausalLM"}, {"gpt2", "GPT2LMHeadModel"}};

const Family& family_of(const Keys& keys) {
  const std::string type = keys.text("model_type", "");
  for (const Family& family : kFamilies) {
    if (type != family.type) continue;
    keys.only("architectures", Json::array({family.architecture}), std::string("must be [\"") + family.architecture + "\"]");
    return family;
  }
  keys.refuse("model_type", R"(must be "llama", "mistral", "qwen2" or "gpt2")");
}

void refuse_what_changes_the_model(const Keys& keys) {
  for (const char* key : {"quantization_config", "attn_logit_softcapping", "final_logit_softcapping"})
    if (keys.find(key) != nullptr) keys.refuse(key, "is not supported");
  for (const char* key : {"is_encoder_decoder", "add_cross_attention"}) keys.only(key, false, "must be false");
}

// ---- the other way

Json common(const Family& family) { return {{"architectures", {family.architecture}}, {"model_type", family.type}}; }

Json rope_scaling(const RopeScaling& s) {
  switch (s.kind) {
    case RopeScaling::Kind::none: return nullptr;
    case RopeScaling::Kind::linear: return {{"rope_type", "linear"}, {"factor", s.factor}};
    case RopeScaling::Kind::llama3:
      return {{"rope_type", "llama3"},
              {"factor", s.factor},
              {"low_freq_factor", s.low_freq_factor},
              {"high_freq_factor", s.high_freq_factor},
              {"original_max_position_embeddings", s.original_context}};
  }
  GRAFT_ASSERT(!"a scaling");
}

}  // namespace

Config Config::parse(std::string_view json, const std::string& what) {
  const Json parsed = detail::parse_json(json, what);
  if (!parsed.is_object()) throw Error(what + ": must be an object, got " + shown(parsed));
  const Keys keys(parsed, what);
  const std::string type = family_of(keys).type;
  refuse_what_changes_the_model(keys);
  return {type == "gpt2" ? Model(read_gpt2(keys)) : Model(read_llama(keys, type)), parsed.dump(2)};
}

Decoder Config::decoder() const {
  return std::visit([](const auto& model) { return Decoder(model); }, model_);
}

Config Config::of(const nn::LlamaConfig& c, std::int64_t max_positions) {
  const bool qwen2 = c.qkv_bias && !c.o_bias, mistral = !qwen2 && c.window > 0;
  const auto refuse = [](const std::string& what) { throw Error("LlamaConfig: no model of transformers has " + what); };
  if (c.o_bias && !c.qkv_bias) refuse("o_bias without qkv_bias");
  if (c.mlp_bias && (qwen2 || mistral)) refuse("mlp_bias and " + std::string(qwen2 ? "biases of q, k and v alone" : "a window"));
  if (mistral && (c.qkv_bias || c.full_layers > 0))
    refuse("a window and " + std::string(c.qkv_bias ? "biases" : "full_layers without biases"));
  Json json = common(kFamilies[qwen2 ? 2 : mistral ? 1 : 0]);
  json["vocab_size"] = c.vocab_size;
  json["hidden_size"] = c.hidden_size;
  json["intermediate_size"] = c.intermediate_size;
  json["num_hidden_layers"] = c.num_layers;
  json["num_attention_heads"] = c.num_heads;
  json["num_key_value_heads"] = c.num_kv_heads;
  json["head_dim"] = c.head_dim > 0 ? c.head_dim : c.hidden_size / std::max<std::int64_t>(c.num_heads, 1);
  json["hidden_act"] = "silu";
  json["max_position_embeddings"] = max_positions;
  json["rms_norm_eps"] = c.norm_eps;
  json["rope_theta"] = c.rope_theta;
  json["rope_scaling"] = rope_scaling(c.rope_scaling);
  json["tie_word_embeddings"] = c.tie_embeddings;
  if (qwen2) {
    json["use_sliding_window"] = c.window > 0;
    json["sliding_window"] = c.window > 0 ? Json(c.window) : Json();
    json["max_window_layers"] = c.full_layers;
  } else if (mistral) {
    json["sliding_window"] = c.window;
  } else {
    json["attention_bias"] = c.qkv_bias;
    json["mlp_bias"] = c.mlp_bias;
  }
  for (const char* key : {"bos_token_id", "eos_token_id"}) json[key] = nullptr;
  return parse(json.dump(), "LlamaConfig");
}

Config Config::of(const nn::Gpt2Config& c) {
  Json json = common(kFamilies[3]);
  json["vocab_size"] = c.vocab_size;
  json["n_positions"] = c.max_positions;
  json["n_embd"] = c.hidden_size;
  json["n_layer"] = c.num_layers;
  json["n_head"] = c.num_heads;
  json["n_inner"] = c.intermediate_size > 0 ? Json(c.intermediate_size) : Json();
  json["layer_norm_epsilon"] = c.norm_eps;
  if (c.activation != UnaryFn::gelu_tanh && c.activation != UnaryFn::gelu)
    throw Error("Gpt2Config.activation: must be gelu_tanh or gelu for transformers");
  json["activation_function"] = c.activation == UnaryFn::gelu ? "gelu" : "gelu_new";
  json["tie_word_embeddings"] = c.tie_embeddings;
  for (const char* key : {"embd_pdrop", "resid_pdrop", "attn_pdrop"}) json[key] = 0.0;
  for (const char* key : {"bos_token_id", "eos_token_id"}) json[key] = nullptr;
  return parse(json.dump(), "Gpt2Config");
}

}  // namespace graft::hf
