#include "examples/support/training.h"

#include <unistd.h>

#include <chrono>
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

Schedule schedule_of(const TrainingSettings& run) {
  Schedule schedule;
  schedule.kind = run.schedule == "constant" ? Schedule::Kind::constant
                  : run.schedule == "linear" ? Schedule::Kind::linear
                  : run.schedule == "cosine" ? Schedule::Kind::cosine
                                             : Schedule::Kind::wsd;
  schedule.base = run.lr;
  schedule.min = run.min_lr;
  schedule.total = run.steps;
  schedule.warmup = run.warmup;
  schedule.decay = run.schedule == "wsd" ? (run.steps - run.warmup) / 5 : 0;
  return schedule;
}

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

void optimize(Graph& graph, const Gradients& gradients, Value loss, const TrainingSettings& run) {
  optim::UpdateOptions options;
  options.schedule = schedule_of(run);
  options.clip_norm = run.clip;
  options.loss = loss;
  if (run.optimizer == "adamw") optim::adamw(graph, gradients, {run.beta1, run.beta2, 1e-8, run.weight_decay}, options);
  if (run.optimizer == "adam") optim::adam(graph, gradients, {run.beta1, run.beta2, 1e-8, run.weight_decay}, options);
  if (run.optimizer == "lion") optim::lion(graph, gradients, {run.beta1, run.beta2, run.weight_decay}, options);
  if (run.optimizer == "sgd") optim::sgd(graph, gradients, {run.beta1, run.weight_decay, false}, options);
}

/// The graph in the precision that the run was asked for.
Graph in_precision(const Graph& graph, const TrainingSettings& run) { return run.dtype == "bf16" ? passes::mixed_precision(graph) : graph; }

/// Forward and loss of a batch of windows: outputs "loss" and "counted".
Graph loss_graph(const TrainingSettings& run, const Trainee& trainee, std::int64_t batch, Reduction reduction, bool train) {
  Graph graph(static_cast<std::uint64_t>(run.seed));
  const Value inputs = graph.input_u32("inputs", {batch * run.context}), labels = graph.input_u32("labels", {batch * run.context});
  const CrossEntropyResult loss = graph.cross_entropy_with(trainee.logits(graph, inputs, run.context, train), labels, {.reduction = reduction});
  graph.output("loss", loss.loss);
  graph.output("counted", loss.counted);
  return trainee.pass ? trainee.pass(graph, train) : graph;
}

Graph training_graph(const TrainingSettings& run, const Trainee& trainee) {
  const bool whole = run.accumulate == 1;
  Graph graph = loss_graph(run, trainee, run.batch, whole ? Reduction::mean : Reduction::sum, true);
  const Value loss = graph.outputs().at("loss");
  const Gradients gradients = differentiate(graph, loss);
  if (whole)
    optimize(graph, gradients, loss, run);
  else
    optim::accumulate(graph, gradients, loss, graph.outputs().at("counted"));
  return in_precision(graph, run);
}

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
  Saves(CheckpointFolder& folder, Progress& progress, std::int64_t resumed_at) : folder_(folder), progress_(progress), last_(resumed_at) {}

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
    return last_ > 0 ? "the last checkpoint is of step " + std::to_string(last_) + " in \"" + folder_.path().string() + "\"" : "there is no checkpoint yet";
  }

 private:
  CheckpointFolder& folder_;
  Progress& progress_;
  std::int64_t last_, begun_ = -1;
};

}  // namespace

Trainer::Trainer(const TrainingSettings& run, const Trainee& trainee, Backend& backend, bool keep_all)
    : accumulate_(run.accumulate), micro_graph_(training_graph(run, trainee)), micro_(micro_graph_, backend, {.keep_all = keep_all}),
      inputs_(static_cast<std::size_t>(run.batch * run.context)), labels_(inputs_.size()) {
  if (accumulate_ == 1) return;
  const Graph update = optim::accumulated_update(
      micro_graph_, [&](Graph& g, const Gradients& gradients, Value loss) { optimize(g, gradients, loss, run); });
  update_ = std::make_unique<Session>(update, micro_);
}

void Trainer::step(WindowDataset& data, Profile* profile) {
  for (std::int64_t i = 0; i < accumulate_; ++i) {
    data.next_batch(inputs_, labels_);
    micro_.write("inputs", inputs_);
    micro_.write("labels", labels_);
    if (profile != nullptr && i + 1 == accumulate_)
      *profile = micro_.profile();
    else
      micro_.step();
  }
  if (update_) update_->step();
}

