#include <cmath>

#include "kernels/cpu/map.h"
#include "kernels/cpu/row_lse.h"
#include "kernels/cpu/views.h"

namespace graft::cpu {

void run(const Softmax& op, const Step& step, Context& context) {
  if (!is_f32(step)) return reference::run(op, step);
  if (!step.out[0]) return;
  const std::int64_t cols = step.in[0].cols();
  for_each_row(context.threads, step.in[0].rows(), cols, [&](std::int64_t row) {
    const float* x = input(step, 0) + row * cols;
    float* out = output(step) + row * cols;
    const float top = row_max(x, cols);
    const float inverse = 1.0f / row_exp(x, cols, top, [&](const auto& put, Vec e) { put(out, e); });
    for_each_vector(0, cols, [&](std::int64_t, const auto& get, const auto& put) { put(out, get(out) * inverse); });
  });
}

void run(const SoftmaxGrad& op, const Step& step, Context& context) {
  if (!is_f32(step)) return reference::run(op, step);
  if (!step.out[0]) return;
  const std::int64_t cols = step.in[0].cols();
  for_each_row(context.threads, step.in[0].rows(), cols, [&](std::int64_t row) {
    const float *out = input(step, 0) + row * cols, *dout = input(step, 1) + row * cols;
    float* dx = output(step) + row * cols;
    Vec total{};
    for_each_vector(0, cols, [&](std::int64_t, const auto& get, const auto&) { total = fma(get(out), get(dout), total); });
    const float dot = sum(total);
    for_each_vector(0, cols, [&](std::int64_t, const auto& get, const auto& put) { put(dx, get(out) * (get(dout) - dot)); });
  });
}

void run(const LogSoftmax& op, const Step& step, Context& context) {
  if (!is_f32(step)) return reference::run(op, step);
  if (!step.out[0]) return;
  const std::int64_t cols = step.in[0].cols();
  for_each_row(context.threads, step.in[0].rows(), cols, [&](std::int64_t row) {
    const float* x = input(step, 0) + row * cols;
    float* out = output(step) + row * cols;
    const float top = row_max(x, cols), log_sum = std::log(row_exp(x, cols, top, [](const auto&, Vec) {}));
    for_each_vector(0, cols, [&](std::int64_t, const auto& get, const auto& put) { put(out, get(x) - top - log_sum); });
  });
}

void run(const LogSoftmaxGrad& op, const Step& step, Context& context) {
  if (!is_f32(step)) return reference::run(op, step);
  if (!step.out[0]) return;
  const std::int64_t cols = step.in[0].cols();
  for_each_row(context.threads, step.in[0].rows(), cols, [&](std::int64_t row) {
    const float *out = input(step, 0) + row * cols, *dout = input(step, 1) + row * cols;
    float* dx = output(step) + row * cols;
    Vec total{};
    for_each_vector(0, cols, [&](std::int64_t, const auto& get, const auto&) { total += get(dout); });
    const float all = sum(total);
    for_each_vector(0, cols, [&](std::int64_t, const auto& get, const auto& put) { put(dx, get(dout) - exp(get(out)) * all); });
  });
}

}  // namespace graft::cpu
