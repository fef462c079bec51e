#include "examples/support/training.h"

#include "graft/graft.h"

using namespace graft;

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

void optimize(Graph& graph, const Gradients& gradients, Value loss, const TrainingSettings& run, bool watch) {
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
Graph in_precision(const Graph& graph, const TrainingSettings& run) {
  return run.dtype == "bf16" ? passes::mixed_precision(graph) : graph;
}

/// Forward and loss of a batch of windows: outputs "loss" and "counted".
Graph loss_graph(const TrainingSettings& run, const Trainee& trainee, std::int64_t batch, Reduction reduction, bool train) {
  Graph graph(static_cast<std::uint64_t>(run.seed));
  const Value inputs = graph.input_u32("inputs", {batch * run.context}), labels = graph.input_u32("labels", {batch * run.context});
  const CrossEntropyResult loss =
      graph.cross_entropy_with(trainee.logits(graph, inputs, run.context, train), labels, {.reduction = reduction});
  graph.output("loss", loss.loss);
  graph.output("counted", loss.counted);
  return trainee.pass ? trainee.pass(graph, train) : graph;
}

/// Made ready to run: sums fused, in the run's precision, the values of a step within the budget, if there is one.
Graph training_graph(const TrainingSettings& run, const Trainee& trainee, const LoopOptions& options) {
  const bool whole = run.accumulate == 1;
  Graph graph = loss_graph(run, trainee, run.batch, whole ? Reduction::mean : Reduction::sum, true);
  const Value loss = graph.outputs().at("loss");
  const Gradients gradients = differentiate(graph, loss);
  if (whole)
    optimize(graph, gradients, loss, run, options.log_layers > 0);
  else
    optim::accumulate(graph, gradients, loss, graph.outputs().at("counted"));
  Graph made = in_precision(passes::fuse(graph), run);
  return options.memory_budget > 0.0
             ? passes::recompute(made, {.budget_bytes = static_cast<std::size_t>(options.memory_budget * 1024 * 1024)})
             : made;
}

}  // namespace

Trainer::Trainer(const TrainingSettings& run, const Trainee& trainee, Backend& backend, const LoopOptions& options)
    : accumulate_(run.accumulate),
      micro_graph_(training_graph(run, trainee, options)),
      micro_(micro_graph_, backend, {.keep_all = options.name_nonfinite}),
      inputs_(static_cast<std::size_t>(run.batch * run.context)),
      labels_(inputs_.size()) {
  if (accumulate_ == 1) return;
  const Graph update = optim::accumulated_update(micro_graph_, [&](Graph& g, const Gradients& gradients, Value loss) {
    optimize(g, gradients, loss, run, options.log_layers > 0);
  });
  update_ = std::make_unique<Session>(update, micro_);
}

void Trainer::prepare(WindowDataset& data) {
  before_ = data.position();
  data.next_batch(inputs_, labels_);
  micro_.write("inputs", inputs_);
  micro_.write("labels", labels_);
  prepared_ = true;
}

void Trainer::step(WindowDataset& data, Profile* profile) {
  for (std::int64_t i = 0; i < accumulate_; ++i) {
    if (!prepared_) prepare(data);
    prepared_ = false;
    if (profile != nullptr && i + 1 == accumulate_)
      *profile = micro_.profile();
    else
      micro_.step();
  }
  if (update_) update_->step();
}

Validation::Validation(const TrainingSettings& run, const Trainee& trainee, const WindowDataset& data, Session& owner)
    : data_(data),
      context_(run.context),
      batch_(std::min(run.batch, data.validation_windows())),
      session_(in_precision(loss_graph(run, trainee, batch_, Reduction::sum, false), run), owner) {}

double Validation::loss(std::int64_t windows) {
  const std::int64_t all = data_.validation_windows(), count = std::min(windows, all);
  std::vector<std::uint32_t> inputs(static_cast<std::size_t>(batch_ * context_)), labels(inputs.size());
  double sum = 0.0, counted = 0.0;
  for (std::int64_t done = 0; done < count; done += batch_) {
    std::fill(labels.begin(), labels.end(), kIgnoreIndex);
    for (std::int64_t i = 0; i < std::min(batch_, count - done); ++i) {
      const auto at = static_cast<std::size_t>(i * context_), length = static_cast<std::size_t>(context_);
      data_.validation_window((done + i) * all / count, std::span(inputs).subspan(at, length),
                              std::span(labels).subspan(at, length));
    }
    session_.write("inputs", inputs);
    session_.write("labels", labels);
    session_.step();
    sum += session_.scalar("loss");
    counted += session_.scalar("counted");
  }
  return sum / counted;
}
