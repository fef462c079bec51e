#include <cmath>
#include <cstdio>
#include <cstring>
#include <system_error>

#include "graft/bf16.h"
#include "graft/error.h"
#include "src/hf/f16.h"
#include "src/hf/json.h"
#include "src/hf/parameters.h"
#include "src/hf/safetensors_format.h"
#include "src/io/atomic_file.h"

namespace graft::hf {
namespace {

using detail::Json;

struct Words {
  const char *stored, *torch;
  std::size_t bytes;
};
Words words_of(SaveAs dtype) {
  switch (dtype) {
    case SaveAs::f32: return {"F32", "float32", 4};
    case SaveAs::bf16: return {"BF16", "bfloat16", 2};
    case SaveAs::f16: return {"F16", "float16", 2};
  }
  GRAFT_ASSERT(!"a dtype");
}

void narrow(std::span<const float> values, SaveAs dtype, const std::string& name, std::vector<std::byte>& bytes) {
  bytes.resize(values.size() * words_of(dtype).bytes);
  const auto put = [&](std::size_t i, auto value) { std::memcpy(bytes.data() + i * sizeof value, &value, sizeof value); };
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (dtype == SaveAs::f32) {
      put(i, values[i]);
    } else if (dtype == SaveAs::bf16) {
      put(i, to_bf16(values[i]));
    } else {
      const detail::F16 half = detail::to_f16(values[i]);
      if (std::isinf(to_float(half)) && std::isfinite(values[i]))
        throw Error("parameter \"" + name + "\": " + std::to_string(values[i]) + " is too large for f16");
      put(i, half);
    }
  }
}

/// The files to be written, removed again unless all of them are.
class NewFiles {
 public:
  explicit NewFiles(const std::filesystem::path& folder) : folder_(folder) {
    const std::string what = "model \"" + folder.string() + "\": ";
    std::error_code error;
    made_ = std::filesystem::create_directory(folder, error);
    if (error) throw Error(what + "cannot make the folder: " + error.message());
    for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
      const std::string name = entry.path().filename().string();
      if (name == "config.json" || name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json") ||
          name.starts_with("pytorch_model"))
        throw Error(what + "the folder holds a model already, \"" + name + "\"");
    }
    if (error) throw Error(what + "cannot look into the folder: " + error.message());
  }
  ~NewFiles() {
    std::error_code ignored;
    if (kept_) return;
    for (const std::string& name : names_) std::filesystem::remove(folder_ / name, ignored);
    if (made_) std::filesystem::remove(folder_, ignored);
  }
  NewFiles(const NewFiles&) = delete;
  NewFiles& operator=(const NewFiles&) = delete;

  std::filesystem::path add(const std::string& name) {
    names_.push_back(name);
    return folder_ / name;
  }
  void write(const std::string& name, const std::string& text) {
    graft::detail::AtomicFile file(add(name), "model");
    file.write(std::as_bytes(std::span(text)));
    file.commit();
  }
  void keep() { kept_ = true; }

 private:
  std::filesystem::path folder_;
  std::vector<std::string> names_;
  bool made_ = false, kept_ = false;
};

std::string config_json(const Config& config, SaveAs dtype) {
  Json json = detail::parse_json(config.json(), "config.json");
  // The first is what transformers 5 reads, the second what the versions before read.
  for (const char* key : {"dtype", "torch_dtype"}) json[key] = words_of(dtype).torch;
  return json.dump(2) + "\n";
}

/// The numbers of the tensors in each file, in order; at least one tensor a file.
std::vector<std::vector<std::size_t>> shards_of(const std::vector<std::size_t>& sizes, std::int64_t most) {
  std::vector<std::vector<std::size_t>> shards(1);
  std::size_t filled = 0;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    if (!shards.back().empty() && filled + sizes[i] > static_cast<std::size_t>(most)) {
      shards.emplace_back();
      filled = 0;
    }
    shards.back().push_back(i);
    filled += sizes[i];
  }
  return shards;
}

std::string shard_name(std::size_t shard, std::size_t count) {
  if (count == 1) return "model.safetensors";
  char name[64];
  std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", shard + 1, count);
  return name;
}

}  // namespace

void save(const std::filesystem::path& folder, Session& session, const Config& config, const SaveOptions& options) {
  if (options.max_shard_bytes < 1)
    throw Error("hf::save: max_shard_bytes is " + std::to_string(options.max_shard_bytes) + ", must be at least 1");
  const std::vector<detail::Parameter> parameters = detail::parameters_of(config);
  const std::vector<std::string> problems = detail::misfits(parameters, session, false);
  if (!problems.empty()) throw Error("hf::save: the session does not fit the configuration: " + detail::joined(problems));

  std::vector<StoredTensor> tensors;
  std::vector<std::size_t> sizes;
  std::size_t total = 0, elements = 0;
  for (const detail::Parameter& parameter : parameters) {
    tensors.push_back({parameter.name, words_of(options.dtype).stored, detail::stored_shape(parameter), {}});
    const auto count = static_cast<std::size_t>(parameter.shape.size());
    sizes.push_back(count * words_of(options.dtype).bytes);
    elements += count;
    total += sizes.back();
  }

  NewFiles files(folder);
  const std::vector<std::vector<std::size_t>> shards = shards_of(sizes, options.max_shard_bytes);
  std::vector<float> values, transposed;
  std::vector<std::byte> bytes;
  Json weight_map = Json::object();
  for (std::size_t s = 0; s < shards.size(); ++s) {
    const std::string name = shard_name(s, shards.size());
    std::vector<StoredTensor> some;
    for (const std::size_t i : shards[s]) some.push_back(tensors[i]);
    detail::write_safetensors(files.add(name), some, {{"format", "pt"}}, [&](std::size_t k) {
      const detail::Parameter& parameter = parameters[shards[s][k]];
      values.resize(static_cast<std::size_t>(parameter.shape.size()));
      session.read(parameter.name, std::span<float>(values));
      if (parameter.transposed) {
        transposed.resize(values.size());
        detail::transpose(values, parameter.shape.rows(), parameter.shape.cols(), transposed);
      }
      narrow(parameter.transposed ? transposed : values, options.dtype, parameter.name, bytes);
      return std::span<const std::byte>(bytes);
    });
    for (const std::size_t i : shards[s]) weight_map[parameters[i].name] = name;
  }
  if (shards.size() > 1) {
    const Json index = {{"metadata", {{"total_parameters", elements}, {"total_size", total}}}, {"weight_map", weight_map}};
    files.write("model.safetensors.index.json", index.dump(2) + "\n");
  }
  files.write("config.json", config_json(config, options.dtype));  // last: without it a folder is no model
  files.keep();
}

}  // namespace graft::hf