Validation::Validation(const TrainingSettings& run, const Trainee& trainee, const WindowDataset& data, Session& owner)
    : data_(data), context_(run.context), batch_(std::min(run.batch, data.validation_windows())),
      session_(in_precision(loss_graph(run, trainee, batch_, Reduction::sum, false), run), owner) {}

double Validation::loss(std::int64_t windows) {
  const std::int64_t all = data_.validation_windows(), count = std::min(windows, all);
  std::vector<std::uint32_t> inputs(static_cast<std::size_t>(batch_ * context_)), labels(inputs.size());
  double sum = 0.0, counted = 0.0;
  for (std::int64_t done = 0; done < count; done += batch_) {
    std::fill(labels.begin(), labels.end(), kIgnoreIndex);
    for (std::int64_t i = 0; i < std::min(batch_, count - done); ++i) {
      const auto at = static_cast<std::size_t>(i * context_), length = static_cast<std::size_t>(context_);
      data_.validation_window((done + i) * all / count, std::span(inputs).subspan(at, length), std::span(labels).subspan(at, length));
    }
    session_.write("inputs", inputs);
    session_.write("labels", labels);
    session_.step();
    sum += session_.scalar("loss");
    counted += session_.scalar("counted");
  }
  return sum / counted;
}

std::int64_t resume(const Checkpoint& checkpoint, Trainer& trainer, WindowDataset& data) {
  trainer.session().restore(checkpoint);
  const SavedTensor& position = checkpoint.at("data/train");
  std::vector<std::uint32_t> values(position.bytes.size() / sizeof(std::uint32_t));
  std::memcpy(values.data(), position.bytes.data(), position.bytes.size());
  data.seek(std::span(values).first(2));
  return values.at(2);
}

void print_run(const TrainingSettings& run, const LoopOptions& options, Trainer& trainer, std::int64_t resumed_at) {
  std::printf("training   %lld steps of %lld tokens, %s, %s, %s\n", static_cast<long long>(run.steps), static_cast<long long>(run.batch * run.context * run.accumulate),
              run.dtype.c_str(), run.optimizer.c_str(), optim::to_string(schedule_of(run)).c_str());
  std::printf("backend    %s, %.0f MB\n", trainer.forward().backend().description().c_str(), static_cast<double>(trainer.forward().memory_report().total) / 1e6);
  std::printf("output     %s%s\n", options.out.string().c_str(), resumed_at > 0 ? (", resumed after step " + std::to_string(resumed_at)).c_str() : "");
}

