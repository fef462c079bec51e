#pragma once
// What the tests of Hugging Face folders share: the golden ones, a small model of their own, a session that runs a model.
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "graft/backend.h"
#include "graft/hf.h"
#include "graft/session.h"
#include "tests/checkpoint_files.h"
#include "tests/plain_model.h"

namespace graft::hf {

using checkpoint_files::TemporaryFolder;
using plain::values_for;
namespace fs = std::filesystem;

inline fs::path golden(const std::string& name) { return fs::path(GRAFT_SOURCE_DIR) / "tests/golden/hf" / name; }

inline std::vector<double> values_of(const StoredTensor& tensor) {
  std::vector<double> values(static_cast<std::size_t>(tensor.elements()));
  read_values(tensor, 0, std::span(values));
  return values;
}

/// A model in a session that gives logits for `rows` tokens.
struct Running {
  Running(const Config& config, Backend& backend, std::int64_t rows, std::int64_t length, const PlanOptions& options = {}) {
    const Network network(graph, config);
    graph.output("logits", network.forward(graph, graph.input_u32("ids", {rows}), Segments::uniform(length)));
    session = std::make_unique<Session>(graph, backend, options);
  }
  std::vector<double> logits(const std::vector<std::uint32_t>& ids) {
    session->write("ids", ids);
    session->step();
    return session->read_f64("logits");
  }
  Graph graph;
  std::unique_ptr<Session> session;
};

inline std::string text_of(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  EXPECT_TRUE(in) << file;
  return {std::istreambuf_iterator<char>(in), {}};
}

inline void write_text(const fs::path& file, const std::string& text) { std::ofstream(file, std::ios::binary) << text; }

/// A small Llama made here, with weights that are not alike.
inline nn::LlamaConfig tiny() {
  return {.vocab_size = 13,
          .hidden_size = 8,
          .intermediate_size = 12,
          .num_layers = 2,
          .num_heads = 2,
          .num_kv_heads = 1,
          .tie_embeddings = false};
}

struct Tiny {
  explicit Tiny(const Config& wanted = Config::of(tiny(), 32))
      : config(wanted), backend(reference_backend()), running(config, *backend, 6, 3) {
    for (const Value p : running.graph.parameters()) {
      const std::string& name = running.graph.node(p).name;
      running.session->write(name, values_for(name, running.graph.shape(p).size()));
    }
  }
  Session& session() { return *running.session; }
  Config config;
  std::unique_ptr<Backend> backend;
  Running running;
};

}  // namespace graft::hf
