#include <algorithm>
#include <cmath>
#include <type_traits>

#include "graft/graph.h"
#include "kernels/cpu/map.h"
#include "kernels/cpu/sums.h"
#include "kernels/cpu/views.h"
#include "kernels/updates.h"

// Outputs are the states among the inputs: they are written there, also when nothing reads the output.
namespace graft::cpu {
namespace {

float scalar(const Step& step, std::size_t i) { return *input(step, i); }
float* state(const Step& step, std::size_t i) { return step.in[i].as<float>(); }

/// Elements of a parameter that are one task.
constexpr std::int64_t kUpdateGrain = 32768;

template <class T>
concept Update = std::is_same_v<T, SgdUpdate> || std::is_same_v<T, AdamUpdate> || std::is_same_v<T, LionUpdate>;

void update(const SgdUpdate& op, const Step& step, std::int64_t begin, std::int64_t end) {
  float *p = state(step, 0), *m = state(step, 2);
  const float *grad = input(step, 1), rate = scalar(step, 3) * static_cast<float>(op.lr_scale), scale = scalar(step, 4);
  if (!std::isfinite(scale)) return;
  const float momentum = static_cast<float>(op.momentum), decay = static_cast<float>(op.weight_decay);
  for_each_vector(begin, end, [&](std::int64_t, const auto& get, const auto& put) {
    const Vec g = scale * get(grad) + decay * get(p), moment = momentum * get(m) + g;
    put(m, moment);
    put(p, get(p) - rate * (op.nesterov ? g + momentum * moment : moment));
  });
}

void update(const AdamUpdate& op, const Step& step, std::int64_t begin, std::int64_t end) {
  float *p = state(step, 0), *m = state(step, 2), *v = state(step, 3);
  const double t = static_cast<double>(*step.in[4].as<const std::uint32_t>()) + 1.0;
  const float *grad = input(step, 1), rate = scalar(step, 5) * static_cast<float>(op.lr_scale), scale = scalar(step, 6);
  if (!std::isfinite(scale)) return;
  const float beta1 = static_cast<float>(op.beta1), rest1 = static_cast<float>(1.0 - op.beta1);
  const float beta2 = static_cast<float>(op.beta2), rest2 = static_cast<float>(1.0 - op.beta2);
  const float correction1 = static_cast<float>(1.0 / (1.0 - std::pow(op.beta1, t)));
  const float correction2 = static_cast<float>(1.0 / (1.0 - std::pow(op.beta2, t)));
  const float eps = static_cast<float>(op.eps), decay = static_cast<float>(op.weight_decay);
  const float decay_g = op.decoupled ? 0.0f : decay, decay_p = op.decoupled ? decay : 0.0f;
  for_each_vector(begin, end, [&](std::int64_t, const auto& get, const auto& put) {
    const Vec x = get(p), g = scale * get(grad) + decay_g * x;
    const Vec first = beta1 * get(m) + rest1 * g, second = beta2 * get(v) + rest2 * g * g;
    put(m, first);
    put(v, second);
    put(p, x - rate * (decay_p * x + first * correction1 / (sqrt(second * correction2) + eps)));
  });
}

void update(const LionUpdate& op, const Step& step, std::int64_t begin, std::int64_t end) {
  float *p = state(step, 0), *m = state(step, 2);
  const float *grad = input(step, 1), rate = scalar(step, 3) * static_cast<float>(op.lr_scale), scale = scalar(step, 4);
  if (!std::isfinite(scale)) return;
  const float beta1 = static_cast<float>(op.beta1), rest1 = static_cast<float>(1.0 - op.beta1);
  const float beta2 = static_cast<float>(op.beta2), rest2 = static_cast<float>(1.0 - op.beta2),
              decay = static_cast<float>(op.weight_decay);
  for_each_vector(begin, end, [&](std::int64_t, const auto& get, const auto& put) {
    const Vec x = get(p), g = scale * get(grad), mix = beta1 * get(m) + rest1 * g;
    const Vec sign = mix > 0.0f ? broadcast(1.0f) : mix < 0.0f ? broadcast(-1.0f) : Vec{};
    put(m, beta2 * get(m) + rest2 * g);
    put(p, x - rate * (decay * x + sign));
  });
}

bool is_update(const Step& step) {
  return std::visit([]<class T>(const T&) { return Update<T>; }, step.node->op) && is_f32(step);
}

std::int64_t grains(const Step& step) { return (step.in[0].size() + kUpdateGrain - 1) / kUpdateGrain; }

template <Update T>
void run_update(const T& op, const Step& step, Context& context) {
  if (!is_f32(step)) return reference::run(op, step);
  run_updates({&step, 1}, context);
}

}  // namespace

void run(const GlobalNorm& op, const Step& step, Context& context) {
  if (!is_f32(step)) return reference::run(op, step);
  if (!step.out[0]) return;
  // Pieces of all tensors are the tasks of one loop; their sums are added in order.
  double* partial = static_cast<double*>(step.workspace);
  std::int64_t pieces = 0;
  for (const TensorView& x : step.in) pieces += sum_pieces(x.size());
  parallel_near(context.threads, pieces, [&](std::int64_t task, int) {
    std::size_t i = 0;
    std::int64_t piece = task;
    for (; piece >= sum_pieces(step.in[i].size()); ++i) piece -= sum_pieces(step.in[i].size());
    const std::int64_t begin = piece * kSumPiece, size = std::min(kSumPiece, step.in[i].size() - begin);
    partial[task] = sum_of(step.in[i].as<const float>() + begin, size, [](DoubleVec v) { return v * v; });
  });
  double squares = 0.0;
  for (std::int64_t task = 0; task < pieces; ++task) squares += partial[task];
  *output(step) = static_cast<float>(std::sqrt(squares));
}

std::size_t workspace(const GlobalNorm&, const Graph& graph, const Node& node, int) {
  std::int64_t pieces = 0;
  for (Value x : node.inputs) pieces += sum_pieces(graph.shape(x).size());
  return static_cast<std::size_t>(pieces) * sizeof(double);
}

std::size_t run_updates(std::span<const Step> steps, Context& context) {
  const auto updates = static_cast<std::size_t>(std::find_if_not(steps.begin(), steps.end(), is_update) - steps.begin());
  const std::size_t count = detail::independent_updates(steps.first(updates));
  std::int64_t tasks = 0, elements = 0;
  for (const Step& step : steps.first(count)) {
    tasks += grains(step);
    elements += step.in[0].size();
  }
  parallel_near(elements < kElementGrain ? Threads() : context.threads, tasks, [&](std::int64_t task, int) {
    std::size_t i = 0;
    for (; task >= grains(steps[i]); ++i) task -= grains(steps[i]);
    const Step& step = steps[i];
    const std::int64_t begin = task * kUpdateGrain, end = std::min(step.in[0].size(), begin + kUpdateGrain);
    std::visit(
        [&]<class T>(const T& op) {
          if constexpr (Update<T>) update(op, step, begin, end);
        },
        step.node->op);
  });
  return count;
}

void run(const SgdUpdate& op, const Step& step, Context& context) { run_update(op, step, context); }
void run(const AdamUpdate& op, const Step& step, Context& context) { run_update(op, step, context); }
void run(const LionUpdate& op, const Step& step, Context& context) { run_update(op, step, context); }

}  // namespace graft::cpu
