// Who may include whom: the folder table of docs/design.md, enforced on every source file of the tree.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <regex>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace {

struct Rule {
  std::string_view where;                 // a folder with its slash, or a file; the longest match counts
  std::vector<std::string_view> allowed;  // how an included name may start, besides C++'s own headers
};

const std::vector<Rule>& rules() {
  static const std::vector<Rule> table = {
      {"include/graft/", {"graft/"}},
      {"include/graft/gtest.h", {"graft/", "gtest/gtest.h"}},
      {"src/", {"graft/", "src/"}},
      {"src/io/", {"graft/", "src/", "hdf5.h", "fcntl.h", "unistd.h", "sys/"}},
      {"src/hf/", {"graft/", "src/", "nlohmann/", "unistd.h", "fcntl.h"}},
      {"src/report/", {"graft/", "src/", "unistd.h"}},
      {"src/tokenizer/", {"graft/", "src/", "nlohmann/"}},
      {"src/tokenizer/pattern.cc", {"graft/", "src/", "pcre2.h"}},
      {"src/data/", {"graft/", "src/", "fcntl.h", "unistd.h", "sys/"}},
      {"autodiff/", {"graft/", "autodiff/"}},
      {"optim/", {"graft/", "optim/"}},
      {"kernels/", {"graft/", "kernels/segments.h"}},
      {"kernels/reference/", {"graft/", "kernels/segments.h", "kernels/rope_frequency.h", "kernels/reference/", "Eigen/"}},
      {"kernels/cpu/",
       {"graft/", "kernels/segments.h", "kernels/rope_frequency.h", "kernels/attention_siblings.h", "kernels/updates.h", "kernels/reference/kernels.h",
        "kernels/reference/widen.h", "kernels/cpu/", "immintrin.h"}},
      {"kernels/cpu/gemm_onednn.cc", {"graft/", "kernels/cpu/", "dnnl.hpp", "oneapi/dnnl/", "dlfcn.h"}},
      {"kernels/cuda/",
       {"graft/", "kernels/segments.h", "kernels/rope_frequency.h", "kernels/attention_siblings.h", "kernels/updates.h", "kernels/cuda/", "cuda_runtime.h",
        "cuda_bf16.h"}},
      {"kernels/cuda/gemm_cublaslt.cc", {"graft/", "kernels/cuda/", "cublasLt.h", "dlfcn.h"}},
      {"examples/", {"graft/", "examples/", "CLI/", "nlohmann/", "unistd.h"}},
      {"tools/", {"graft/", "examples/support/number_checks.h", "CLI/", "nlohmann/"}},
      {"benchmarks/", {"graft/", "benchmarks/", "CLI/", "nlohmann/", "fcntl.h", "unistd.h", "sys/"}},
      {"tests/", {""}},
  };
  return table;
}

constexpr int kMostLines = 800;

bool is_standard(std::string_view name) { return name.find_first_of("./") == std::string_view::npos; }

const Rule* rule_of(std::string_view path) {
  const Rule* best = nullptr;
  for (const Rule& rule : rules()) {
    if (path.starts_with(rule.where) && (best == nullptr || rule.where.size() > best->where.size())) best = &rule;
  }
  return best;
}

// What is wrong with a file of the tree, one line each.
std::vector<std::string> complaints(const std::string& path, const std::string& text) {
  static const std::regex include(R"(^\s*#\s*include\s*(["<])([^">]+)[">])");
  static const std::regex backend_switch(R"(^\s*#\s*(if|ifdef|ifndef|elif)\b.*(CUDA|DNNL|ONEDNN|EIGEN|HDF5|GRAFT_))");
  const Rule* rule = rule_of(path);
  if (rule == nullptr) return {path + ": lies in no folder of the table"};

  std::vector<std::string> found;
  std::istringstream lines(text);
  std::string line;
  int number = 0;
  while (std::getline(lines, line)) {
    const std::string at = path + ":" + std::to_string(++number) + ": ";
    std::smatch match;
    if (std::regex_search(line, match, include)) {
      const std::string name = match[2];
      const bool allowed = (match[1] == "<" && is_standard(name)) ||
                           std::any_of(rule->allowed.begin(), rule->allowed.end(), [&](auto start) { return name.starts_with(start); });
      if (!allowed) found.push_back(at + "may not include " + name);
    }
    // A library's version may be asked for in its home; host_device.h gives functions nvcc's attributes, nothing else changes.
    const bool fine = line.find("_VERSION") != std::string::npos ||
                      (path == "include/graft/host_device.h" && line == "#if defined(__CUDACC__)");
    if (!path.starts_with("tests/") && std::regex_search(line, backend_switch) && !fine) found.push_back(at + "backends are chosen by linking, not by " + line);
  }
  if (number > kMostLines) found.push_back(path + ": " + std::to_string(number) + " lines, at most " + std::to_string(kMostLines));
  return found;
}

struct SourceFile {
  std::string path, text;
};

std::vector<SourceFile> source_files() {
  namespace fs = std::filesystem;
  std::vector<SourceFile> files;
  const fs::path root = GRAFT_SOURCE_DIR;
  for (fs::recursive_directory_iterator it(root), end; it != end; ++it) {
    const std::string name = it->path().filename().string();
    if (it->is_directory() && (name.starts_with(".") || name.starts_with("build") || name == "out" || name == "runs")) {
      it.disable_recursion_pending();
      continue;
    }
    const std::string extension = it->path().extension().string();
    if (extension != ".h" && extension != ".cc" && extension != ".cu" && extension != ".cuh") continue;
    std::ostringstream text;
    text << std::ifstream(it->path()).rdbuf();
    files.push_back({fs::relative(it->path(), root).generic_string(), text.str()});
  }
  return files;
}

