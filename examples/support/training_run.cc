#include "examples/support/training_run.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <utility>

#include "examples/support/files.h"
#include "graft/graft.h"

using namespace graft;

volatile std::sig_atomic_t interrupted = 0;

void stop_on_signals() {
  const auto stop = [](int signal) { interrupted = signal; };
  std::signal(SIGINT, stop);
  std::signal(SIGTERM, stop);
}

namespace {

using Clock = std::chrono::steady_clock;

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

std::string loss_text(double loss) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4f", loss);
  return std::isnan(loss) ? "-" : text;
}

/// A line that is rewritten in place on a terminal; in a pipe, a plain line now and then.
class Progress {
 public:
  explicit Progress(bool live) : live_(live) {}
  void line(const std::string& text, bool keep) {
    if (live_) {
      std::printf("\r\033[K%s%s", text.c_str(), keep ? "\n" : "");
    } else if (keep || seconds_since(last_) >= 5.0) {
      std::printf("%s\n", text.c_str());
      last_ = Clock::now();
    }
    std::fflush(stdout);
  }

 private:
  bool live_;
  Clock::time_point last_ = Clock::now();
};

/// The checkpoints of a run, written beside it. One that cannot be written is reported and ends nothing: those before it stand, and the next
/// save is the next try.
class Saves {
 public:
  Saves(CheckpointFolder& folder, Progress& progress, std::int64_t resumed_at)
      : folder_(folder), progress_(progress), last_(resumed_at) {}

  void begin(Checkpoint checkpoint, double metric) {
    settle();
    begun_ = checkpoint.step;
    folder_.save_async(std::move(checkpoint), metric);
  }
  /// Whether the one under way has failed shows as soon as it has ended; waits for it only in `settle`.
  void look() {
    if (!folder_.saving()) settle();
  }
  void settle() {
    if (begun_ < 0) return;
    const std::int64_t step = std::exchange(begun_, -1);
    try {
      folder_.flush();
      last_ = step;
    } catch (const std::exception& error) {
      progress_.line("step " + std::to_string(step) + ": not saved, training goes on (" + last() + "): " + error.what(), true);
    }
  }
  /// The last of the run: what goes wrong now ends it.
  void finish(Checkpoint checkpoint, double metric) {
    settle();
    if (last_ == checkpoint.step) return;
    try {
      folder_.save(checkpoint, metric);
    } catch (const std::exception& error) {
      throw Error(std::string(error.what()) + "; " + last());
    }
    last_ = checkpoint.step;
  }
  std::string last() const {
    return last_ > 0 ? "the last checkpoint is of step " + std::to_string(last_) + " in \"" + folder_.path().string() + "\""
                     : "there is no checkpoint yet";
  }

 private:
  CheckpointFolder& folder_;
  Progress& progress_;
  std::int64_t last_, begun_ = -1;
};

/// Puts trainer and data where the checkpoint was written; returns its step.
std::int64_t resume(const Checkpoint& checkpoint, Trainer& trainer, WindowDataset& data) {
  trainer.session().restore(checkpoint);
  const SavedTensor& position = checkpoint.at("data/train");
  std::vector<std::uint32_t> values(position.bytes.size() / sizeof(std::uint32_t));
  std::memcpy(values.data(), position.bytes.data(), position.bytes.size());
  data.seek(std::span(values).first(2));
  return values.at(2);
}

}  // namespace

TrainingRun::TrainingRun(const TrainingSettings& settings, const LoopOptions& options, Trainer& trainer, WindowDataset& data,
                         const std::optional<Checkpoint>& resumed)
    : settings_(settings),
      options_(options),
      trainer_(trainer),
      data_(data),
      checkpoints_(options.out, options.keep),
      resumed_(resumed.has_value()),
      first_(resumed ? resume(*resumed, trainer, data) : 0),
      step_(first_),
      metrics_(options.out / "metrics.csv",
               {"step", "loss", "validation_loss", "learning_rate", "gradient_norm", "tokens_per_second", "seconds", "skipped"},
               first_),
      watching_(options, trainer.session(), trainer.forward(), first_),
      seconds_before_(metrics_.rows().empty() ? 0.0 : metrics_.rows().back()[6]) {
  for (const auto& row : metrics_.rows())
    if (!std::isnan(row[2])) best_ = std::min(best_, validation_ = row[2]);
}

