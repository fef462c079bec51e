// Hugging Face folders, read, trained and written: held against what transformers computes (tests/golden/hf/make_golden.py).
#include "graft/hf.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>

#include "graft/autodiff.h"
#include "graft/backend.h"
#include "graft/optim.h"
#include "src/hf/json.h"
#include "src/hf/parameters.h"
#include "tests/hf_folders.h"
#include "tests/message.h"

namespace graft::hf {
namespace {

using graft::testing::message_of;

constexpr const char* kModels[] = {"llama2",      "llama3", "llama3_tied_biased_bf16", "qwen2", "qwen2_windowed",
                                   "mistral_f16", "gpt2",   "llama_linear_sharded"};

std::vector<std::uint32_t> ids_of(const StoredTensor& tensor) {
  const std::vector<double> values = values_of(tensor);
  return {values.begin(), values.end()};
}

double relative_error(const std::vector<double>& got, const std::vector<double>& want) {
  EXPECT_EQ(got.size(), want.size());
  double error = 0.0, norm = 0.0;
  for (std::size_t i = 0; i < std::min(got.size(), want.size()); ++i) {
    error += (got[i] - want[i]) * (got[i] - want[i]);
    norm += want[i] * want[i];
  }
  EXPECT_GT(norm, 0.0);
  return std::sqrt(error / norm);
}

// ---- against transformers

struct Where {
  const char* model;
  bool cpu;
};
void PrintTo(const Where& where, std::ostream* out) { *out << where.model; }
std::vector<Where> everywhere() {
  std::vector<Where> all;
  for (const char* model : kModels)
    for (const bool cpu : {false, true}) all.push_back({model, cpu});
  return all;
}

class GoldenHf : public ::testing::TestWithParam<Where> {};

TEST_P(GoldenHf, LogitsGradientsAndTenStepsAreThoseOfTransformers) {
  const Model model = load(golden(GetParam().model));
  const Safetensors expected(golden(GetParam().model) / "expected.safetensors");
  const StoredTensor& ids = expected.at("ids");
  const std::unique_ptr<Backend> backend = GetParam().cpu ? cpu_backend(2) : reference_backend();

  Graph g;
  const Network network = model.build(g);
  const Value logits = network.forward(g, g.input_u32("ids", {ids.elements()}), Segments::uniform(ids.shape[1]));
  const Value loss = g.cross_entropy(logits, g.input_u32("labels", {ids.elements()}));
  g.output("logits", logits);
  g.output("loss", loss);
  const Gradients gradients = differentiate(g, loss);
  optim::UpdateOptions options;
  options.schedule.base = 1e-2;
  options.groups.clear();
  for (const Value p : g.parameters()) {
    g.output("grad." + g.node(p).name, gradients.of(g, p));
    if (g.shape(p).rank() == 1) options.groups.push_back({g.node(p).name, 0.0});
  }
  optim::adamw(g, gradients, {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1}, options);

  Session session(g, *backend);
  model.restore(session);
  session.write("ids", ids_of(ids));
  session.write("labels", ids_of(expected.at("labels")));
  const std::vector<double> losses = values_of(expected.at("losses"));
  ASSERT_EQ(losses.size(), 10u);
  for (std::size_t step = 0; step < losses.size(); ++step) {
    session.step();
    EXPECT_LE(std::abs(session.scalar("loss") / losses[step] - 1.0), 1e-4) << "step " << step;
    if (step > 0) continue;
    EXPECT_LE(relative_error(session.read_f64("logits"), values_of(expected.at("logits"))), 2e-5);
    EXPECT_LE(std::abs(session.scalar("loss") / values_of(expected.at("loss"))[0] - 1.0), 2e-6);
    std::size_t compared = 0;
    for (const detail::Parameter& parameter : detail::parameters_of(model.config())) {
      const StoredTensor& want = expected.at("grad." + parameter.name);
      std::vector<double> got = session.read_f64("grad." + parameter.name);
      if (parameter.transposed) {
        plain::Matrix matrix(static_cast<std::size_t>(parameter.shape.rows()), static_cast<std::size_t>(parameter.shape.cols()),
                             got);
        got = plain::transposed(matrix).data;
      }
      EXPECT_EQ(want.shape, detail::stored_shape(parameter)) << parameter.name;
      EXPECT_LE(relative_error(got, values_of(want)), 1e-4) << parameter.name;
      ++compared;
    }
    EXPECT_EQ(compared + 5, expected.tensors().size());  // ids, labels, logits, loss, losses
  }
}

INSTANTIATE_TEST_SUITE_P(, GoldenHf, ::testing::ValuesIn(everywhere()),
                         [](const auto& info) { return std::string(info.param.model) + (info.param.cpu ? "_cpu" : "_reference"); });

// ---- out again

SaveAs stored_as(const Model& model) {
  const std::string& dtype = model.weights().tensors()[0].dtype;
  return dtype == "F32" ? SaveAs::f32 : dtype == "BF16" ? SaveAs::bf16 : SaveAs::f16;
}

void expect_same_tensors(const Safetensors& got, const Safetensors& want) {
  ASSERT_EQ(got.tensors().size(), want.tensors().size());
  for (std::size_t i = 0; i < want.tensors().size(); ++i) {
    const StoredTensor &a = got.tensors()[i], &b = want.tensors()[i];
    EXPECT_EQ(a.name, b.name);
    EXPECT_EQ(to_string(a), to_string(b)) << a.name;
    EXPECT_TRUE(std::equal(a.bytes.begin(), a.bytes.end(), b.bytes.begin(), b.bytes.end())) << a.name;
  }
}

class RoundTripHf : public ::testing::TestWithParam<const char*> {};

TEST_P(RoundTripHf, EveryBitAndEveryKeyComesBack) {
  const TemporaryFolder folder;
  const Model model = load(golden(GetParam()));
  const auto backend = reference_backend();
  Running running(model.config(), *backend, 8, 4);
  model.restore(*running.session);
  SaveOptions options;
  options.dtype = stored_as(model);
  if (model.weights().files().size() > 1) options.max_shard_bytes = 40'000;
  save(folder / "saved", *running.session, model.config(), options);
  const Model again = load(folder / "saved");
  expect_same_tensors(again.weights(), model.weights());
  EXPECT_EQ(again.weights().metadata().at("format"), "pt");

  detail::Json want = detail::parse_json(text_of(golden(GetParam()) / "config.json"), "x");
  want["torch_dtype"] = want["dtype"];
  EXPECT_EQ(detail::parse_json(text_of(folder / "saved/config.json"), "y"), want);

  save(folder / "again", *running.session, again.config(), options);
  for (const auto& entry : fs::directory_iterator(folder / "saved"))
    EXPECT_EQ(text_of(folder / "again" / entry.path().filename().string()), text_of(entry.path())) << entry.path();
}

INSTANTIATE_TEST_SUITE_P(, RoundTripHf, ::testing::ValuesIn(kModels), [](const auto& info) { return std::string(info.param); });

TEST(Hf, ASessionThatDoesNotFitIsToldEverything) {
  const TemporaryFolder folder;
  Tiny tiny_model;
  save(folder / "m", tiny_model.session(), tiny_model.config);
  const Model model = load(folder / "m");
  nn::LlamaConfig other = tiny();
  other.tie_embeddings = true;
  other.num_kv_heads = 2;
  other.num_layers = 1;
  other.o_bias = other.qkv_bias = true;
  Tiny wrong(Config::of(other, 32));
  const std::string both =
      "\"model.layers.0.self_attn.k_proj.weight\" is [8, 8] in the session, [8, 4] in the model; "
      "\"model.layers.0.self_attn.v_proj.weight\" is [8, 8] in the session, "
      "[8, 4] in the model; the session has no parameter \"model.layers.1.input_layernorm.weight\" [8]";
  const std::string restored = message_of([&] { model.restore(wrong.session()); });
  EXPECT_EQ(restored.substr(0, 36 + both.size()), "model: does not fit the session: " + both + "; t");
  EXPECT_NE(restored.find("; the session has no parameter \"lm_head.weight\" [8, 13]; the model has no parameter "
                          "\"model.layers.0.self_attn.q_proj.bias\" [8]"),
            std::string::npos)
      << restored;
  EXPECT_EQ(message_of([&] { save(folder / "n", wrong.session(), model.config()); }).substr(0, 52 + both.size()),
            "hf::save: the session does not fit the configuration: " + both.substr(0, both.size() - 2));
  EXPECT_FALSE(fs::exists(folder / "n"));
}

TEST(Hf, OtherParametersStayOnlyIfAskedFor) {
  const TemporaryFolder folder;
  Tiny tiny_model;
  save(folder / "m", tiny_model.session(), tiny_model.config);
  const Model model = load(folder / "m");
  Graph g;
  g.output("logits", model.build(g).forward(g, g.input_u32("ids", {2})));
  g.output("more", g.parameter("adapter", {2}, Init::ones()));
  Session session(g, *tiny_model.backend);
  EXPECT_EQ(message_of([&] { model.restore(session); }),
            "model: does not fit the session: the model has no parameter \"adapter\" [2]");
  EXPECT_NE(session.read_f64("lm_head.weight"), tiny_model.session().read_f64("lm_head.weight"));
  model.restore(session, true);
  EXPECT_EQ(session.read_f64("lm_head.weight"), tiny_model.session().read_f64("lm_head.weight"));
  EXPECT_EQ(session.read_f64("adapter"), (std::vector<double>{1, 1}));
  std::vector<float> few(3);
  EXPECT_EQ(message_of([&] { model.read("lm_head.weight", few); }),
            "model: parameter \"lm_head.weight\" is [8, 13], got room for 3");
  EXPECT_EQ(message_of([&] { model.read("lm_head.weigh", few); }),
            "model: no parameter \"lm_head.weigh\", did you mean \"lm_head.weight\"");
}

// ---- folders that do not fit

/// A folder whose tensors can be changed.
struct Changed {
  explicit Changed(const fs::path& from, fs::path to)
      : folder(std::move(to)), model(load(from)), tensors(model.weights().tensors()) {
    fs::create_directory(folder);
    write_text(folder / "config.json", text_of(from / "config.json"));
  }
  StoredTensor& at(const std::string& name) {
    return *std::find_if(tensors.begin(), tensors.end(), [&](const StoredTensor& t) { return t.name == name; });
  }
  void erase(const std::string& name) {
    std::erase_if(tensors, [&](const StoredTensor& t) { return t.name == name; });
  }
  /// What load says about the tensors.
  std::string loaded() {
    write_safetensors(folder / "model.safetensors", tensors);
    std::string message = message_of([&] { load(folder); });
    const std::string begin = "model \"" + folder.string() + "\": the weights do not fit config.json: ";
    return message.starts_with(begin) ? message.substr(begin.size()) : message;
  }
  fs::path folder;
  Model model;
  std::vector<StoredTensor> tensors;
};

TEST(HfLoad, TellsOfEveryTensorThatDoesNotFit) {
  const TemporaryFolder folder;
  Changed changed(golden("llama3"), folder / "m");
  EXPECT_EQ(changed.loaded(), "no error");
  changed.erase("lm_head.weight");
  changed.at("model.norm.weight").shape = {16, 2};
  changed.at("model.layers.0.self_attn.k_proj.weight").shape = {32, 16};
  changed.at("model.layers.1.input_layernorm.weight").dtype = "I32";
  changed.at("model.layers.1.mlp.up_proj.weight").name = "model.layers.1.mlp.up.weight";
  EXPECT_EQ(changed.loaded(),
            "\"model.layers.0.self_attn.k_proj.weight\" is F32[32, 16], must be [16, 32]; "
            "\"model.layers.1.input_layernorm.weight\" is I32[32], must be F32, BF16, F16 or F64; "
            "missing \"model.layers.1.mlp.up_proj.weight\" [48, 32]; \"model.norm.weight\" is F32[16, 2], must be [32]; missing "
            "\"lm_head.weight\" [96, 32]; "
            "unexpected \"model.layers.1.mlp.up.weight\" F32[48, 32]");
}

TEST(HfLoad, PassesOverBuffersAndTiedCopies) {
  const TemporaryFolder folder;
  const std::vector<std::byte> four(4);
  Changed llama(golden("llama3"), folder / "llama");
  llama.tensors.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", "F32", {1}, four});
  EXPECT_EQ(llama.loaded(), "no error");

  Changed tied(golden("qwen2"), folder / "tied");
  StoredTensor head = tied.at("model.embed_tokens.weight");
  head.name = "lm_head.weight";
  tied.tensors.push_back(head);
  EXPECT_EQ(tied.loaded(), "no error");
  std::vector<std::byte> other(head.bytes.begin(), head.bytes.end());
  other.back() ^= std::byte{1};
  tied.at("lm_head.weight").bytes = other;
  EXPECT_EQ(tied.loaded(), "unexpected \"lm_head.weight\" F32[96, 32]");
  tied.erase("model.embed_tokens.weight");
  EXPECT_EQ(tied.loaded(), "missing \"model.embed_tokens.weight\" [96, 32]; unexpected \"lm_head.weight\" F32[96, 32]");
}

TEST(HfLoad, ReadsGpt2AsOpenAiNamedIt) {
  const TemporaryFolder folder;
  const std::vector<std::byte> mask(16);
  Changed changed(golden("gpt2"), folder / "m");
  for (StoredTensor& tensor : changed.tensors) tensor.name = tensor.name.substr(std::string("transformer.").size());
  changed.tensors.push_back({"h.0.attn.bias", "F32", {1, 1, 2, 2}, mask});
  changed.tensors.push_back({"h.1.attn.masked_bias", "F32", {}, std::span(mask).first(4)});
  EXPECT_EQ(changed.loaded(), "no error");
  std::vector<float> ours(96 * 32), bare(96 * 32);
  changed.model.read("transformer.wte.weight", ours);
  load(folder / "m").read("transformer.wte.weight", bare);
  EXPECT_EQ(bare, ours);
}

TEST(HfLoad, WhatIsNoModelIsNamed) {
  const TemporaryFolder folder;
  const auto refused = [&](const fs::path& path) { return message_of([&] { load(path); }); };
  EXPECT_EQ(refused(folder / "none"), "model \"" + (folder / "none").string() + "\": is not a folder");
  EXPECT_EQ(refused(folder.path()), "file \"" + (folder / "config.json").string() + "\": cannot open: No such file or directory");
  write_text(folder / "config.json", "{\"model_type\": \"bert\"}");
  EXPECT_EQ(refused(folder.path()), "config \"" + (folder / "config.json").string() +
                                        R"(": key "model_type" is "bert", must be "llama", "mistral", "qwen2" or "gpt2")");
  write_text(folder / "config.json", std::string(1 << 20, ' ') + "{}");
  EXPECT_EQ(refused(folder.path()), "config \"" + (folder / "config.json").string() + "\": has 1048578 bytes, at most 1048576");
  write_text(folder / "config.json", text_of(golden("llama3") / "config.json"));
  EXPECT_EQ(refused(folder.path()),
            "folder \"" + folder.path().string() + "\": holds neither model.safetensors nor model.safetensors.index.json");
  detail::Json config = detail::parse_json(text_of(golden("llama3") / "config.json"), "x");
  config["num_hidden_layers"] = 16'000'000;
  Changed changed(golden("llama3"), folder / "deep");
  write_text(folder / "deep/config.json", config.dump());
  EXPECT_EQ(changed.loaded(),
            "model \"" + (folder / "deep").string() + "\": config.json has 16000000 layers, but there are only 21 tensors");
}

TEST(Hf, AGeneratorTakesTheModel) {
  for (const char* name : {"mistral_f16", "gpt2"}) {
    const Model model = load(golden(name));
    const auto backend = reference_backend();
    Generator generator(model.config().decoder(), *backend, {.max_seq = 16});
    model.restore(generator.session());
    const std::vector<std::uint32_t> prompt = {5, 17, 80, 3, 3, 41, 9, 22, 60},
                                     made = generator.generate(prompt, 1, {.temperature = 0.0});
    Running running(model.config(), *backend, 9, 9);
    model.restore(*running.session);
    const std::vector<double> logits = running.logits(prompt);
    EXPECT_EQ(made.at(0), static_cast<std::uint32_t>(std::max_element(logits.end() - 96, logits.end()) - (logits.end() - 96)))
        << name;
  }
}

// ---- transformers reads what graft writes

TEST(Hf, TransformersReadsWhatIsSaved) {
  if (std::system("python3 -c 'import torch, transformers, safetensors' > /dev/null 2>&1") != 0)
    GTEST_SKIP() << "python3 with torch and transformers is not installed";
  const TemporaryFolder folder;
  std::string command = "python3 '" + (fs::path(GRAFT_SOURCE_DIR) / "tests/check_transformers.py").string() + "'";
  const auto add = [&](const std::string& name, Running& running, const Config& config, const SaveOptions& options) {
    save(folder / name, *running.session, config, options);
    const std::int64_t rows = running.graph.shape(running.graph.find("ids")).size();
    std::vector<std::uint32_t> ids(static_cast<std::size_t>(rows));
    for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::uint32_t>((i * i + 3 * i) % 13);
    // What is stored may be rounded: it is what is compared.
    load(folder / name).restore(*running.session);
    const std::vector<double> logits = running.logits(ids);
    const StoredTensor tensors[] = {
        {"ids", "U32", {1, rows}, std::as_bytes(std::span(ids))},
        {"logits", "F64", {1, rows, static_cast<std::int64_t>(logits.size()) / rows}, std::as_bytes(std::span(logits))}};
    write_safetensors(folder / name / "graft.logits", tensors);
    command += " '" + (folder / name).string() + "'";
  };
  const auto backend = reference_backend();
  for (const char* name : kModels) {
    const Model model = load(golden(name));
    Running running(model.config(), *backend, 12, 12);
    model.restore(*running.session);
    add(name, running, model.config(),
        {.dtype = stored_as(model), .max_shard_bytes = model.weights().files().size() > 1 ? 40'000 : 1'000'000'000});
  }
  nn::LlamaConfig scaled = tiny(), qwen2 = tiny(), mistral = tiny(), biased = tiny();
  scaled.rope_scaling = {RopeScaling::Kind::llama3, 8.0, 1.0, 4.0, 16};
  scaled.head_dim = 6;
  qwen2.qkv_bias = true;
  qwen2.window = 4;
  qwen2.full_layers = 1;
  mistral.window = 3;
  biased.qkv_bias = biased.o_bias = biased.mlp_bias = biased.tie_embeddings = true;
  biased.rope_scaling = {RopeScaling::Kind::linear, 3.0};
  int number = 0;
  for (const Config& config :
       {Config::of(scaled, 64), Config::of(qwen2, 64), Config::of(mistral, 64), Config::of(biased, 64),
        Config::of(nn::Gpt2Config{.vocab_size = 13, .max_positions = 20, .hidden_size = 8, .num_layers = 2, .num_heads = 2}),
        Config::of(nn::Gpt2Config{.vocab_size = 13,
        .max_positions = 20,
        .hidden_size = 8,
        .intermediate_size = 20,
        .num_layers = 2,
        .num_heads = 2,
        .activation = UnaryFn::gelu,
        .tie_embeddings = false})}) {
    Running running(config, *backend, 12, 12);
    for (const Value p : running.graph.parameters()) {
      const std::string& name = running.graph.node(p).name;
      running.session->write(name, values_for(name, running.graph.shape(p).size()));
    }
    add("made" + std::to_string(number++), running, config, {});
  }
  EXPECT_EQ(std::system((command + " 2>&1").c_str()), 0);
}

}  // namespace
}  // namespace graft::hf
