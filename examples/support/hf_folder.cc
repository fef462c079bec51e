#include "examples/support/hf_folder.h"

#include <cstring>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "graft/backend.h"
#include "graft/error.h"

namespace fs = std::filesystem;
using namespace graft;

namespace {

/// What goes with a model's weights, as far as it is there.
constexpr const char* kBesideWeights[] = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
                                          "tokenizer.model", "chat_template.jinja", "generation_config.json"};

std::vector<std::uint32_t> eos_of(const nlohmann::json& config) {
  std::vector<std::uint32_t> ids;
  const auto found = config.find("eos_token_id");
  if (found == config.end()) return ids;
  for (const nlohmann::json& id : found->is_array() ? *found : nlohmann::json::array({*found}))
    if (id.is_number_unsigned()) ids.push_back(id.get<std::uint32_t>());
  return ids;
}

}  // namespace

bool is_hf_folder(const fs::path& folder) {
  std::error_code error;
  return fs::is_regular_file(folder / "config.json", error);
}

Tokenizer tokenizer_of(const fs::path& folder, bool bytes) {
  if (bytes) return Tokenizer::bytes();
  std::error_code error;
  if (!fs::exists(folder / "tokenizer.json", error))
    throw Error("model \"" + folder.string() + "\": holds no tokenizer.json; with --bytes the tokens are the values of the text's bytes");
  return Tokenizer::load(folder / "tokenizer.json");
}

std::vector<std::uint32_t> encode(const Tokenizer& tokenizer, const std::string& text, std::int64_t vocab_size, const std::string& name) {
  std::vector<std::uint32_t> ids = tokenizer.encode(text);
  for (std::size_t i = 0; i < ids.size(); ++i)
    if (ids[i] >= vocab_size)
      throw Error(name + ": token " + std::to_string(i) + " is " + std::to_string(ids[i]) + ", but the model knows " + std::to_string(vocab_size) + " tokens");
  return ids;
}

std::vector<std::uint32_t> stop_tokens(const fs::path& folder) {
  for (const char* name : {"generation_config.json", "config.json"}) {
    std::ifstream file(folder / name);
    if (!file) continue;
    const nlohmann::json config = nlohmann::json::parse(file, nullptr, false);
    if (config.is_object())
      if (std::vector<std::uint32_t> ids = eos_of(config); !ids.empty()) return ids;
  }
  return {};
}

std::int64_t max_positions(const hf::Config& config) {
  const nlohmann::json json = nlohmann::json::parse(config.json());
  for (const char* key : {"n_positions", "max_position_embeddings"})
    if (const auto found = json.find(key); found != json.end() && !found->is_null()) return found->get<std::int64_t>();
  return 2048;
}

std::int64_t vocab_size(const hf::Config& config) {
  return std::visit([](const auto& model) { return model.vocab_size; }, config.model());
}

Value logits_of(Graph& graph, const hf::Config& config, Value ids, std::int64_t context, double dropout) {
  const auto of = [&](auto model_config) {
    using Model = std::conditional_t<std::is_same_v<decltype(model_config), nn::LlamaConfig>, nn::Llama, nn::Gpt2>;
    model_config.dropout = dropout;
    return Model(graph, model_config).forward(graph, ids, Segments::uniform(context));
  };
  return std::visit(of, config.model());
}

std::vector<std::string> parameter_names(const hf::Config& config) {
  Graph graph;
  const hf::Network network(graph, config);
  std::vector<std::string> names;
  for (const Value p : graph.parameters()) names.push_back(graph.node(p).name);
  return names;
}

void set_weights(const hf::Model& model, Session& session) {
  std::vector<float> values;
  for (const std::string& name : parameter_names(model.config())) {
    values.resize(static_cast<std::size_t>(session.graph().shape(session.graph().find(name)).size()));
    model.read(name, values);
    session.write(name, values);
  }
}

std::uint64_t hash_of(std::span<const std::byte> bytes, std::uint64_t seed) {
  std::uint64_t h = seed ^ bytes.size();
  for (std::size_t i = 0; i < bytes.size(); i += sizeof(std::uint64_t)) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes.data() + i, std::min(sizeof word, bytes.size() - i));
    h = (h ^ word) * 0x9E3779B97F4A7C15u;
    h ^= h >> 29;
  }
  return h;
}

std::uint64_t hash_of(const hf::Model& model) {
  std::uint64_t h = hash_of(std::as_bytes(std::span(model.config().json())));
  for (const hf::StoredTensor& tensor : model.weights().tensors()) h = hash_of(tensor.bytes, h);
  return h;
}

void export_model(const fs::path& to, const fs::path& from, const hf::Config& config, Session& session, const LoraOptions* adapters, hf::SaveAs dtype) {
  if (adapters != nullptr) {
    Graph graph;
    graph.output("logits", hf::Network(graph, config).forward(graph, graph.input_u32("ids", {1})));
    Session merged(graph, session.backend());
    for (const std::string& name : parameter_names(config)) merged.write(name, merged_weight(session, name, *adapters));
    hf::save(to, merged, config, {.dtype = dtype});
  } else {
    hf::save(to, session, config, {.dtype = dtype});
  }
  for (const char* name : kBesideWeights)
    if (fs::exists(from / name)) fs::copy_file(from / name, to / name, fs::copy_options::overwrite_existing);
}
