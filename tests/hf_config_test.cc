// config.json: what is read from it, what is refused and with which words, what is written.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "graft/hf.h"
#include "src/hf/json.h"
#include "tests/message.h"

namespace graft::hf {
namespace {

using detail::Json;
using graft::testing::message_of;

Json llama() {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"model_type", "llama"},
          {"vocab_size", 96},
          {"hidden_size", 32},
          {"intermediate_size", 48},
          {"num_hidden_layers", 3},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2}};
}
Json of_type(const std::string& type, const std::string& architecture) {
  Json json = llama();
  json["model_type"] = type;
  json["architectures"] = {architecture};
  return json;
}
Json mistral() { return of_type("mistral", "MistralForCausalLM"); }
Json qwen2() { return of_type("qwen2", "Qwen2ForCausalLM"); }
Json gpt2() {
  return {{"architectures", {"GPT2LMHeadModel"}},
          {"model_type", "gpt2"},
          {"vocab_size", 50},
          {"n_positions", 20},
          {"n_embd", 16},
          {"n_layer", 2},
          {"n_head", 4}};
}

Json with(Json json, const std::function<void(Json&)>& change) {
  change(json);
  return json;
}
nn::LlamaConfig read(const Json& json) { return std::get<nn::LlamaConfig>(Config::parse(json.dump()).model()); }
nn::LlamaConfig read(const Json& json, const std::function<void(Json&)>& change) { return read(with(json, change)); }
nn::Gpt2Config read_gpt2(const std::function<void(Json&)>& change) {
  return std::get<nn::Gpt2Config>(Config::parse(with(gpt2(), change).dump()).model());
}
std::string refused(const Json& json, const std::function<void(Json&)>& change) {
  return message_of([&] { Config::parse(with(json, change).dump(), "c"); });
}

// ---- Llama, Mistral, Qwen2

TEST(HfConfig, LlamaSizesAndDefaults) {
  const nn::LlamaConfig c = read(llama());
  EXPECT_EQ(c.vocab_size, 96);
  EXPECT_EQ(c.hidden_size, 32);
  EXPECT_EQ(c.intermediate_size, 48);
  EXPECT_EQ(c.num_layers, 3);
  EXPECT_EQ(c.num_heads, 4);
  EXPECT_EQ(c.num_kv_heads, 2);
  EXPECT_EQ(c.head_dim, 0);
  EXPECT_EQ(c.rope_theta, 10000.0);
  EXPECT_EQ(c.rope_scaling, RopeScaling{});
  EXPECT_EQ(c.norm_eps, 1e-6);
  EXPECT_FALSE(c.tie_embeddings || c.qkv_bias || c.o_bias || c.mlp_bias);
  EXPECT_EQ(c.window, 0);
  EXPECT_EQ(c.dropout, 0.0);
  EXPECT_EQ(read(llama(), [](Json& j) { j.erase("num_key_value_heads"); }).num_kv_heads, 4);
  EXPECT_EQ(read(llama(), [](Json& j) { j["num_key_value_heads"] = nullptr; }).num_kv_heads, 4);
}

TEST(HfConfig, LlamaOptions) {
  const nn::LlamaConfig c = read(llama(), [](Json& j) {
    j["head_dim"] = 16;
    j["rms_norm_eps"] = 1e-5;
    j["tie_word_embeddings"] = true;
    j["attention_bias"] = true;
    j["hidden_act"] = "silu";
    j["attention_dropout"] = 0.3;
  });
  EXPECT_EQ(c.head_dim, 16);
  EXPECT_EQ(c.norm_eps, 1e-5);
  EXPECT_TRUE(c.tie_embeddings && c.qkv_bias && c.o_bias);
  EXPECT_FALSE(c.mlp_bias);
  EXPECT_TRUE(read(llama(), [](Json& j) { j["mlp_bias"] = true; }).mlp_bias);
  EXPECT_EQ(read(llama(), [](Json& j) { j["sliding_window"] = 4; }).window, 0);  // not a key of Llama's
}