TEST(Layering, EveryFileOfTheTreeKeepsTheTable) {
  const std::vector<SourceFile> files = source_files();
  ASSERT_GT(files.size(), 60u) << "the tree was not found under " << GRAFT_SOURCE_DIR;
  for (const SourceFile& file : files) {
    for (const std::string& complaint : complaints(file.path, file.text)) ADD_FAILURE() << complaint;
  }
}

TEST(Layering, EveryRuleOfTheTableIsOfUse) {
  const std::vector<SourceFile> files = source_files();
  for (const Rule& rule : rules()) {
    EXPECT_TRUE(std::any_of(files.begin(), files.end(), [&](const SourceFile& file) { return rule_of(file.path) == &rule; })) << rule.where;
  }
}

struct Case {
  std::string path, line;
  bool fine;
};

TEST(Layering, TheCheckerSeesWhatItShould) {
  const std::vector<Case> cases = {
      {"include/graft/graph.h", "#include <vector>", true},
      {"include/graft/graph.h", "#include \"graft/ops.h\"", true},
      {"include/graft/graph.h", "#include \"src/util.h\"", false},
      {"include/graft/graph.h", "#include <Eigen/Core>", false},
      {"include/graft/graph.h", "#include <hdf5.h>", false},
      {"include/graft/graph.h", "  #  include   <dnnl.hpp>", false},
      {"include/graft/graph.h", "#include <cuda_runtime.h>", false},
      {"include/graft/graph.h", "#include <gtest/gtest.h>", false},
      {"include/graft/gtest.h", "#include <gtest/gtest.h>", true},
      {"include/graft/graph.h", "#include \"vector\"", false},
      {"src/plan.cc", "#include \"kernels/cpu/kernels.h\"", false},
      {"src/plan.cc", "#include \"autodiff/rules.h\"", false},
      {"src/plan.cc", "#include <hdf5.h>", false},
      {"src/plan.cc", "#include <nlohmann/json.hpp>", false},
      {"include/graft/hf.h", "#include <nlohmann/json_fwd.hpp>", false},
      {"src/hf/json.h", "#include <nlohmann/json.hpp>", true},
      {"src/tokenizer/read_json.cc", "#include <nlohmann/json.hpp>", true},
      {"src/tokenizer/train.cc", "#include <pcre2.h>", false},
      {"src/tokenizer/pattern.cc", "#include <pcre2.h>", true},
      {"include/graft/tokenizer.h", "#include <pcre2.h>", false},
      {"src/io/hdf5.cc", "#include <hdf5.h>", true},
      {"autodiff/rules.cc", "#include \"src/infer.h\"", false},
      {"autodiff/rules.cc", "#include \"optim/settings.h\"", false},
      {"optim/optim.cc", "#include \"src/util.h\"", false},
      {"kernels/reference/matmul.cc", "#include <Eigen/Core>", true},
      {"kernels/reference/matmul.cc", "#include \"kernels/cpu/kernels.h\"", false},
      {"kernels/reference/matmul.cc", "#include \"src/op_traits.h\"", false},
      {"kernels/reference/matmul.cc", "#include <dnnl.hpp>", false},
      {"kernels/cpu/matmul.cc", "#include \"kernels/reference/kernels.h\"", true},
      {"kernels/cpu/matmul.cc", "#include <Eigen/Core>", false},
      {"kernels/cpu/matmul.cc", "#include <dnnl.hpp>", false},
      {"kernels/cpu/gemm_onednn.cc", "#include <dnnl.hpp>", true},
      {"kernels/cuda/gemm_cublaslt.cc", "#include <cublasLt.h>", true},
      {"kernels/cuda/norm.cu", "#include <cublasLt.h>", false},
      {"kernels/cuda/norm.cu", "#include <cuda_bf16.h>", true},
      {"kernels/cuda/norm.cu", "#include <Eigen/Core>", false},
      {"examples/train.cc", "#include \"graft/graft.h\"", true},
      {"examples/train.cc", "#include \"src/util.h\"", false},
      {"lost/file.cc", "int x;", false},
      {"src/backend.cc", "#ifdef GRAFT_HAS_CUDA", false},
      {"src/backend.cc", "#if defined(__CUDACC__)", false},
      {"src/backend.cc", "#elif defined(USE_ONEDNN)", false},
      {"kernels/cpu/gemm_onednn.cc", "#if DNNL_VERSION_MAJOR >= 3", true},
      {"kernels/cpu/vec.h", "#if defined(__AVX512F__)", true},
      {"tests/allocations.cc", "#if defined(GRAFT_SANITIZED)", true},
      {"include/graft/host_device.h", "#if defined(__CUDACC__)", true},
      {"src/plan.cc", "// #include <hdf5.h> is for src/io", true},
  };
  for (const Case& c : cases) EXPECT_EQ(complaints(c.path, c.line).empty(), c.fine) << c.path << ": " << c.line;
}

TEST(Layering, LongFilesAreRefused) {
  std::string text;
  for (int line = 0; line < kMostLines; ++line) text += "int x;\n";
  EXPECT_TRUE(complaints("src/plan.cc", text).empty());
  EXPECT_EQ(complaints("src/plan.cc", text + "int y;\n").size(), 1u);
}

TEST(Layering, ComplaintsNameFileLineAndHeader) {
  EXPECT_EQ(complaints("src/plan.cc", "\n#include <hdf5.h>\n"), std::vector<std::string>{"src/plan.cc:2: may not include hdf5.h"});
}

}  // namespace
