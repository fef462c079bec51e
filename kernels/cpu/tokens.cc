#include <cmath>
#include <cstring>

#include "graft/graph.h"
#include "kernels/cpu/map.h"
#include "kernels/cpu/row_lse.h"
#include "kernels/cpu/sums.h"
#include "kernels/cpu/views.h"

namespace graft::cpu {

void run(const Embedding& op, const Step& step, Context& context) {
  if (!is_f32(step)) return reference::run(op, step);
  if (!step.out[0]) return;
  const std::uint32_t* ids = step.in[1].as<const std::uint32_t>();
  const std::int64_t cols = step.out[0].cols();
  for_each_row(context.threads, step.out[0].rows(), cols,
               [&](std::int64_t i) { std::copy_n(input(step, 0) + ids[i] * cols, cols, output(step) + i * cols); });
}

void run(const EmbeddingGrad& op, const Step& step, Context& context) {
  if (!is_f32(step)) return reference::run(op, step);
  if (!step.out[0]) return;
  const std::uint32_t* ids = step.in[0].as<const std::uint32_t>();
  const float* dout = input(step, 1);
  float* dtable = output(step);
  const std::int64_t rows = step.in[1].rows(), cols = step.in[1].cols(), block = 4 * kLanes;
  const float* addend = step.in.size() > 2 ? input(step, 2) : nullptr;
  parallel_ranges(context.threads, addend == dtable ? 0 : step.out[0].size(), kElementGrain, [&](std::int64_t begin, std::int64_t end) {
    if (addend == nullptr)
      std::fill(dtable + begin, dtable + end, 0.0f);
    else
      std::copy(addend + begin, addend + end, dtable + begin);
  });
  // A block of columns is one thread's, which takes the rows in order.
  parallel_tasks(rows * cols < kElementGrain ? Threads() : context.threads, (cols + block - 1) / block, [&](std::int64_t task, int) {
    const std::int64_t first = task * block, width = std::min(block, cols - first);
    for (std::int64_t i = 0; i < rows; ++i) add_row(dtable + ids[i] * cols + first, dout + i * cols + first, width);
  });
}

void run(const CrossEntropy& op, const Step& step, Context& context) {
  if (!is_f32(step)) return reference::run(op, step);
  const std::int64_t rows = step.in[0].rows(), cols = step.in[0].cols();
  const std::uint32_t* labels = step.in[1].as<const std::uint32_t>();
  double* losses = static_cast<double*>(step.workspace);
  for_each_row(context.threads, rows, cols, [&](std::int64_t i) {
    const float* x = input(step, 0) + i * cols;
    const float top = row_max(x, cols);
    const double log_sum = std::log(static_cast<double>(row_exp(x, cols, top, [](const auto&, Vec) {})));
    if (step.out[1]) output(step, 1)[i] = static_cast<float>(top + log_sum);
    losses[i] = 0.0;
    if (labels[i] == op.ignore_index) return;
    // Relative to the maximum: lse and x[label] may be large and close.
    losses[i] = log_sum - (1.0 - op.label_smoothing) * static_cast<double>(x[labels[i]] - top);
    if (op.label_smoothing == 0.0) return;
    losses[i] -= op.label_smoothing / static_cast<double>(cols) *
                 sum_of(x, cols, [top](DoubleVec v) { return v - static_cast<double>(top); });
  });
  double loss = 0.0;
  std::int64_t counted = 0;
  for (std::int64_t i = 0; i < rows; ++i) {
    loss += losses[i];
    counted += labels[i] != op.ignore_index;
  }
  if (op.reduction == Reduction::mean && counted > 0) loss /= static_cast<double>(counted);
  if (step.out[0]) *output(step, 0) = static_cast<float>(loss);
  if (step.out[2]) *output(step, 2) = static_cast<float>(counted);
}

std::size_t workspace(const CrossEntropy&, const Graph& graph, const Node& node, int) {
  return static_cast<std::size_t>(graph.shape(node.inputs[0]).rows()) * sizeof(double);
}

void run(const CrossEntropyGrad& op, const Step& step, Context& context) {
  if (!is_f32(step)) return reference::run(op, step);
  if (!step.out[0]) return;
  const std::int64_t cols = step.in[0].cols();
  const std::uint32_t* labels = step.in[1].as<const std::uint32_t>();
  const float counted = *input(step, 3), dloss = *input(step, 4);
  const float scale = op.loss.reduction == Reduction::mean ? dloss / counted : dloss;
  const float smoothing = static_cast<float>(op.loss.label_smoothing), everywhere = smoothing / static_cast<float>(cols);
  for_each_row(context.threads, step.in[0].rows(), cols, [&](std::int64_t i) {
    const float* x = input(step, 0) + i * cols;
    float* dx = output(step) + i * cols;
    if (labels[i] == op.loss.ignore_index) {
      std::fill_n(dx, cols, 0.0f);
      return;
    }
    const float lse = input(step, 2)[i];
    for_each_vector(0, cols,
                    [&](std::int64_t, const auto& get, const auto& put) { put(dx, scale * (exp(get(x) - lse) - everywhere)); });
    dx[labels[i]] -= scale * (1.0f - smoothing);
  });
}

}  // namespace graft::cpu
