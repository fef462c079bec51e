// Others read checkpoints: h5py, h5dump, and PyTorch by the block in docs/checkpoints.md. GRAFT_TEST_PYTHON names a Python that has h5py and torch.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <utility>

#include "graft/bf16.h"
#include "graft/nn.h"
#include "graft/session.h"
#include "tests/checkpoint_files.h"

namespace graft {
namespace {

using namespace checkpoint_files;

/// Exit status and output.
using Finished = std::pair<int, std::string>;

Finished shell(const std::string& command) {
  Finished finished;
  std::FILE* out = ::popen((command + " 2>&1").c_str(), "r");
  for (int c; (c = std::fgetc(out)) != EOF;) finished.second += static_cast<char>(c);
  finished.first = ::pclose(out);
  return finished;
}

std::string python() {
  const char* given = std::getenv("GRAFT_TEST_PYTHON");
  return given != nullptr ? given : "python3";
}

bool python_has(const std::string& modules) { return shell(python() + " -c 'import " + modules + "'").first == 0; }

TEST(CheckpointTools, H5pyReadsIt) {
  if (!python_has("h5py")) GTEST_SKIP() << python() << " has no h5py";
  const TemporaryFolder folder;
  Checkpoint checkpoint = sample();
  checkpoint.config = std::string(100'000, ' ').append(R"({"layers": 2})");
  checkpoint.tensors = {
      tensor_of<float>("model/a.weight", DType::f32, Shape{2, 3}, {1, 2, 3, 4, 5, 6}),
      tensor_of<float>("model/scalar", DType::f32, Shape{}, {0.5f}),
      {"model/half",
       {DType::bf16, Shape{3}},
       {std::byte{0x80}, std::byte{0x3F}, std::byte{0x40}, std::byte{0xC0}, std::byte{1}, std::byte{0}}},
      {"rng/counter", {DType::u32, Shape{1}}, {std::byte{1}, std::byte{2}, std::byte{3}, std::byte{0xFF}}},
  };
  write_checkpoint(folder / "a.h5", checkpoint);
  put(folder / "check.py", R"python(
import json, sys
import h5py, numpy as np
with h5py.File(sys.argv[1], "r") as f:
    assert f.attrs["format"] == "graft checkpoint" and f.attrs["format_version"] == 1 and f.attrs["complete"] == 1
    assert f.attrs["step"] == 123456789012 and f.attrs["graph_hash"] == 0xFEDCBA9876543210 and f.attrs["metric"] == 1.75
    assert json.loads(f.attrs["config"]) == {"layers": 2} and f["schedule"].attrs["definition"] == "cosine(0.001, 100, 2000)"
    assert sorted(f["model"]) == ["a.weight", "half", "scalar"]
    model = {name: data[()].reshape(() if "scalar" in data.attrs else data.shape) for name, data in f["model"].items()}
    assert model["a.weight"].shape == (2, 3) and model["scalar"].shape == () and model["scalar"] == 0.5
    a = f["model/a.weight"]
    assert a.dtype == np.float32 and a.fletcher32 and np.array_equal(a[()], [[1, 2, 3], [4, 5, 6]])
    half = f["model/half"]
    assert half.dtype == np.float32 and np.array_equal(half[()], np.array([1, -3, 2.0**-133], np.float32)), half[()]
    assert f["model/scalar"].attrs["scalar"] == 1 and f["model/scalar"][0] == 0.5
    assert f["rng/counter"].dtype == np.uint32 and f["rng/counter"][0] == 0xFF030201
)python");
  EXPECT_EQ(shell(python() + " '" + (folder / "check.py").string() + "' '" + (folder / "a.h5").string() + "'"), Finished(0, ""));
}

/// The elements of a tensor as numbers.
std::vector<double> numbers(const SavedTensor& tensor) {
  std::vector<double> values;
  const auto as = [&](auto value, auto number) {
    for (std::size_t at = 0; at < tensor.bytes.size(); at += sizeof value) {
      std::memcpy(&value, &tensor.bytes[at], sizeof value);
      values.push_back(number(value));
    }
  };
  const auto same = [](auto value) { return static_cast<double>(value); };
  switch (tensor.type.dtype) {
    case DType::f32: as(0.0f, same); break;
    case DType::f64: as(0.0, same); break;
    case DType::u32: as(std::uint32_t{0}, same); break;
    case DType::bf16: as(Bf16{}, [](Bf16 value) { return static_cast<double>(to_float(value)); }); break;
  }
  return values;
}

TEST(CheckpointTools, H5dumpShowsEveryDataset) {
  if (shell("h5dump --version").first != 0) GTEST_SKIP() << "h5dump (package hdf5-tools) is not installed";
  const TemporaryFolder folder;
  const auto file = folder / "a.h5", text = folder / "values.txt";
  write_checkpoint(file, plain_sample());
  const auto [status, all] = shell("h5dump '" + file.string() + "'");
  EXPECT_EQ(status, 0);
  EXPECT_EQ(all.find("rror"), std::string::npos) << all;
  for (const SavedTensor& tensor : plain_sample().tensors) {
    EXPECT_EQ(shell("h5dump -y -w 1 -m %.17g -d '/" + tensor.path + "' -o '" + text.string() + "' '" + file.string() + "'").first,
              0)
        << tensor.path;
    std::istringstream words(contents(text));
    std::vector<double> read;
    for (std::string word; words >> word;) read.push_back(std::strtod(word.c_str(), nullptr));
    EXPECT_EQ(read, numbers(tensor)) << tensor.path;
  }
}

/// The block of docs/checkpoints.md that begins with that line.
std::string documented(const std::string& first_line) {
  const std::string page = contents(std::filesystem::path(GRAFT_SOURCE_DIR) / "docs" / "checkpoints.md");
  const std::size_t begin = page.find("```python\n" + first_line + "\n");
  if (begin == std::string::npos) return "";
  const std::size_t at = page.find('\n', begin) + 1;
  return page.substr(at, page.find("```", at) - at);
}

TEST(CheckpointTools, TheDocumentedBlockLoadsAModelIntoPyTorch) {
  const std::string block = documented("import h5py, torch");
  ASSERT_NE(block, "");
  if (!python_has("h5py, torch")) GTEST_SKIP() << python() << " has not both h5py and torch";
  const TemporaryFolder folder;
  Graph g(5);
  const nn::Embedding embed(g, "embed", 7, 4);
  const nn::LayerNorm norm(g, "norm", 4);
  const nn::Linear square(g, "square", 4, 4, true), head(g, "head", 4, 3);  // a square matrix tells nothing by its shape
  g.parameter("norm.scale", {}, Init::fill(3.0));
  const Value ids = g.input_u32("ids", {5});
  const Value x = square.forward(g, norm.forward(g, embed.forward(g, ids)));
  g.output("out", g.scale(head.forward(g, g.silu(x)), 3.0));
  const auto backend = reference_backend();
  Session session(g, *backend);
  for (const char* name : {"norm.weight", "norm.bias", "square.bias"})
    session.write(name, std::vector<float>{0.5f, -1.0f, 2.0f, 0.25f});
  session.write("ids", std::vector<std::uint32_t>{0, 6, 3, 3, 1});
  session.step();
  session.save(folder / "a.h5");
  std::string want;
  for (const float value : session.read("out")) want += std::to_string(value) + ",";
  put(folder / "check.py", block + R"python(
import sys

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(7, 4)
        self.norm = torch.nn.LayerNorm(4)
        self.norm.scale = torch.nn.Parameter(torch.zeros(()))
        self.square = torch.nn.Linear(4, 4)
        self.head = torch.nn.Linear(4, 3, bias=False)

    def forward(self, ids):
        return self.head(torch.nn.functional.silu(self.square(self.norm(self.embed(ids))))) * self.norm.scale

model = Model()
load(sys.argv[1], model)
got = model(torch.tensor([0, 6, 3, 3, 1]))
want = torch.tensor([float(number) for number in sys.argv[2].split(",") if number]).reshape(5, 3)
assert want.abs().max() > 0.01 and (got - want).abs().max() < 2e-6, (got, want)
)python");
  EXPECT_EQ(shell(python() + " '" + (folder / "check.py").string() + "' '" + (folder / "a.h5").string() + "' '" + want + "'"),
            Finished(0, ""));
}

}  // namespace
}  // namespace graft
