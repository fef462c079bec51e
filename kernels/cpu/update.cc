#include <cmath>

#include "graft/graph.h"
#include "kernels/cpu/map.h"
#include "kernels/cpu/sums.h"
#include "kernels/cpu/views.h"

// Outputs are the states among the inputs: they are written there, also when nothing reads the output.
namespace graft::cpu {
namespace {

float scalar(const Step& step, std::size_t i) { return *input(step, i); }
float* state(const Step& step, std::size_t i) { return step.in[i].as<float>(); }

/// Calls f(get, put) for each vector of the parameter, unless the scale is not finite.
template <class F>
void update(const Step& step, const Context& context, float scale, const F& f) {
  if (!std::isfinite(scale)) return;
  parallel_ranges(context.threads, step.in[0].size(), kElementGrain, [&](std::int64_t begin, std::int64_t end) {
    for_each_vector(begin, end, [&](std::int64_t, const auto& get, const auto& put) { f(get, put); });
  });
}

}  // namespace

void run(const GlobalNorm& op, const Step& step, Context& context) {
  if (!is_f32(step)) return reference::run(op, step);
  if (!step.out[0]) return;
  double* partial = static_cast<double*>(step.workspace);
  double squares = 0.0;
  for (const TensorView& x : step.in) {
    const std::int64_t pieces = sum_pieces(x.size());
    parallel_tasks(context.threads, pieces, [&](std::int64_t piece, int) {
      const std::int64_t begin = piece * kSumPiece;
      partial[piece] =
          sum_of(x.as<const float>() + begin, std::min(kSumPiece, x.size() - begin), [](DoubleVec v) { return v * v; });
    });
    for (std::int64_t piece = 0; piece < pieces; ++piece) squares += partial[piece];
  }
  *output(step) = static_cast<float>(std::sqrt(squares));
}

std::size_t workspace(const GlobalNorm&, const Graph& graph, const Node& node, int) {
  std::int64_t pieces = 0;
  for (Value x : node.inputs) pieces = std::max(pieces, sum_pieces(graph.shape(x).size()));
  return static_cast<std::size_t>(pieces) * sizeof(double);
}

void run(const SgdUpdate& op, const Step& step, Context& context) {
  if (!is_f32(step)) return reference::run(op, step);
  float *p = state(step, 0), *m = state(step, 2);
  const float *grad = input(step, 1), rate = scalar(step, 3) * static_cast<float>(op.lr_scale), scale = scalar(step, 4);
  const float momentum = static_cast<float>(op.momentum), decay = static_cast<float>(op.weight_decay);
  update(step, context, scale, [&](const auto& get, const auto& put) {
    const Vec g = scale * get(grad) + decay * get(p), moment = momentum * get(m) + g;
    put(m, moment);
    put(p, get(p) - rate * (op.nesterov ? g + momentum * moment : moment));
  });
}

void run(const AdamUpdate& op, const Step& step, Context& context) {
  if (!is_f32(step)) return reference::run(op, step);
  float *p = state(step, 0), *m = state(step, 2), *v = state(step, 3);
  const double t = static_cast<double>(*step.in[4].as<const std::uint32_t>()) + 1.0;
  const float *grad = input(step, 1), rate = scalar(step, 5) * static_cast<float>(op.lr_scale), scale = scalar(step, 6);
  const float beta1 = static_cast<float>(op.beta1), rest1 = static_cast<float>(1.0 - op.beta1);
  const float beta2 = static_cast<float>(op.beta2), rest2 = static_cast<float>(1.0 - op.beta2);
  const float correction1 = static_cast<float>(1.0 / (1.0 - std::pow(op.beta1, t)));
  const float correction2 = static_cast<float>(1.0 / (1.0 - std::pow(op.beta2, t)));
  const float eps = static_cast<float>(op.eps), decay = static_cast<float>(op.weight_decay);
  const float decay_g = op.decoupled ? 0.0f : decay, decay_p = op.decoupled ? decay : 0.0f;
  update(step, context, scale, [&](const auto& get, const auto& put) {
    const Vec x = get(p), g = scale * get(grad) + decay_g * x;
    const Vec first = beta1 * get(m) + rest1 * g, second = beta2 * get(v) + rest2 * g * g;
    put(m, first);
    put(v, second);
    put(p, x - rate * (decay_p * x + first * correction1 / (sqrt(second * correction2) + eps)));
  });
}

void run(const LionUpdate& op, const Step& step, Context& context) {
  if (!is_f32(step)) return reference::run(op, step);
  float *p = state(step, 0), *m = state(step, 2);
  const float *grad = input(step, 1), rate = scalar(step, 3) * static_cast<float>(op.lr_scale), scale = scalar(step, 4);
  const float beta1 = static_cast<float>(op.beta1), rest1 = static_cast<float>(1.0 - op.beta1);
  const float beta2 = static_cast<float>(op.beta2), rest2 = static_cast<float>(1.0 - op.beta2),
              decay = static_cast<float>(op.weight_decay);
  update(step, context, scale, [&](const auto& get, const auto& put) {
    const Vec x = get(p), g = scale * get(grad), mix = beta1 * get(m) + rest1 * g;
    const Vec sign = mix > 0.0f ? broadcast(1.0f) : mix < 0.0f ? broadcast(-1.0f) : Vec{};
    put(m, beta2 * get(m) + rest2 * g);
    put(p, x - rate * (decay * x + sign));
  });
}

}  // namespace graft::cpu