void TrainingRun::print() const {
  const std::int64_t tokens_per_step = settings_.batch * settings_.context * settings_.accumulate;
  std::printf("training   %lld steps of %lld tokens, %s, %s, %s\n", static_cast<long long>(settings_.steps),
              static_cast<long long>(tokens_per_step), settings_.dtype.c_str(), settings_.optimizer.c_str(),
              optim::to_string(schedule_of(settings_)).c_str());
  Session& session = trainer_.forward();
  std::printf("backend    %s, %.0f MB\n", session.backend().description().c_str(),
              static_cast<double>(session.memory_report().total) / 1e6);
  std::printf("output     %s%s\n", options_.out.string().c_str(),
              resumed_ ? (", resumed after step " + std::to_string(first_)).c_str() : "");
}

Checkpoint TrainingRun::snapshot(const std::string& config) const {
  Checkpoint checkpoint = trainer_.session().snapshot();
  checkpoint.step = step_;
  checkpoint.config = config;
  checkpoint.schedule = optim::to_string(schedule_of(settings_));
  std::vector<std::uint32_t> position = trainer_.position(data_);
  position.push_back(static_cast<std::uint32_t>(step_));
  const auto bytes = std::as_bytes(std::span(position));
  checkpoint.tensors.push_back(
      {"data/train", {DType::u32, {static_cast<std::int64_t>(position.size())}}, {bytes.begin(), bytes.end()}});
  return checkpoint;
}