TEST(HfConfig, RotationsOldAndNew) {
  const Json scaling = {{"rope_type", "llama3"},
                        {"factor", 8.0},
                        {"low_freq_factor", 1.5},
                        {"high_freq_factor", 4.5},
                        {"original_max_position_embeddings", 64}};
  const RopeScaling want = {RopeScaling::Kind::llama3, 8.0, 1.5, 4.5, 64};
  nn::LlamaConfig c = read(llama(), [&](Json& j) { j["rope_theta"] = 500000.0, j["rope_scaling"] = scaling; });
  EXPECT_EQ(c.rope_theta, 500000.0);
  EXPECT_EQ(c.rope_scaling, want);
  c = read(llama(), [&](Json& j) { j["rope_parameters"] = scaling, j["rope_parameters"]["rope_theta"] = 777; });
  EXPECT_EQ(c.rope_theta, 777.0);
  EXPECT_EQ(c.rope_scaling, want);
  c = read(llama(), [&](Json& j) {
    j["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 5.0}}, j["rope_theta"] = 6.0;
  });
  EXPECT_EQ(c.rope_theta, 5.0);
  EXPECT_EQ(c.rope_scaling, RopeScaling{});
  c = read(llama(), [&](Json& j) {
    j["rope_parameters"] = {{"rope_type", "default"}}, j["rope_scaling"] = {{"type", "linear"}, {"factor", 2}};
  });
  EXPECT_EQ(c.rope_scaling, (RopeScaling{RopeScaling::Kind::linear, 2.0}));
  EXPECT_EQ(read(llama(),
                 [](Json& j) {
                   j["rope_scaling"] = nullptr, j["rope_parameters"] = {{"type", "linear"}, {"factor", 2.5}};
                 })
                .rope_scaling.factor,
            2.5);
  EXPECT_EQ(read(llama(), [](Json& j) { j["partial_rotary_factor"] = 1.0; }).rope_theta, 10000.0);
  // where the length of the first training is told
  c = read(llama(), [&](Json& j) { j["rope_scaling"] = scaling, j["original_max_position_embeddings"] = 32; });
  EXPECT_EQ(c.rope_scaling.original_context, 32);
  c = read(llama(), [&](Json& j) {
    j["rope_scaling"] = scaling, j["rope_scaling"].erase("original_max_position_embeddings"), j["max_position_embeddings"] = 128;
  });
  EXPECT_EQ(c.rope_scaling.original_context, 128);
}

TEST(HfConfig, RotationsThatAreRefused) {
  const auto rope = [](const Json& value, const char* key = "rope_scaling") {
    return refused(llama(), [&](Json& j) { j[key] = value; });
  };
  EXPECT_EQ(rope({{"rope_type", "yarn"}, {"factor", 2}}),
            R"(c: key "rope_scaling.rope_type" is "yarn", must be "default", "linear" or "llama3")");
  EXPECT_EQ(rope({{"type", "dynamic"}, {"factor", 2}}),
            R"(c: key "rope_scaling.type" is "dynamic", must be "default", "linear" or "llama3")");
  EXPECT_EQ(rope({{"rope_type", "longrope"}}, "rope_parameters"),
            R"(c: key "rope_parameters.rope_type" is "longrope", must be "default", "linear" or "llama3")");
  EXPECT_EQ(rope(7), R"(c: key "rope_scaling" is 7, must be an object)");
  EXPECT_EQ(rope({{"rope_type", 7}}), R"(c: key "rope_scaling.rope_type" is 7, must be text)");
  EXPECT_EQ(rope({{"rope_type", "linear"}}), R"(c: key "rope_scaling.factor" is missing, must be a number above 0)");
  EXPECT_EQ(rope({{"rope_type", "linear"}, {"factor", 0}}), R"(c: key "rope_scaling.factor" is 0, must be a number above 0)");
  EXPECT_EQ(rope({{"rope_type", "default"}, {"rope_theta", -1.0}}),
            R"(c: key "rope_scaling.rope_theta" is -1.0, must be a number above 0)");
  EXPECT_EQ(rope({{"rope_type", "default"}, {"partial_rotary_factor", 0.5}}),
            R"(c: key "rope_scaling.partial_rotary_factor" is 0.5, only whole heads are rotated)");
  EXPECT_EQ(rope(0.5, "partial_rotary_factor"), R"(c: key "partial_rotary_factor" is 0.5, only whole heads are rotated)");
  EXPECT_EQ(rope("x", "rope_theta"), R"(c: key "rope_theta" is "x", must be a number above 0)");
  EXPECT_EQ(
      rope({{"full_attention", {{"rope_type", "default"}}}}, "rope_parameters"),
      R"(c: key "rope_parameters.full_attention" is {"rope_type":"default"}, rotations that differ from layer to layer are not supported)");
  Json llama3 = {{"rope_type", "llama3"},
                 {"factor", 8.0},
                 {"low_freq_factor", 1.0},
                 {"high_freq_factor", 1.0},
                 {"original_max_position_embeddings", 64}};
  EXPECT_EQ(rope(llama3), R"(c: key "rope_scaling.high_freq_factor" is 1.0, must be above low_freq_factor)");
  llama3["high_freq_factor"] = 4.0;
  EXPECT_EQ(rope(llama3), "no error");
  llama3.erase("low_freq_factor");
  EXPECT_EQ(rope(llama3), R"(c: key "rope_scaling.low_freq_factor" is missing, must be a number above 0)");
  llama3["low_freq_factor"] = 1.0;
  llama3["original_max_position_embeddings"] = 0;
  EXPECT_EQ(rope(llama3),
            R"(c: key "rope_scaling.original_max_position_embeddings" is 0, must be a whole number from 1 to 16777216)");
  llama3.erase("original_max_position_embeddings");
  EXPECT_EQ(rope(llama3), R"(c: key "max_position_embeddings" is missing, must be a whole number from 1 to 16777216)");
  llama3["original_max_position_embeddings"] = 64;
  llama3.erase("factor");
  EXPECT_EQ(rope(llama3), R"(c: key "rope_scaling.factor" is missing, must be a number above 0)");
}

TEST(HfConfig, WindowsOfMistral) {
  EXPECT_EQ(read(mistral()).window, 4096);  // transformers' default
  EXPECT_EQ(read(mistral(), [](Json& j) { j["sliding_window"] = nullptr; }).window, 0);
  const nn::LlamaConfig c = read(mistral(), [](Json& j) { j["sliding_window"] = 7; });
  EXPECT_EQ(c.window, 7);
  EXPECT_EQ(c.full_layers, 0);
  EXPECT_FALSE(c.qkv_bias || c.o_bias || c.mlp_bias);
  EXPECT_EQ(read(mistral(), [](Json& j) { j["attention_bias"] = true; }).qkv_bias, false);  // not a key of Mistral's
  EXPECT_EQ(read(mistral(), [](Json& j) { j.erase("num_key_value_heads"), j["num_attention_heads"] = 16; }).num_kv_heads,
            8);  // transformers' default
  EXPECT_EQ(refused(mistral(), [](Json& j) { j["sliding_window"] = 0; }),
            R"(c: key "sliding_window" is 0, must be a whole number from 1 to 16777216)");
}

TEST(HfConfig, WindowsOfQwen2) {
  nn::LlamaConfig c = read(qwen2(), [](Json& j) { j["sliding_window"] = 5, j["max_window_layers"] = 1; });
  EXPECT_TRUE(c.qkv_bias);
  EXPECT_FALSE(c.o_bias || c.mlp_bias);
  EXPECT_EQ(c.window, 0);  // use_sliding_window is false unless given
  EXPECT_EQ(c.full_layers, 0);
  c = read(qwen2(), [](Json& j) { j["use_sliding_window"] = true, j["sliding_window"] = 5, j["max_window_layers"] = 1; });
  EXPECT_EQ(c.window, 5);
  EXPECT_EQ(c.full_layers, 1);
  c = read(qwen2(), [](Json& j) { j["use_sliding_window"] = true; });
  EXPECT_EQ(c.window, 4096);
  EXPECT_EQ(c.full_layers, 3);  // 28, of 3
  c = read(qwen2(), [](Json& j) { j["use_sliding_window"] = true, j["sliding_window"] = nullptr, j["max_window_layers"] = 1; });
  EXPECT_EQ(c.window, 0);
  const Json types = {"full_attention", "full_attention", "sliding_attention"};
  c = read(qwen2(), [&](Json& j) {
    j["use_sliding_window"] = true, j["sliding_window"] = 5, j["layer_types"] = types, j["max_window_layers"] = 1;
  });
  EXPECT_EQ(c.full_layers, 2);  // layer_types decides
  EXPECT_EQ(read(qwen2(), [](Json& j) { j.erase("num_key_value_heads"), j["num_attention_heads"] = 64; }).num_kv_heads,
            32);  // transformers' default
}

TEST(HfConfig, LayerTypesThatDoNotFitAreRefused) {
  const auto types = [](const Json& json, const Json& value, bool window = true) {
    return refused(json, [&](Json& j) {
      j["layer_types"] = value;
      if (window) j["use_sliding_window"] = true, j["sliding_window"] = 5;
    });
  };
  const Json full = {"full_attention", "full_attention", "full_attention"},
             sliding = {"sliding_attention", "sliding_attention", "sliding_attention"};
  EXPECT_EQ(types(llama(), full), "no error");
  EXPECT_EQ(types(qwen2(), full, false), "no error");
  EXPECT_EQ(types(mistral(), sliding), "no error");
  EXPECT_EQ(types(qwen2(), sliding), "no error");
  EXPECT_EQ(
      types(qwen2(), sliding, false),
      R"(c: key "layer_types" is ["sliding_attention","sliding_attention","sliding_attention"], but there is no sliding_window)");
  EXPECT_EQ(
      types(mistral(), full),
      R"(c: key "layer_types" is ["full_attention","full_attention","full_attention"], layers that differ are not supported in this type of model)");
  EXPECT_EQ(
      types(qwen2(), {"full_attention", "sliding_attention", "full_attention"}),
      R"(c: key "layer_types" is ["full_attention","sliding_attention","full_attention"], layers of full attention after ones with a window are not supported)");
  EXPECT_EQ(types(qwen2(), {"full_attention", "full_attention"}),
            R"(c: key "layer_types" is ["full_attention","full_attention"], must name the type of each of the layers)");
  EXPECT_EQ(types(qwen2(), 3), R"(c: key "layer_types" is 3, must name the type of each of the layers)");
  EXPECT_EQ(
      types(qwen2(), {"full_attention", "chunked_attention", 3}),
      R"(c: key "layer_types" is ["full_attention","chunked_attention",3], must be of "full_attention" and "sliding_attention")");
}

TEST(HfConfig, WhatGraftCannotComputeIsRefused) {
  const auto key = [](const char* name, const Json& value, const Json& json = llama()) {
    return refused(json, [&](Json& j) { j[name] = value; });
  };
  EXPECT_EQ(key("hidden_act", "gelu"), R"(c: key "hidden_act" is "gelu", must be "silu")");
  EXPECT_EQ(key("max_position_embeddings", "2k"),
            R"(c: key "max_position_embeddings" is "2k", must be a whole number from 1 to 16777216)");
  EXPECT_EQ(key("max_position_embeddings", nullptr), "no error");
  EXPECT_EQ(key("quantization_config", {{"quant_method", "gptq"}}),
            R"(c: key "quantization_config" is {"quant_method":"gptq"}, is not supported)");
  EXPECT_EQ(key("attn_logit_softcapping", 50.0), R"(c: key "attn_logit_softcapping" is 50.0, is not supported)");
  EXPECT_EQ(key("final_logit_softcapping", 30.0), R"(c: key "final_logit_softcapping" is 30.0, is not supported)");
  EXPECT_EQ(key("final_logit_softcapping", nullptr), "no error");
  EXPECT_EQ(key("is_encoder_decoder", true), R"(c: key "is_encoder_decoder" is true, must be false)");
  EXPECT_EQ(key("add_cross_attention", true, gpt2()), R"(c: key "add_cross_attention" is true, must be false)");
  EXPECT_EQ(key("model_type", "gemma2"), R"(c: key "model_type" is "gemma2", must be "llama", "mistral", "qwen2" or "gpt2")");
  EXPECT_EQ(refused(llama(), [](Json& j) { j.erase("model_type"); }),
            R"(c: key "model_type" is missing, must be "llama", "mistral", "qwen2" or "gpt2")");
  EXPECT_EQ(key("architectures", {"LlamaForSequenceClassification"}),
            R"(c: key "architectures" is ["LlamaForSequenceClassification"], must be ["LlamaForCausalLM"])");
  EXPECT_EQ(key("architectures", nullptr), "no error");
  EXPECT_EQ(key("architectures", {"GPT2Model"}, gpt2()), R"(c: key "architectures" is ["GPT2Model"], must be ["GPT2LMHeadModel"])");
}

TEST(HfConfig, ValuesOfTheWrongKindAreRefused) {
  const auto key = [](const char* name, const Json& value) { return refused(llama(), [&](Json& j) { j[name] = value; }); };
  for (const char* name : {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"}) {
    const std::string begin = "c: key \"" + std::string(name) + "\" is ", end = ", must be a whole number from 1 to 16777216";
    EXPECT_EQ(refused(llama(), [&](Json& j) { j.erase(name); }), begin + "missing" + end);
    EXPECT_EQ(key(name, 0), begin + "0" + end);
    EXPECT_EQ(key(name, -3), begin + "-3" + end);
    EXPECT_EQ(key(name, 2.0), begin + "2.0" + end);
    EXPECT_EQ(key(name, "2"), begin + "\"2\"" + end);
    EXPECT_EQ(key(name, 16777217), begin + "16777217" + end);
    EXPECT_EQ(key(name, ~std::uint64_t{0}), begin + "18446744073709551615" + end);
    EXPECT_EQ(key(name, 16777216), "no error");
  }
  EXPECT_EQ(key("rms_norm_eps", true), R"(c: key "rms_norm_eps" is true, must be a number above 0)");
  EXPECT_EQ(key("tie_word_embeddings", 1), R"(c: key "tie_word_embeddings" is 1, must be true or false)");
  EXPECT_EQ(key("model_type", 1), R"(c: key "model_type" is 1, must be text)");
  EXPECT_EQ(key("quantization_config", std::string(200, 'x')),
            "c: key \"quantization_config\" is \"" + std::string(76, 'x') + "..., is not supported");
}

TEST(HfConfig, WhatIsNoObjectIsRefused) {
  EXPECT_EQ(message_of([] { Config::parse("[1]"); }), "config.json: must be an object, got [1]");
  EXPECT_EQ(message_of([] { Config::parse("{\"a\": 1,}"); }), "config.json: is not valid JSON, at byte 9");
  EXPECT_EQ(message_of([] { Config::parse("{\"a\": NaN}"); }), "config.json: is not valid JSON, at byte 7");
  EXPECT_EQ(message_of([] { Config::parse("{\"a\": 1e999}"); }).substr(0, 31), "config.json: is not valid JSON:");
  EXPECT_EQ(message_of([] { Config::parse("{\"a\": 1, \"a\": 2}"); }), "config.json: key \"a\" is there twice");
  std::string many = "{\"k\":0";
  for (int i = 1; i < 2'000; ++i) many += ",\"k" + std::to_string(i) + "\":0";
  EXPECT_EQ(message_of([&] { Config::parse(many + "}"); }),
            R"(config.json: key "model_type" is missing, must be "llama", "mistral", "qwen2" or "gpt2")");
  EXPECT_EQ(message_of([&] { Config::parse(many + ",\"one more\":0}"); }), "config.json: an object has more than 2000 keys");
}

// ---- GPT-2

TEST(HfConfig, Gpt2SizesDefaultsAndOptions) {
  nn::Gpt2Config c = read_gpt2([](Json&) {});
  EXPECT_EQ(c.vocab_size, 50);
  EXPECT_EQ(c.max_positions, 20);
  EXPECT_EQ(c.hidden_size, 16);
  EXPECT_EQ(c.num_layers, 2);
  EXPECT_EQ(c.num_heads, 4);
  EXPECT_EQ(c.intermediate_size, 64);
  EXPECT_EQ(c.norm_eps, 1e-5);
  EXPECT_EQ(c.activation, UnaryFn::gelu_tanh);
  EXPECT_TRUE(c.tie_embeddings);
  EXPECT_EQ(c.dropout, 0.0);
  c = read_gpt2([](Json& j) {
    j["n_inner"] = 24, j["layer_norm_epsilon"] = 1e-3, j["activation_function"] = "gelu", j["tie_word_embeddings"] = false,
    j["attn_pdrop"] = 0.1;
    j["scale_attn_weights"] = true, j["scale_attn_by_inverse_layer_idx"] = false, j["reorder_and_upcast_attn"] = true;
  });
  EXPECT_EQ(c.intermediate_size, 24);
  EXPECT_EQ(c.norm_eps, 1e-3);
  EXPECT_EQ(c.activation, UnaryFn::gelu);
  EXPECT_FALSE(c.tie_embeddings);
  EXPECT_EQ(read_gpt2([](Json& j) { j["activation_function"] = "gelu_pytorch_tanh", j["n_inner"] = nullptr; }).activation,
            UnaryFn::gelu_tanh);
  for (const char* name : {"vocab_size", "n_positions", "n_embd", "n_layer", "n_head"})
    EXPECT_EQ(refused(gpt2(), [&](Json& j) { j.erase(name); }),
              "c: key \"" + std::string(name) + "\" is missing, must be a whole number from 1 to 16777216");
  EXPECT_EQ(refused(gpt2(), [](Json& j) { j["activation_function"] = "relu"; }),
            R"(c: key "activation_function" is "relu", must be "gelu_new", "gelu_pytorch_tanh" or "gelu")");
  EXPECT_EQ(refused(gpt2(), [](Json& j) { j["scale_attn_weights"] = false; }),
            R"(c: key "scale_attn_weights" is false, must be true)");
  EXPECT_EQ(refused(gpt2(), [](Json& j) { j["scale_attn_by_inverse_layer_idx"] = true; }),
            R"(c: key "scale_attn_by_inverse_layer_idx" is true, must be false)");
}

// ---- written

TEST(HfConfig, KeepsEveryKeyInItsPlace) {
  const std::string text = with(llama(), [](Json& j) {
                             j["zeta"] = {1, 2.5, nullptr}, j["alpha"] = {{"b", 1}, {"a", "ü"}}, j["eos_token_id"] = {1, 2};
                           }).dump();
  EXPECT_EQ(Json::parse(Config::parse(text).json()).dump(), text);
}

void expect_same(const nn::LlamaConfig& a, const nn::LlamaConfig& b) {
  EXPECT_EQ(a.vocab_size, b.vocab_size);
  EXPECT_EQ(a.hidden_size, b.hidden_size);
  EXPECT_EQ(a.intermediate_size, b.intermediate_size);
  EXPECT_EQ(a.num_layers, b.num_layers);
  EXPECT_EQ(a.num_heads, b.num_heads);
  EXPECT_EQ(a.num_kv_heads, b.num_kv_heads);
  EXPECT_EQ(a.head_dim, b.head_dim > 0 ? b.head_dim : b.hidden_size / b.num_heads);
  EXPECT_EQ(a.rope_theta, b.rope_theta);
  EXPECT_EQ(a.rope_scaling, b.rope_scaling);
  EXPECT_EQ(a.qkv_bias, b.qkv_bias);
  EXPECT_EQ(a.o_bias, b.o_bias);
  EXPECT_EQ(a.mlp_bias, b.mlp_bias);
  EXPECT_EQ(a.window, b.window);
  EXPECT_EQ(a.full_layers, b.full_layers);
  EXPECT_EQ(a.norm_eps, b.norm_eps);
  EXPECT_EQ(a.tie_embeddings, b.tie_embeddings);
}

TEST(HfConfig, ModelsMadeHereComeBack) {
  const nn::LlamaConfig plain = {.vocab_size = 50,
                                 .hidden_size = 24,
                                 .intermediate_size = 20,
                                 .num_layers = 3,
                                 .num_heads = 6,
                                 .num_kv_heads = 2,
                                 .rope_theta = 321.0,
                                 .norm_eps = 1e-4};
  std::vector<std::pair<nn::LlamaConfig, std::string>> all = {{plain, "LlamaForCausalLM"}};
  const auto add = [&](const char* architecture, const std::function<void(nn::LlamaConfig&)>& change) {
    all.emplace_back(plain, architecture);
    change(all.back().first);
  };
  add("LlamaForCausalLM", [](auto& c) {
    c.rope_scaling = {RopeScaling::Kind::llama3, 8.0, 1.5, 5.0, 99}, c.tie_embeddings = false, c.head_dim = 10;
  });
  add("LlamaForCausalLM", [](auto& c) { c.rope_scaling = {RopeScaling::Kind::linear, 3.5}, c.qkv_bias = c.o_bias = true; });
  add("LlamaForCausalLM", [](auto& c) { c.mlp_bias = true; });
  add("MistralForCausalLM", [](auto& c) { c.window = 9; });
  add("Qwen2ForCausalLM", [](auto& c) { c.qkv_bias = true; });
  add("Qwen2ForCausalLM", [](auto& c) { c.qkv_bias = true, c.window = 9, c.full_layers = 2; });
  add("Qwen2ForCausalLM", [](auto& c) { c.qkv_bias = true, c.window = 9; });
  for (const auto& [config, architecture] : all) {
    const Config written = Config::of(config, 77);
    expect_same(std::get<nn::LlamaConfig>(written.model()), config);
    const Json json = Json::parse(written.json());
    EXPECT_EQ(json["architectures"], Json::array({architecture}));
    EXPECT_EQ(json["max_position_embeddings"], 77);
  }
  const nn::Gpt2Config gpt2 = {.vocab_size = 50,
                               .max_positions = 30,
                               .hidden_size = 24,
                               .intermediate_size = 20,
                               .num_layers = 3,
                               .num_heads = 6,
                               .norm_eps = 1e-4,
                               .activation = UnaryFn::gelu,
                               .tie_embeddings = false};
  const auto same = std::get<nn::Gpt2Config>(Config::of(gpt2).model());
  EXPECT_EQ(same.vocab_size, 50);
  EXPECT_EQ(same.max_positions, 30);
  EXPECT_EQ(same.hidden_size, 24);
  EXPECT_EQ(same.intermediate_size, 20);
  EXPECT_EQ(same.num_layers, 3);
  EXPECT_EQ(same.num_heads, 6);
  EXPECT_EQ(same.norm_eps, 1e-4);
  EXPECT_EQ(same.activation, UnaryFn::gelu);
  EXPECT_FALSE(same.tie_embeddings);
  EXPECT_EQ(Json::parse(Config::of(gpt2).json())["resid_pdrop"], 0.0);
}

TEST(HfConfig, ModelsThatTransformersHasNotAreRefused) {
  const auto of = [](const std::function<void(nn::LlamaConfig&)>& change) {
    return message_of([&] {
      nn::LlamaConfig config = {.vocab_size = 50, .hidden_size = 24, .num_layers = 3};
      change(config);
      Config::of(config, 10);
    });
  };
  EXPECT_EQ(of([](auto&) {}), "no error");
  EXPECT_EQ(of([](auto& c) { c.o_bias = true; }), "LlamaConfig: no model of transformers has o_bias without qkv_bias");
  EXPECT_EQ(of([](auto& c) { c.qkv_bias = c.mlp_bias = true; }),
            "LlamaConfig: no model of transformers has mlp_bias and biases of q, k and v alone");
  EXPECT_EQ(of([](auto& c) { c.window = 4, c.mlp_bias = true; }),
            "LlamaConfig: no model of transformers has mlp_bias and a window");
  EXPECT_EQ(of([](auto& c) { c.window = 4, c.qkv_bias = c.o_bias = true; }),
            "LlamaConfig: no model of transformers has a window and biases");
  EXPECT_EQ(of([](auto& c) { c.window = 4, c.full_layers = 1; }),
            "LlamaConfig: no model of transformers has a window and full_layers without biases");
  EXPECT_EQ(of([](auto& c) { c.num_heads = 0; }),
            R"(LlamaConfig: key "num_attention_heads" is 0, must be a whole number from 1 to 16777216)");
  EXPECT_EQ(message_of([] { Config::of(nn::Gpt2Config{.vocab_size = 5, .activation = UnaryFn::relu}); }),
            "Gpt2Config.activation: must be gelu_tanh or gelu for transformers");
}

}  // namespace
}  // namespace graft::hf
