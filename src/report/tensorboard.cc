#include "graft/tensorboard.h"

#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>
#include <vector>

#include "graft/error.h"
#include "src/report/events.h"

namespace graft::report {
namespace {

double wall_time() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

/// A name that no other writer of the folder has; TensorBoard looks for "tfevents" in it, and reads files in order of name.
std::filesystem::path free_file(const std::filesystem::path& folder) {
  char host[256] = "host";
  ::gethostname(host, sizeof host - 1);
  const std::string stem =
      "events.out.tfevents." + std::to_string(static_cast<long long>(wall_time())) + "." + host + "." + std::to_string(::getpid());
  std::filesystem::path file = folder / stem;
  for (int i = 1; std::filesystem::exists(file); ++i) file = folder / (stem + "." + std::to_string(i));
  return file;
}

}  // namespace

TensorBoardLog::TensorBoardLog(const std::filesystem::path& folder, std::int64_t resume_step) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) throw Error("tensorboard folder \"" + folder.string() + "\": cannot be made: " + error.message());
  file_ = free_file(folder);
  write(detail::version_event(wall_time()));
  if (resume_step > 0) write(detail::session_start_event(wall_time(), resume_step + 1));
}

void TensorBoardLog::scalar(std::string_view tag, std::int64_t step, double value) {
  write(detail::scalar_event(wall_time(), step, tag, value));
}

void TensorBoardLog::histogram(std::string_view tag, std::int64_t step, std::span<const float> values) {
  histogram(tag, step, std::span<const double>(std::vector<double>(values.begin(), values.end())));
}

void TensorBoardLog::histogram(std::string_view tag, std::int64_t step, std::span<const double> values) {
  const std::string event = detail::histogram_event(wall_time(), step, tag, values);
  if (!event.empty()) write(event);
}

void TensorBoardLog::image(std::string_view tag, std::int64_t step, std::string_view png, std::int64_t width, std::int64_t height) {
  write(detail::image_event(wall_time(), step, tag, png, width, height));
}

void TensorBoardLog::write(std::string_view event) {
  errno = 0;
  std::ofstream out(file_, std::ios::binary | std::ios::app);
  out << detail::record(event) << std::flush;
  if (!out) throw Error("tensorboard file \"" + file_.string() + "\": cannot be written: " + std::strerror(errno));
}

}  // namespace graft::report
