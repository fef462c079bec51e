#include "examples/support/files.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <set>
#include <vector>

#include "graft/checkpoint.h"
#include "graft/data.h"
#include "graft/error.h"

namespace fs = std::filesystem;

std::string gather_text(const fs::path& path) {
  std::error_code error;
  if (!fs::exists(path, error)) throw graft::Error("text \"" + path.string() + "\": no such file or folder");
  if (!fs::is_directory(path, error)) return std::string(graft::MappedFile(path).text());
  static const std::set<std::string> kEndings{".md", ".txt", ".h", ".cc", ".cu", ".cuh", ".py"}, kSkipped{"build", "runs", "out", "golden"};
  std::vector<fs::path> files;
  for (fs::recursive_directory_iterator it(path, fs::directory_options::skip_permission_denied), end; it != end; ++it) {
    const std::string name = it->path().filename().string();
    if (it->is_directory() && (name.starts_with(".") || name.starts_with("build-") || kSkipped.contains(name))) it.disable_recursion_pending();
    if (it->is_regular_file() && kEndings.contains(it->path().extension().string())) files.push_back(it->path());
  }
  std::sort(files.begin(), files.end());
  std::string text;
  for (const fs::path& file : files) {
    std::ifstream in(file, std::ios::binary);
    text.append(std::istreambuf_iterator<char>(in), {});
    text += '\n';
  }
  if (text.empty()) throw graft::Error("text \"" + path.string() + "\": the folder holds no .md, .txt, .h, .cc, .cu, .cuh or .py file");
  return text;
}

fs::path next_run(const fs::path& runs) {
  for (int i = 1;; ++i) {
    char name[16];
    std::snprintf(name, sizeof name, "%03d", i);
    std::error_code error;
    if (!fs::exists(runs / name, error)) return runs / name;
  }
}

fs::path newest_run(const fs::path& runs) {
  fs::path newest;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(runs, error))
    if (entry.is_directory(error) && entry.path() > newest && !graft::latest_checkpoint(entry.path()).empty()) newest = entry.path();
  return newest;
}

std::string grouped(long long number) {
  std::string digits = std::to_string(number);
  for (auto at = static_cast<long>(digits.size()) - 3; at > (number < 0 ? 1 : 0); at -= 3) digits.insert(static_cast<std::size_t>(at), ",");
  return digits;
}

std::string clock_text(double seconds) {
  const auto whole = static_cast<long long>(std::llround(std::max(0.0, seconds)));
  char text[32];
  if (whole >= 3600)
    std::snprintf(text, sizeof text, "%lld:%02lld:%02lld", whole / 3600, whole / 60 % 60, whole % 60);
  else
    std::snprintf(text, sizeof text, "%lld:%02lld", whole / 60, whole % 60);
  return text;
}