LoopResult train_loop(const TrainingSettings& run, const LoopOptions& options, Trainer& trainer, Validation& validation, WindowDataset& data,
                      const std::string& config, const std::string& unit, std::int64_t first) {
  CheckpointFolder checkpoints(options.out, options.keep);
  MetricsLog metrics(options.out / "metrics.csv",
                     {"step", "loss", "validation_loss", "learning_rate", "gradient_norm", "tokens_per_second", "seconds", "skipped"}, first);
  const std::int64_t tokens_per_step = run.batch * run.context * run.accumulate;
  const double nan = std::numeric_limits<double>::quiet_NaN();
  Progress progress(isatty(STDOUT_FILENO) != 0);
  double best = std::numeric_limits<double>::infinity(), validation_loss = nan, pause = 0.0;
  for (const auto& row : metrics.rows())
    if (!std::isnan(row[2])) best = std::min(best, validation_loss = row[2]);
  auto skipped = static_cast<std::int64_t>(trainer.session().scalar("optimizer/skipped"));
  std::int64_t skipped_in_a_row = 0;
  bool metrics_fail = false;
  Saves saves(checkpoints, progress, first);
  const double seconds_before = metrics.rows().empty() ? 0.0 : metrics.rows().back()[6];
  const auto start = Clock::now();
  const std::int64_t last = options.stop_at > 0 ? std::min(options.stop_at, run.steps) : run.steps;

  const auto snapshot = [&](std::int64_t step) {
    Checkpoint checkpoint = trainer.session().snapshot();
    checkpoint.step = step;
    checkpoint.config = config;
    checkpoint.schedule = optim::to_string(schedule_of(run));
    std::vector<std::uint32_t> position = data.position();
    position.push_back(static_cast<std::uint32_t>(step));
    const auto bytes = std::as_bytes(std::span(position));
    checkpoint.tensors.push_back({"data/train", {DType::u32, {static_cast<std::int64_t>(position.size())}}, {bytes.begin(), bytes.end()}});
    return checkpoint;
  };

  std::int64_t step = first;
  while (step < last && !interrupted) {
    Profile profile;
    const bool profiled = (options.profile || !options.trace.empty()) && step == std::min(first + 9, last - 1);
    trainer.step(data, profiled ? &profile : nullptr);
    ++step;
    if (profiled && options.profile) progress.line(profile.to_string(measure_ceilings(trainer.forward().backend())), true);
    if (profiled && !options.trace.empty()) profile.write_trace(options.trace);
    Session& session = trainer.session();
    const double loss = session.scalar("loss");
    const auto skipped_now = static_cast<std::int64_t>(session.scalar("optimizer/skipped"));
    if (skipped_now > skipped) {
      skipped = skipped_now;
      std::string line = "step " + std::to_string(step) + ": loss or gradient is not finite, the update was skipped (" + std::to_string(skipped) + " so far)";
      if (options.name_nonfinite) line += ", first in \"" + trainer.forward().first_nonfinite() + "\"";
      progress.line(line, true);
      if (++skipped_in_a_row == 100) {
        saves.settle();
        throw Error("training: 100 updates in a row were skipped, " + saves.last());
      }
    } else {
      skipped_in_a_row = 0;
    }

    const bool evaluate = step % options.eval_every == 0 || step == run.steps;
    if (evaluate) {
      const auto begin = Clock::now();
      validation_loss = validation.loss(step == run.steps ? data.validation_windows() : options.eval_windows);
      best = std::min(best, validation_loss);
      pause += seconds_since(begin);
    }
    const double training = seconds_since(start) - pause, rate = static_cast<double>((step - first) * tokens_per_step) / training;
    try {
      metrics.append({static_cast<double>(step), loss, evaluate ? validation_loss : nan, session.scalar("learning_rate"), session.scalar("gradient_norm"), rate,
                      seconds_before + seconds_since(start), static_cast<double>(skipped)});
      metrics_fail = false;
    } catch (const Error& error) {
      if (!std::exchange(metrics_fail, true)) progress.line("step " + std::to_string(step) + ": training goes on without its row: " + error.what(), true);
    }
    char line[200];
    const int width = static_cast<int>(std::to_string(run.steps).size());
    const double left = seconds_since(start) / static_cast<double>(step - first) * static_cast<double>(last - step);
    std::snprintf(line, sizeof line, "step %*lld/%lld  loss %.4f  validation %s  %s tokens/s  %s left", width, static_cast<long long>(step),
                  static_cast<long long>(run.steps), loss, loss_text(validation_loss).c_str(), grouped(std::llround(rate)).c_str(), clock_text(left).c_str());
    progress.line(line, evaluate || step == last);
    if (evaluate || step % options.save_every == 0) {
      const auto begin = Clock::now();
      saves.begin(snapshot(step), validation_loss);
      pause += seconds_since(begin);
    }
    saves.look();
  }
  saves.finish(snapshot(step), validation_loss);

  Series loss{"training", {}, "#9ecae1", false, true}, smooth{"training, smoothed", {}, "#1f77b4"}, validated{"validation", {}, "#d62728", true};
  for (const auto& row : metrics.rows()) {
    loss.xy.emplace_back(row[0], row[1]);
    if (!std::isnan(row[2])) validated.xy.emplace_back(row[0], row[2]);
  }
  smooth.xy = smoothed(loss.xy);
  loss.name.clear();
  write_chart_svg(options.out / "loss.svg", "Loss (nats a " + unit + ")", "step", "cross-entropy", {loss, smooth, validated});

  const LoopResult result = {step, best, validation_loss, seconds_before + seconds_since(start)};
  if (interrupted || step < run.steps) {
    std::printf("\nstopped after step %lld, saved; go on with: --resume %s\n", static_cast<long long>(step), options.out.string().c_str());
  } else {
    std::printf("\nbest validation loss %.4f, last %.4f, %s; checkpoints, metrics.csv and loss.svg are in %s\n", best, validation_loss,
                clock_text(result.seconds).c_str(), options.out.string().c_str());
  }
  return result;
}
