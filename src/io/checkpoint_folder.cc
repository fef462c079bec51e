#include <fcntl.h>
#include <sys/file.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <future>
#include <optional>
#include <system_error>

#include "graft/checkpoint.h"
#include "src/io/atomic_file.h"
#include "src/io/checkpoint_layout.h"
#include "src/io/descriptor.h"
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

struct CheckpointFolder::State {
  detail::Descriptor lock;
  std::future<void> save;  // its destructor waits
};

CheckpointFolder::CheckpointFolder(std::filesystem::path folder, int keep_last)
    : folder_(std::move(folder)), keep_last_(keep_last), state_(std::make_unique<State>()) {
  const std::string named = "checkpoint folder \"" + folder_.string() + "\": ";
  if (keep_last < 1) throw Error(named + "must keep at least 1 checkpoint, got " + std::to_string(keep_last));
  std::error_code error;
  std::filesystem::create_directories(folder_, error);
  if (error) throw Error(named + "cannot create: " + error.message());
  // Two runs in one folder would take each other's checkpoints for their own. A file system without locks cannot tell.
  state_->lock = detail::Descriptor(::open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (::flock(state_->lock.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
    throw Error(named + "another process saves to it");
  detail::remove_stale_temporaries(folder_);
  detail::AtomicFile probe(folder_ / kBest);  // never committed: proves that the folder can be written to
  if (!best().empty()) best_metric_ = read_checkpoint(folder_ / kBest).metric;
}

CheckpointFolder::~CheckpointFolder() = default;

std::filesystem::path CheckpointFolder::save(const Checkpoint& checkpoint, double metric) {
  flush();
  return write(checkpoint, metric);
}

void CheckpointFolder::save_async(Checkpoint checkpoint, double metric) {
  flush();
  state_->save = std::async(std::launch::async, [this, metric, saved = std::move(checkpoint)] { write(saved, metric); });
}

bool CheckpointFolder::saving() const {
  return state_->save.valid() && state_->save.wait_for(std::chrono::seconds(0)) != std::future_status::ready;
}

void CheckpointFolder::flush() {
  if (state_->save.valid()) state_->save.get();
}

std::filesystem::path CheckpointFolder::write(const Checkpoint& checkpoint, double metric) {
  if (checkpoint.step < 0) {
    throw Error("checkpoint folder \"" + folder_.string() + "\": cannot save step " + std::to_string(checkpoint.step));
  }
  const std::filesystem::path file = folder_ / step_name(checkpoint.step);
  detail::AtomicFile out(file);
  detail::write_checkpoint(out, checkpoint, metric);
  if (metric < best_metric_ || (std::isnan(best_metric_) && !std::isnan(metric))) {
    // Before the step has its name: a run killed in between does that step again, and finds its best in place.
    const std::filesystem::path best = folder_ / kBest;
    if (!out.link_as(best)) {
      detail::AtomicFile copy(best);
      detail::write_checkpoint(copy, checkpoint, metric);
      copy.commit();
    }
    best_metric_ = metric;
  }
  out.commit();

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
