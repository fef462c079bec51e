#include <cmath>
#include <cstring>
#include <type_traits>

#include "graft/graph.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/map.h"
#include "kernels/cpu/row_lse.h"
#include "kernels/cpu/sums.h"
#include "kernels/cpu/views.h"

namespace graft::cpu {
namespace {

/// The loss of a row of logits, 0 if it is ignored; `lse`, if it is there, gets the row's.
double row_loss(const CrossEntropy& op, const float* x, std::int64_t cols, std::uint32_t label, float* lse) {
  const float top = row_max(x, cols);
  const double log_sum = std::log(static_cast<double>(row_exp(x, cols, top, [](const auto&, Vec) {})));
  if (lse != nullptr) *lse = static_cast<float>(top + log_sum);
  if (label == op.ignore_index) return 0.0;
  // Relative to the maximum: lse and x[label] may be large and close.
  const double loss = log_sum - (1.0 - op.label_smoothing) * static_cast<double>(x[label] - top);
  if (op.label_smoothing == 0.0) return loss;
  return loss - op.label_smoothing / static_cast<double>(cols) *
                    sum_of(x, cols, [top](DoubleVec v) { return v - static_cast<double>(top); });
}

/// Outputs 0 and 2 from the rows' losses.
void put_loss(const CrossEntropy& op, const Step& step, std::int64_t rows, const std::uint32_t* labels, const double* losses) {
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

/// dx may be x.
template <class T>
void row_gradient(const CrossEntropy& op, const float* x, std::int64_t cols, std::uint32_t label, float lse, float scale, T* dx) {
  if (label == op.ignore_index) {
    std::fill_n(dx, cols, T{});
    return;
  }
  const float smoothing = static_cast<float>(op.label_smoothing), everywhere = smoothing / static_cast<float>(cols);
  const auto gradient = [&](Vec logits) { return scale * (exp(logits - lse) - everywhere); };
  const float at_label = gradient(broadcast(x[label]))[0] - scale * (1.0f - smoothing);
  for_each_vector(0, cols, [&](std::int64_t, const auto& get, const auto& put) { put(dx, gradient(get(x))); });
  put_float(dx[label], at_label);
}

float scale_of(const CrossEntropy& op, float counted, float dloss) {
  return op.reduction == Reduction::mean ? dloss / counted : dloss;
}

/// How the logits of LinearCrossEntropy are cut into chunks of rows: by shape alone.
struct LogitChunks {
  std::int64_t rows, hidden, classes, step;

  LogitChunks(const LinearCrossEntropy& op, const Shape& x, const Shape& weight)
      : rows(x.rows()), hidden(x.cols()), classes(weight[!op.transpose_weight]), step(std::min(rows, rows_held(classes))) {}
  std::size_t bytes() const { return static_cast<std::size_t>(step * classes) * sizeof(float); }
  /// A number for each row of x, and behind them the chunk begins a cache line.
  std::size_t losses() const { return static_cast<std::size_t>((rows + 7) / 8 * 8); }

  /// Calls body(first, count) for each chunk.
  template <class Body>
  void for_each(const Body& body) const {
    for (std::int64_t first = 0; first < rows; first += step) body(first, std::min(step, rows - first));
  }

 private:
  /// About 4 MB, which stay in the cache from the product to its statistics, but enough rows to be worth the weight that each chunk reads.
  static std::int64_t rows_held(std::int64_t classes) {
    constexpr std::int64_t kElements = 1 << 20, kLeast = 16;
    return std::max(kLeast, kElements / classes / kLeast * kLeast);
  }
};

template <class T>
struct Operand {
  const T* data;
  bool transpose = false;
};

/// C [m, n] = A·B, or C += A·B, which is in f32; no row of any of them has elements behind it.
template <class T, class C>
void multiply(Gemm& gemm, std::int64_t m, std::int64_t n, std::int64_t k, Operand<T> a, Operand<T> b, C* c, bool add = false) {
  GemmCall call;
  call.bf16 = std::is_same_v<T, Bf16>;
  call.bf16_out = std::is_same_v<C, Bf16>;
  call.m = m;
  call.n = n;
  call.k = k;
  call.transpose_a = a.transpose;
  call.transpose_b = b.transpose;
  call.a = a.data;
  call.b = b.data;
  call.c = c;
  call.lda = a.transpose ? m : k;
  call.ldb = b.transpose ? k : n;
  call.ldc = n;
  if constexpr (std::is_same_v<C, float>) call.addend = add ? c : nullptr;
  gemm(call);
}

template <class T>
void linear_losses(const LinearCrossEntropy& op, const Step& step, const Context& context) {
  const LogitChunks chunks(op, step.in[0].type.shape, step.in[1].type.shape);
  const std::uint32_t* labels = step.in[2].as<const std::uint32_t>();
  double* losses = static_cast<double*>(step.workspace);
  float* logits = reinterpret_cast<float*>(losses + chunks.losses());
  chunks.for_each([&](std::int64_t first, std::int64_t count) {
    multiply<T>(*context.gemm, count, chunks.classes, chunks.hidden, {input<T>(step, 0) + first * chunks.hidden},
                {input<T>(step, 1), op.transpose_weight}, logits);
    for_each_row(context.threads, count, chunks.classes, [&](std::int64_t row) {
      const std::int64_t i = first + row;
      float* lse = step.out[1] ? output(step, 1) + i : nullptr;
      losses[i] = row_loss(op.loss, logits + row * chunks.classes, chunks.classes, labels[i], lse);
    });
  });
  put_loss(op.loss, step, chunks.rows, labels, losses);
}

template <class T>
void linear_gradients(const LinearCrossEntropyGrad& op, const Step& step, const Context& context) {
  const bool transposed = op.linear.transpose_weight;
  const LogitChunks chunks(op.linear, step.in[0].type.shape, step.in[1].type.shape);
  const std::int64_t hidden = chunks.hidden, classes = chunks.classes;
  const std::uint32_t* labels = step.in[2].as<const std::uint32_t>();
  const T* weight = input<T>(step, 1);
  const float scale = scale_of(op.linear.loss, *input(step, 4), *input(step, 5));
  float* logits = static_cast<float*>(step.workspace);
  T* dlogits = reinterpret_cast<T*>(std::is_same_v<T, float> ? logits : logits + chunks.step * classes);
  chunks.for_each([&](std::int64_t first, std::int64_t count) {
    const T* x = input<T>(step, 0) + first * hidden;
    multiply<T>(*context.gemm, count, classes, hidden, {x}, {weight, transposed}, logits);
    for_each_row(context.threads, count, classes, [&](std::int64_t row) {
      row_gradient(op.linear.loss, logits + row * classes, classes, labels[first + row], input(step, 3)[first + row], scale,
                   dlogits + row * classes);
    });
    if (step.out[0])
      multiply<T>(*context.gemm, count, hidden, classes, {dlogits}, {weight, !transposed}, output<T>(step, 0) + first * hidden);
    if (!step.out[1]) return;
    const bool add = first > 0;
    if (transposed)
      multiply<T>(*context.gemm, classes, hidden, count, {dlogits, true}, {x}, output(step, 1), add);
    else
      multiply<T>(*context.gemm, hidden, classes, count, {x, true}, {dlogits}, output(step, 1), add);
  });
}

}  // namespace

bool takes_bf16(const LinearCrossEntropy&, const Context& context) { return context.gemm->takes_bf16(); }
bool takes_bf16(const LinearCrossEntropyGrad&, const Context& context) { return context.gemm->takes_bf16(); }

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
  parallel_ranges(context.threads, addend == dtable ? 0 : step.out[0].size(), kElementGrain,
                  [&](std::int64_t begin, std::int64_t end) {
                    if (addend == nullptr)
                      std::fill(dtable + begin, dtable + end, 0.0f);
                    else
                      std::copy(addend + begin, addend + end, dtable + begin);
                  });
  // A block of columns is one thread's, which takes the rows in order.
  parallel_tasks(rows * cols < kElementGrain ? Threads() : context.threads, (cols + block - 1) / block,
                 [&](std::int64_t task, int) {
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
    losses[i] = row_loss(op, input(step, 0) + i * cols, cols, labels[i], step.out[1] ? output(step, 1) + i : nullptr);
  });
  put_loss(op, step, rows, labels, losses);
}

std::size_t workspace(const CrossEntropy&, const Graph& graph, const Node& node, int) {
  return static_cast<std::size_t>(graph.shape(node.inputs[0]).rows()) * sizeof(double);
}

void run(const CrossEntropyGrad& op, const Step& step, Context& context) {
  if (is_f64(step)) return reference::run(op, step);
  if (!step.out[0]) return;
  const std::int64_t cols = step.in[0].cols();
  const std::uint32_t* labels = step.in[1].as<const std::uint32_t>();
  const float scale = scale_of(op.loss, *input(step, 3), *input(step, 4));
  with_types(
      [&]<class T>() {
        for_each_row(context.threads, step.in[0].rows(), cols, [&](std::int64_t i) {
          row_gradient(op.loss, input(step, 0) + i * cols, cols, labels[i], input(step, 2)[i], scale, output<T>(step) + i * cols);
        });
      },
      step.out[0]);
}

void run(const LinearCrossEntropy& op, const Step& step, Context& context) {
  if (is_f64(step)) return reference::run(op, step);
  with_types([&]<class T>() { linear_losses<T>(op, step, context); }, step.in[0]);
}

std::size_t workspace(const LinearCrossEntropy& op, const Graph& graph, const Node& node, int) {
  const LogitChunks chunks(op, graph.shape(node.inputs[0]), graph.shape(node.inputs[1]));
  return chunks.losses() * sizeof(double) + chunks.bytes();
}

void run(const LinearCrossEntropyGrad& op, const Step& step, Context& context) {
  if (is_f64(step)) return reference::run(op, step);
  with_types([&]<class T>() { linear_gradients<T>(op, step, context); }, step.in[0]);
}

std::size_t workspace(const LinearCrossEntropyGrad& op, const Graph& graph, const Node& node, int) {
  const TensorType& x = graph.type(node.inputs[0]);
  const std::size_t logits = LogitChunks(op.linear, x.shape, graph.shape(node.inputs[1])).bytes();
  return x.dtype == DType::bf16 ? logits + logits / 2 : logits;  // dlogits lie where the logits do, but for those in bf16
}

}  // namespace graft::cpu
