#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <optional>
#include <system_error>

#include "graft/checkpoint.h"
#include "src/io/atomic_file.h"
#include "src/io/checkpoint_layout.h"
#include "src/io/errors.h"

namespace graft {
namespace {

constexpr const char* kBest = "best.h5";

std::string step_name(std::int64_t step) {
  std::array<char, 40> name{};
  std::snprintf(name.data(), name.size(), "step-%08lld.h5", static_cast<long long>(step));
  return name.data();
}

std::optional<std::int64_t> step_of(const std::string& name) {
  constexpr std::string_view kPrefix = "step-";
  if (!name.starts_with(kPrefix)) return std::nullopt;
  std::int64_t step = -1;
  std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), step);
  if (step < 0 || step_name(step) != name) return std::nullopt;
  return step;
}

// Ascending.
std::vector<std::int64_t> steps_in(const std::filesystem::path& folder) {
  std::vector<std::int64_t> steps;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    std::error_code ignored;
    if (const auto step = step_of(entry->path().filename().string()); step && entry->is_regular_file(ignored))
      steps.push_back(*step);
  }
  if (error) throw Error("checkpoint folder \"" + folder.string() + "\": cannot list: " + error.message());
  std::sort(steps.begin(), steps.end());
  return steps;
}

}  // namespace

CheckpointFolder::CheckpointFolder(std::filesystem::path folder, int keep_last)
    : folder_(std::move(folder)), keep_last_(keep_last) {
  const std::string named = "checkpoint folder \"" + folder_.string() + "\": ";
  if (keep_last < 1) throw Error(named + "must keep at least 1 checkpoint, got " + std::to_string(keep_last));
  std::error_code error;
  std::filesystem::create_directories(folder_, error);
  if (error) throw Error(named + "cannot create: " + error.message());
  detail::remove_stale_temporaries(folder_);
  detail::AtomicFile probe(folder_ / kBest);  // never committed: proves that the folder can be written to
  if (!best().empty()) best_metric_ = read_checkpoint(folder_ / kBest).metric;
}

std::filesystem::path CheckpointFolder::save(const Checkpoint& checkpoint, double metric) {
  if (checkpoint.step < 0) {
    throw Error("checkpoint folder \"" + folder_.string() + "\": cannot save step " + std::to_string(checkpoint.step));
  }
  const std::filesystem::path file = folder_ / step_name(checkpoint.step);
  detail::write_checkpoint(file, checkpoint, metric);
  if (metric < best_metric_ || (std::isnan(best_metric_) && !std::isnan(metric))) {
    if (!detail::replace_by_link(file, folder_ / kBest)) detail::write_checkpoint(folder_ / kBest, checkpoint, metric);
    best_metric_ = metric;
  }

  std::vector<std::int64_t> older = steps_in(folder_);
  std::erase_if(older, [&](std::int64_t step) { return step >= checkpoint.step; });
  const std::size_t kept = std::min(older.size(), static_cast<std::size_t>(keep_last_ - 1));
  older.resize(older.size() - kept);
  for (const std::int64_t step : older) {
    std::error_code error;
    std::filesystem::remove(folder_ / step_name(step), error);
    if (error)
      throw Error("checkpoint folder \"" + folder_.string() + "\": cannot remove \"" + step_name(step) + "\": " + error.message());
  }
  return file;
}

std::filesystem::path latest_checkpoint(const std::filesystem::path& folder) {
  const std::vector<std::int64_t> steps = steps_in(folder);
  return steps.empty() ? std::filesystem::path() : folder / step_name(steps.back());
}

std::filesystem::path best_checkpoint(const std::filesystem::path& folder) {
  std::error_code ignored;
  return std::filesystem::exists(folder / kBest, ignored) ? folder / kBest : std::filesystem::path();
}

}  // namespace graft
