// Trains a Llama-style decoder on a text: the whole of graft in one program. `train --help` lists the options.
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <limits>
#include <utility>

#include "examples/support/files.h"
#include "examples/support/train_options.h"
#include "examples/support/watching.h"
#include "graft/graft.h"

namespace {

using namespace graft;
using Clock = std::chrono::steady_clock;

volatile std::sig_atomic_t interrupted = 0;  // by the signal that asks for an end
void interrupt(int signal) { interrupted = signal; }

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

std::uint64_t hash_of(std::string_view text) {
  std::uint64_t h = 0xcbf29ce484222325u;  // FNV-1a
  for (char c : text) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return h;
}

/// What is trained on: a text, or a file of tokens.
struct Material {
  std::string name, description;  ///< for messages
  std::uint64_t hash = 0;
  std::string text;
  std::unique_ptr<TokenFile> file;
};

/// Opens it; a run without a tokenizer gets the vocabulary of its bytes.
Material material_of(RunConfig& run) {
  Material made;
  if (!run.tokens.empty()) {
    made.name = "--tokens \"" + run.tokens + "\"";
    made.file = std::make_unique<TokenFile>(run.tokens);
    made.hash = made.file->hash();
    run.tokenizer = made.file->tokenizer_json();
    made.description = run.tokens + ": " + grouped(static_cast<long long>(made.file->tokens().size())) + " tokens";
  } else {
    made.name = "--text \"" + run.text + "\"";
    made.text = gather_text(run.text);
    made.hash = hash_of(made.text);
    made.description = run.text + ": " + grouped(static_cast<long long>(made.text.size())) + " bytes";
  }
  if (run.tokenizer.empty()) {
    run.vocabulary.clear();
    const ByteVocabulary bytes = ByteVocabulary::of(made.text);
    for (char byte : bytes.bytes()) run.vocabulary.push_back(static_cast<unsigned char>(byte));
  } else {
    run.vocab_size = tokenizer_of(run).vocab_size();
  }
  if (made.file && made.file->vocab_size() != run.vocab_size) throw Error(made.name + ": has ids below " + std::to_string(made.file->vocab_size()) + ", but a tokenizer of " + std::to_string(run.vocab_size));
  return made;
}

Schedule schedule_of(const RunConfig& run) {
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

void optimize(Graph& graph, const Gradients& gradients, Value loss, const RunConfig& run, bool watch) {
  if (watch) report::watch_gradients(graph, gradients);
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
Graph in_precision(const Graph& graph, const RunConfig& run) { return run.dtype == "bf16" ? passes::mixed_precision(graph) : graph; }

/// A training graph made ready to run: the values of a step in `budget` MiB, if that is above 0.
Graph ready(const Graph& graph, const RunConfig& run, double budget) {
  Graph made = in_precision(passes::fuse(graph), run);
  return budget > 0.0 ? passes::recompute(made, {.budget_bytes = static_cast<std::size_t>(budget * 1024 * 1024)}) : made;
}

/// Forward and loss of a batch of windows; with `train`, dropout.
struct LanguageModel {
  CrossEntropyResult loss;
  LanguageModel(Graph& graph, nn::LlamaConfig config, std::int64_t rows, std::int64_t context, Reduction reduction, bool train) {
    if (!train) config.dropout = 0.0;
    const nn::Llama model(graph, config);
    const Value inputs = graph.input_u32("inputs", {rows}), labels = graph.input_u32("labels", {rows});
    loss = graph.cross_entropy_with(model.forward(graph, inputs, Segments::uniform(context)), labels, {.reduction = reduction});
    graph.output("loss", loss.loss);
    graph.output("counted", loss.counted);
  }
};

/// Mean loss over validation windows, evenly spread when there are more than `windows`.
class Validation {
 public:
  Validation(const RunConfig& run, const WindowDataset& data, Session& owner)
      : data_(data), context_(run.context), batch_(std::min(run.batch, data.validation_windows())), session_(graph(run, batch_), owner) {}

  double loss(std::int64_t windows) {
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

 private:
  static Graph graph(const RunConfig& run, std::int64_t batch) {
    Graph graph(static_cast<std::uint64_t>(run.seed));
    LanguageModel(graph, model_of(run), batch * run.context, run.context, Reduction::sum, false);
    return in_precision(graph, run);
  }
  const WindowDataset& data_;
  std::int64_t context_, batch_;
  Session session_;
};

/// The training step: one graph, or a micro-batch graph run `accumulate` times and the graph of the update.
class Trainer {
 public:
  Trainer(const RunConfig& run, Backend& backend, bool keep_all, bool watch, double memory_budget)
      : accumulate_(run.accumulate), watch_(watch), micro_graph_(graph(run, memory_budget)), micro_(micro_graph_, backend, {.keep_all = keep_all}),
        inputs_(static_cast<std::size_t>(run.batch * run.context)), labels_(inputs_.size()) {
    if (accumulate_ == 1) return;
    const Graph update = optim::accumulated_update(
        micro_graph_, [&](Graph& g, const Gradients& gradients, Value loss) { optimize(g, gradients, loss, run, watch); });
    update_ = std::make_unique<Session>(update, micro_);
  }

  /// With `profile`, times the nodes of the last micro-batch.
  void step(WindowDataset& data, Profile* profile) {
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
  /// The session that holds weights, moments and results.
  Session& session() { return update_ ? *update_ : micro_; }
  Session& forward() { return micro_; }

 private:
  Graph graph(const RunConfig& run, double memory_budget) const {
    Graph graph(static_cast<std::uint64_t>(run.seed));
    const bool whole = run.accumulate == 1;
    const LanguageModel model(graph, model_of(run), run.batch * run.context, run.context, whole ? Reduction::mean : Reduction::sum, true);
    const Gradients gradients = differentiate(graph, model.loss.loss);
    if (whole)
      optimize(graph, gradients, model.loss.loss, run, watch_);
    else
      optim::accumulate(graph, gradients, model.loss.loss, model.loss.counted);
    return ready(graph, run, memory_budget);
  }
  std::int64_t accumulate_;
  bool watch_;
  Graph micro_graph_;
  Session micro_;
  std::unique_ptr<Session> update_;
  std::vector<std::uint32_t> inputs_, labels_;
};

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

int run_training(TrainOptions& options, const std::optional<Checkpoint>& resumed) {
  RunConfig& run = options.run;
  const Material material = material_of(run);
  if (resumed && material.hash != run.text_hash)
    throw Error(material.name + ": is not the text that the checkpoint was trained on, so training cannot go on with it");
  run.text_hash = material.hash;
  const Tokenizer tokenizer = tokenizer_of(run);
  WindowDataset data = material.file ? WindowDataset(material.file->tokens(), run.context, run.validation, static_cast<std::uint64_t>(run.seed))
                                     : WindowDataset(tokenizer.encode(material.text), run.context, run.validation, static_cast<std::uint64_t>(run.seed));

  const std::unique_ptr<Backend> backend = make_backend(options.device, options.threads);
  Trainer trainer(run, *backend, options.name_nonfinite, options.log_layers > 0, options.memory_budget);
  Validation validation(run, data, trainer.forward());
  CheckpointFolder checkpoints(options.out, options.keep);
  std::int64_t first = 0;
  if (resumed) {
    trainer.session().restore(*resumed);
    const SavedTensor& position = resumed->at("data/train");
    std::vector<std::uint32_t> values(position.bytes.size() / sizeof(std::uint32_t));
    std::memcpy(values.data(), position.bytes.data(), position.bytes.size());
    first = values.at(2);
    data.seek(std::span(values).first(2));
  }
  MetricsLog metrics(options.out / "metrics.csv",
                     {"step", "loss", "validation_loss", "learning_rate", "gradient_norm", "tokens_per_second", "seconds", "skipped"}, first);
  Watching watching(options, trainer.session(), trainer.forward(), first);

  const nn::LlamaConfig model = model_of(run);
  std::int64_t weights = 0;
  for (Value p : trainer.session().graph().parameters()) weights += trainer.session().graph().shape(p).size();
  const std::int64_t tokens_per_step = run.batch * run.context * run.accumulate;
  std::printf("text       %s, %lld different; %s to train on, %s to validate\n", material.description.c_str(), static_cast<long long>(tokenizer.vocab_size()), grouped(static_cast<long long>(data.training_tokens().size())).c_str(),
              grouped(static_cast<long long>(data.validation_tokens().size())).c_str());
  std::printf("model      %s parameters: %lld layers, hidden %lld, heads %lld/%lld, intermediate %lld, context %lld\n", grouped(weights).c_str(),
              static_cast<long long>(model.num_layers), static_cast<long long>(model.hidden_size), static_cast<long long>(model.num_heads),
              static_cast<long long>(model.num_kv_heads), static_cast<long long>(model.intermediate_size), static_cast<long long>(run.context));
  std::printf("training   %lld steps of %lld tokens, %s, %s, %s\n", static_cast<long long>(run.steps), static_cast<long long>(tokens_per_step), run.dtype.c_str(), run.optimizer.c_str(),
              optim::to_string(schedule_of(run)).c_str());
  std::printf("backend    %s, %.0f MB\n", backend->description().c_str(), static_cast<double>(trainer.forward().memory_report().total) / 1e6);
  std::printf("output     %s%s\n", options.out.string().c_str(), resumed ? (", resumed after step " + std::to_string(first)).c_str() : "");

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
    checkpoint.config = nlohmann::json(run).dump();
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
    const bool profiled = (options.profile || options.pictures || !options.trace.empty()) && step == std::min(first + 9, last - 1);
    watching.before_step(step);
    trainer.step(data, profiled ? &profile : nullptr);
    ++step;
    if (profiled && options.profile) progress.line(profile.to_string(measure_ceilings(*backend)), true);
    try {
      if (profiled && !options.trace.empty()) profile.write_trace(options.trace);
      if (profiled) watching.draw(&profile);
    } catch (const Error& error) {
      progress.line("step " + std::to_string(step) + ": training goes on without its pictures: " + error.what(), true);
    }
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
      watching.after_step(step, metrics.columns(), metrics.rows().back());
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
  write_chart_svg(options.out / "loss.svg", run.tokenizer.empty() ? "Loss (nats a byte)" : "Loss (nats a token)", "step", "cross-entropy", {loss, smooth, validated});
  watching.finish();
  if (options.pictures) {
    const TokenView held_out = data.validation_tokens();
    std::vector<std::uint32_t> ids(std::min<std::size_t>({48, static_cast<std::size_t>(run.context), held_out.size()}));
    held_out.copy(0, ids);
    std::vector<std::string> shown;
    for (const std::uint32_t& token : ids) shown.push_back(tokenizer.decode(std::span(&token, 1)));
    draw_attention(options.out, model, trainer.forward(), ids, shown);
  }

  if (interrupted || step < run.steps) {
    std::printf("\nstopped after step %lld, saved; go on with: --resume %s\n", static_cast<long long>(step), options.out.string().c_str());
    return interrupted ? 128 + interrupted : 0;
  }
  std::printf("\nbest validation loss %.4f, last %.4f, %s; checkpoints, metrics.csv and loss.svg are in %s\n", best, validation_loss,
              clock_text(seconds_before + seconds_since(start)).c_str(), options.out.string().c_str());
  if (options.sample > 0) {
    std::string prompt = options.prompt;
    if (prompt.empty()) {
      std::vector<std::uint32_t> first_tokens(std::min<std::size_t>(400, data.validation_tokens().size()));
      data.validation_tokens().copy(0, first_tokens);
      const std::string held_out = tokenizer.decode(first_tokens);
      const std::size_t line = held_out.find('\n');
      prompt = line == std::string::npos ? held_out.substr(0, 40) : held_out.substr(line + 1, held_out.find('\n', line + 1) - line);
    }
    if (prompt.empty()) prompt = "\n";
    Generator generator(model, trainer.forward(), {.max_seq = run.context});
    std::printf("\n--- sample ---\n%s", prompt.c_str());
    generator.generate(tokenizer.encode(prompt), options.sample, {.temperature = options.temperature, .seed = static_cast<std::uint64_t>(run.seed)},
                       [&](std::uint32_t token) {
                         const std::string bytes = tokenizer.decode(std::span(&token, 1));
                         std::fwrite(bytes.data(), 1, bytes.size(), stdout);
                         return true;
                       });
    std::printf("\n--------------\n");
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGINT, interrupt);
  std::signal(SIGTERM, interrupt);
  try {
    int exit_code = 0;
    std::optional<Checkpoint> checkpoint;
    std::optional<TrainOptions> options = parse_train_options(argc, argv, exit_code, checkpoint);
    return options ? run_training(*options, checkpoint) : exit_code;
  } catch (const Error& error) {
    std::fprintf(stderr, "train: %s\n", error.what());
    return 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "train: %s\n", error.what());
    return 3;
  }
}