void TrainingRun::train(Validation& validation, const std::string& config) {
  Session& session = trainer_.session();
  Progress progress(isatty(STDOUT_FILENO) != 0);
  Saves saves(checkpoints_, progress, first_);
  auto skipped = static_cast<std::int64_t>(session.scalar("optimizer/skipped"));
  std::int64_t skipped_in_a_row = 0;
  bool metrics_fail = false;
  double pause = 0.0;
  start_ = Clock::now();
  const std::int64_t tokens_per_step = settings_.batch * settings_.context * settings_.accumulate;
  const std::int64_t last = options_.stop_at > 0 ? std::min(options_.stop_at, settings_.steps) : settings_.steps;

  while (step_ < last && !interrupted) {
    Profile profile;
    const bool profiled =
        (options_.profile || options_.pictures || !options_.trace.empty()) && step_ == std::min(first_ + 9, last - 1);
    watching_.before_step(step_);
    trainer_.step(data_, profiled ? &profile : nullptr);
    ++step_;
    if (profiled && options_.profile) progress.line(profile.to_string(measure_ceilings(trainer_.forward().backend())), true);
    try {
      if (profiled && !options_.trace.empty()) profile.write_trace(options_.trace);
      if (profiled) watching_.draw(&profile);
    } catch (const Error& error) {
      progress.line("step " + std::to_string(step_) + ": training goes on without its pictures: " + error.what(), true);
    }
    if (step_ < last && !options_.name_nonfinite) trainer_.prepare(data_);
    const double loss = session.scalar("loss");
    const auto skipped_now = static_cast<std::int64_t>(session.scalar("optimizer/skipped"));
    if (skipped_now > skipped) {
      skipped = skipped_now;
      std::string line = "step " + std::to_string(step_) + ": loss or gradient is not finite, the update was skipped (" +
                         std::to_string(skipped) + " so far)";
      if (options_.name_nonfinite) line += ", first in \"" + trainer_.forward().first_nonfinite() + "\"";
      progress.line(line, true);
      if (++skipped_in_a_row == 100) {
        saves.settle();
        throw Error("training: 100 updates in a row were skipped, " + saves.last());
      }
    } else {
      skipped_in_a_row = 0;
    }

    const bool evaluate = step_ % options_.eval_every == 0 || step_ == settings_.steps;
    if (evaluate) {
      const auto begin = Clock::now();
      validation_ = validation.loss(step_ == settings_.steps ? data_.validation_windows() : options_.eval_windows);
      best_ = std::min(best_, validation_);
      pause += seconds_since(begin);
    }
    const double training = seconds_since(start_) - pause,
                 rate = static_cast<double>((step_ - first_) * tokens_per_step) / training;
    try {
      metrics_.append({static_cast<double>(step_), loss, evaluate ? validation_ : kNone, session.scalar("learning_rate"),
                       session.scalar("gradient_norm"), rate, seconds_before_ + seconds_since(start_),
                       static_cast<double>(skipped)});
      watching_.after_step(step_, metrics_.columns(), metrics_.rows().back());
      metrics_fail = false;
    } catch (const Error& error) {
      if (!std::exchange(metrics_fail, true))
        progress.line("step " + std::to_string(step_) + ": training goes on without its row: " + error.what(), true);
    }
    char line[200];
    const int width = static_cast<int>(std::to_string(settings_.steps).size());
    const double left = seconds_since(start_) / static_cast<double>(step_ - first_) * static_cast<double>(last - step_);
    std::snprintf(line, sizeof line, "step %*lld/%lld  loss %.4f  validation %s  %s tokens/s  %s left", width,
                  static_cast<long long>(step_), static_cast<long long>(settings_.steps), loss, loss_text(validation_).c_str(),
                  grouped(std::llround(rate)).c_str(), clock_text(left).c_str());
    progress.line(line, evaluate || step_ == last);
    if (evaluate || step_ % options_.save_every == 0) {
      const auto begin = Clock::now();
      saves.begin(snapshot(config), validation_);
      pause += seconds_since(begin);
    }
    saves.look();
  }
  saves.finish(snapshot(config), validation_);
}

void TrainingRun::draw(const std::string& unit, const Trainee& trainee, const Tokenizer& tokenizer) const {
  Series loss{"training", {}, "#9ecae1", false, true}, smooth{"training, smoothed", {}, "#1f77b4"},
      validated{"validation", {}, "#d62728", true};
  for (const auto& row : metrics_.rows()) {
    loss.xy.emplace_back(row[0], row[1]);
    if (!std::isnan(row[2])) validated.xy.emplace_back(row[0], row[2]);
  }
  smooth.xy = smoothed(loss.xy, std::clamp(1.0 - 30.0 / static_cast<double>(loss.xy.size()), 0.0, 0.95));  // a short run is not flattened
  loss.name.clear();
  write_chart_svg(options_.out / "loss.svg", "Loss (nats a " + unit + ")", "step", "cross-entropy", {loss, smooth, validated});
  watching_.finish();
  if (!options_.pictures) return;
  const TokenView held_out = data_.validation_tokens();
  std::vector<std::uint32_t> ids(std::min<std::size_t>({48, static_cast<std::size_t>(settings_.context), held_out.size()}));
  held_out.copy(0, ids);
  draw_attention(options_.out, trainee, trainer_.forward(), ids, tokenizer);
}

std::optional<int> TrainingRun::end() const {
  if (interrupted || step_ < settings_.steps) {
    std::printf("\nstopped after step %lld, saved; go on with: --resume %s\n", static_cast<long long>(step_),
                options_.out.string().c_str());
    return interrupted ? 128 + interrupted : 0;
  }
  std::printf("\nbest validation loss %.4f, last %.4f, %s; checkpoints, metrics.csv and loss.svg are in %s\n", best_, validation_,
              clock_text(seconds_before_ + seconds_since(start_)).c_str(), options_.out.string().c_str());
  return std::nullopt;
}
