#include <algorithm>
#include <map>
#include <system_error>

#include "graft/error.h"
#include "src/hf/parameters.h"
#include "src/util.h"

namespace graft::hf {
namespace {

constexpr std::size_t kMostConfigBytes = std::size_t{1} << 20;

Config read_config(const std::filesystem::path& file) {
  const MappedFile text(file);
  const std::string what = "config \"" + file.string() + "\"";
  if (text.text().size() > kMostConfigBytes)
    throw Error(what + ": has " + std::to_string(text.text().size()) + " bytes, at most " + std::to_string(kMostConfigBytes));
  return Config::parse(text.text(), what);
}

bool is_float(const StoredTensor& tensor) {
  return tensor.dtype == "F32" || tensor.dtype == "BF16" || tensor.dtype == "F16" || tensor.dtype == "F64";
}

/// Not weights: masks and frequencies that older versions of transformers saved too.
bool is_buffer(std::string_view name) {
  return name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias") || name.ends_with(".rotary_emb.inv_freq");
}

bool same_bytes(const StoredTensor& a, const StoredTensor& b) {
  return to_string(a) == to_string(b) && std::equal(a.bytes.begin(), a.bytes.end(), b.bytes.begin(), b.bytes.end());
}

}  // namespace

Network::Network(Graph& graph, const Config& config)
    : model(std::visit(
          [&]<class C>(const C& c) -> std::variant<nn::Llama, nn::Gpt2> {
            if constexpr (std::is_same_v<C, nn::LlamaConfig>) {
              return nn::Llama(graph, c);
            } else {
              return nn::Gpt2(graph, c);
            }
          },
          config.model())) {}

Value Network::forward(Graph& graph, Value ids, const Segments& segments) const {
  return std::visit([&](const auto& network) { return network.forward(graph, ids, segments); }, model);
}

Model load(const std::filesystem::path& folder) {
  std::error_code ignored;
  if (!std::filesystem::is_directory(folder, ignored)) throw Error("model \"" + folder.string() + "\": is not a folder");
  Config config = read_config(folder / "config.json");
  Model model(std::move(config), Safetensors(folder));
  const std::vector<StoredTensor>& tensors = model.weights_.tensors();

  // GPT-2 as OpenAI's folder has it: names without "transformer.".
  const bool bare = std::holds_alternative<nn::Gpt2Config>(model.config_.model()) && model.weights_.contains("wte.weight");
  std::map<std::string, std::size_t> stored;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const std::string& name = tensors[i].name;
    stored.emplace(bare && name != "lm_head.weight" ? "transformer." + name : name, i);
  }

  const auto layers =
      static_cast<std::size_t>(std::visit([](const auto& config) { return config.num_layers; }, model.config_.model()));
  if (layers > tensors.size()) {  // or the list of what is missing would have no end
    throw Error("model \"" + folder.string() + "\": config.json has " + std::to_string(layers) + " layers, but there are only " +
                std::to_string(tensors.size()) + " tensors");
  }

  std::vector<std::string> problems;
  const std::vector<detail::Parameter> parameters = detail::parameters_of(model.config_);
  for (const detail::Parameter& parameter : parameters) {
    const StoredTensor wanted{parameter.name, "", detail::stored_shape(parameter), {}};
    const auto found = stored.find(parameter.name);
    if (found == stored.end()) {
      problems.push_back("missing \"" + parameter.name + "\" " + to_string(wanted));
      continue;
    }
    const StoredTensor& tensor = tensors[found->second];
    if (tensor.shape != wanted.shape) {
      problems.push_back("\"" + parameter.name + "\" is " + to_string(tensor) + ", must be " + to_string(wanted));
    } else if (!is_float(tensor)) {
      problems.push_back("\"" + parameter.name + "\" is " + to_string(tensor) + ", must be F32, BF16, F16 or F64");
    }
    model.map_.push_back({parameter.name, parameter.shape, parameter.transposed, found->second});
    stored.erase(found);
  }
  const std::string& embedding = parameters.front().name;
  for (const auto& [name, i] : stored) {
    const bool copy = name == "lm_head.weight" && !model.map_.empty() && model.map_.front().parameter == embedding &&
                      same_bytes(tensors[i], tensors[model.map_.front().index]);
    if (!is_buffer(name) && !copy) problems.push_back("unexpected \"" + name + "\" " + to_string(tensors[i]));
  }
  if (!problems.empty())
    throw Error("model \"" + folder.string() + "\": the weights do not fit config.json: " + detail::joined(problems));
  return model;
}

void Model::read(const Weight& weight, std::span<float> to) const {
  const StoredTensor& tensor = weights_.tensors()[weight.index];
  if (!weight.transposed) return read_values(tensor, 0, to);
  std::vector<float> there(to.size());
  read_values(tensor, 0, std::span(there));
  detail::transpose(there, weight.shape.cols(), weight.shape.rows(), to);
}

void Model::read(std::string_view parameter, std::span<float> to) const {
  const auto found = std::find_if(map_.begin(), map_.end(), [&](const Weight& weight) { return weight.parameter == parameter; });
  if (found == map_.end()) {
    std::vector<std::string> known;
    for (const Weight& weight : map_) known.push_back(weight.parameter);
    throw Error("model: no parameter \"" + std::string(parameter) + "\"" + names_near(parameter, known));
  }
  if (static_cast<std::int64_t>(to.size()) != found->shape.size())
    throw Error("model: parameter \"" + std::string(parameter) + "\" is " + to_string(found->shape) + ", got room for " +
                std::to_string(to.size()));
  read(*found, to);
}

void Model::restore(Session& session, bool others_stay) const {
  std::vector<detail::Parameter> parameters;
  for (const Weight& weight : map_) parameters.push_back({weight.parameter, weight.shape, weight.transposed});
  const std::vector<std::string> problems = detail::misfits(parameters, session, others_stay);
  if (!problems.empty()) throw Error("model: does not fit the session: " + detail::joined(problems));
  std::vector<float> values;
  for (const Weight& weight : map_) {
    values.resize(static_cast<std::size_t>(weight.shape.size()));
    read(weight, values);
    session.write(weight.parameter, std::span<const float>(values));
  }
}

}  // namespace graft::hf
