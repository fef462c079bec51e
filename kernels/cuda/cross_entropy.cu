#include <algorithm>
#include <cmath>

#include "graft/graph.h"
#include "kernels/cuda/map.cuh"

namespace graft::cuda {
namespace {

// ---- rows of logits, a block each

/// Logits of f32; `stride` elements from row to row, the first one aligned to 16 bytes.
struct Logits {
  float* data;
  std::int64_t rows, cols, stride;
  __device__ const float* row() const { return data + blockIdx.x * stride; }
};

LaunchShape shape_of(const Logits& logits) {
  const std::int64_t threads = std::clamp<std::int64_t>((logits.cols / 8 + kWarp - 1) / kWarp * kWarp, kWarp, 512);
  return {dim3(static_cast<unsigned>(logits.rows)), dim3(static_cast<unsigned>(threads))};
}

/// Calls four(j) for elements j to j + 3 of the block's row where element j is aligned to 16 bytes, and one(j) for those before and behind these.
template <class One, class Four>
__device__ __forceinline__ void for_row(const Logits& logits, const One& one, const Four& four) {
  const std::int64_t above = (4 - blockIdx.x * logits.stride % 4) % 4, head = above < logits.cols ? above : logits.cols, fours = (logits.cols - head) / 4;
  if (threadIdx.x < head) one(threadIdx.x);
  for (std::int64_t i = threadIdx.x; i < fours; i += blockDim.x) four(head + 4 * i);
  if (const std::int64_t rest = head + 4 * fours + threadIdx.x; rest < logits.cols) one(rest);
}

/// A thread's part of a row, or the whole: the maximum, Σ exp(x − maximum) and Σ (x − pivot).
struct RowSums {
  float pivot, top = -INFINITY, sum = 0.0f, offsets = 0.0f;

  __device__ void raise(float x) {
    if (!(x > top)) return;
    sum *= expf(top - x);
    top = x;
  }
  __device__ void add(float x) {
    sum += expf(x - (top > -INFINITY ? top : 0.0f));
    offsets += x - pivot;
  }
  /// Called by all threads of a block; each gets the row's.
  __device__ void join() {
    const float own = top;
    top = block_max(own);
    sum = block_sum(sum * expf(own - top));
    offsets = block_sum(offsets);
  }
};

/// The rows' lse, if wanted, and losses: 0 for those that are ignored. Reads the logits once.
__global__ void row_loss_kernel(CrossEntropy op, Logits logits, const std::uint32_t* labels, float* lse, double* losses) {
  const float* x = logits.row();
  RowSums sums = {x[0]};
  for_row(
      logits,
      [&](std::int64_t j) {
        sums.raise(x[j]);
        sums.add(x[j]);
      },
      [&](std::int64_t j) {
        const auto four = load_pack<4>(x + j);
        sums.raise(fmaxf(fmaxf(four.at[0], four.at[1]), fmaxf(four.at[2], four.at[3])));
#pragma unroll
        for (int e = 0; e < 4; ++e) sums.add(four.at[e]);
      });
  sums.join();
  if (threadIdx.x != 0) return;
  const double top = sums.top, log_sum = log(static_cast<double>(sums.sum));
  if (lse != nullptr) lse[blockIdx.x] = static_cast<float>(top + log_sum);
  double loss = 0.0;
  if (const std::uint32_t label = labels[blockIdx.x]; label != op.ignore_index) {
    // Relative to the maximum: lse and x[label] may be large and close.
    loss = log_sum - (1.0 - op.label_smoothing) * (x[label] - top);
    if (op.label_smoothing != 0.0) loss -= op.label_smoothing * (static_cast<double>(sums.offsets) / static_cast<double>(logits.cols) + (sums.pivot - top));
  }
  losses[blockIdx.x] = loss;
}

/// The loss and the number of counted rows from the rows' losses, each if wanted. One block of kMapThreads.
__global__ void loss_kernel(CrossEntropy op, std::int64_t rows, const std::uint32_t* labels, const double* losses, float* loss, float* counted) {
  double* sums = shared_array<double, kMapThreads>();
  std::uint32_t* counts = shared_array<std::uint32_t, kMapThreads>();
  double sum = 0.0;
  std::uint32_t count = 0;
  for (std::int64_t i = threadIdx.x; i < rows; i += kMapThreads) {
    sum += losses[i];
    count += labels[i] != op.ignore_index;
  }
  sums[threadIdx.x] = sum;
  counts[threadIdx.x] = count;
  for (unsigned half = kMapThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x >= half) continue;
    sums[threadIdx.x] += sums[threadIdx.x + half];
    counts[threadIdx.x] += counts[threadIdx.x + half];
  }
  if (threadIdx.x != 0) return;
  if (counted != nullptr) *counted = static_cast<float>(counts[0]);
  if (loss != nullptr) *loss = static_cast<float>(op.reduction == Reduction::mean && counts[0] > 0 ? sums[0] / counts[0] : sums[0]);
}

/// Rows of dlogits: what loss they are of, and the forward pass's statistics.
struct LossGrad {
  CrossEntropy op;
  const std::uint32_t* labels;
  const float *lse, *counted, *dloss;
};

/// dlogits, with the logits' stride, may be the logits. Reads and writes each element once.
template <class T>
__global__ void logits_grad_kernel(LossGrad grad, Logits logits, T* dlogits) {
  const float* x = logits.row();
  T* dx = dlogits + blockIdx.x * logits.stride;
  const std::uint32_t label = grad.labels[blockIdx.x];
  if (label == grad.op.ignore_index) {
    for_row(
        logits, [&](std::int64_t j) { dx[j] = from_float<T>(0.0f); }, [&](std::int64_t j) { store_pack(dx + j, Pack<T, 4>{}); });
    return;
  }
  const float scale = grad.op.reduction == Reduction::mean ? *grad.dloss / *grad.counted : *grad.dloss, lse = grad.lse[blockIdx.x];
  const float smoothing = static_cast<float>(grad.op.label_smoothing), everywhere = smoothing / static_cast<float>(logits.cols);
  const auto gradient = [&](float logit, std::int64_t j) {
    return from_float<T>(scale * (expf(logit - lse) - everywhere - (j == label ? 1.0f - smoothing : 0.0f)));
  };
  for_row(
      logits, [&](std::int64_t j) { dx[j] = gradient(x[j], j); },
      [&](std::int64_t j) {
        const auto four = load_pack<4>(x + j);
        Pack<T, 4> result;
#pragma unroll
        for (int e = 0; e < 4; ++e) result.at[e] = gradient(four.at[e], j + e);
        store_pack(dx + j, result);
      });
}

Logits logits_of(const TensorView& logits) { return {logits.as<float>(), logits.rows(), logits.cols(), logits.cols()}; }

/// Outputs 0 and 2.
void put_loss(const CrossEntropy& op, const Step& step, std::int64_t rows, const std::uint32_t* labels, const double* losses, const Context& context) {
  if (!step.out[0] && !step.out[2]) return;
  launch(loss_kernel, LaunchShape{dim3(1), dim3(kMapThreads)}, context.stream, op, rows, labels, losses, step.out[0].as<float>(), step.out[2].as<float>());
}

// ---- logits made some rows at a time

/// How the logits of LinearCrossEntropy are cut into chunks of rows, and where they lie in the workspace: by shape alone.
struct LogitChunks {
  std::int64_t rows, hidden, classes, step, stride;

  LogitChunks(const LinearCrossEntropy& op, const Shape& x, const Shape& weight)
      : rows(x.rows()), hidden(x.cols()), classes(weight[!op.transpose_weight]), step(std::min(rows, Gemm::rows_at_once(classes))), stride((classes + 7) / 8 * 8) {}

  /// Bytes for an array, so that the next one is as aligned as the workspace.
  static std::size_t bytes(std::int64_t count, std::size_t size) { return (static_cast<std::size_t>(count) * size + 255) / 256 * 256; }
  std::size_t product_bytes() const { return (Gemm::workspace_bytes() + 255) / 256 * 256; }
  std::size_t losses_bytes() const { return bytes(rows, sizeof(double)); }
  std::size_t logits_bytes() const { return bytes(step * stride, sizeof(float)); }
  std::size_t rounded_bytes(DType dtype) const { return dtype == DType::bf16 ? bytes(step * stride, sizeof(bf16)) : 0; }

  Logits logits(void* data, std::int64_t count) const { return {static_cast<float*>(data), count, classes, stride}; }

  /// Calls body(first, count) for each chunk.
  template <class Body>
  void for_each(const Body& body) const {
    for (std::int64_t first = 0; first < rows; first += step) body(first, std::min(step, rows - first));
  }
};

/// A matrix of a product: `stride` elements from row to row.
struct Operand {
  const void* data;
  std::int64_t stride;
  bool transpose = false;
};

struct Multiply {
  const Context& context;
  void* workspace;
  DType in;

  /// c [m, n] = a·b, or c += a·b; a·b sums over k.
  void operator()(std::int64_t m, std::int64_t n, std::int64_t k, Operand a, Operand b, void* c, std::int64_t stride, DType out, bool add = false) const {
    GemmCall call;
    call.m = m;
    call.n = n;
    call.k = k;
    call.transpose_a = a.transpose;
    call.transpose_b = b.transpose;
    call.in = in;
    call.out = out;
    call.a = a.data;
    call.b = b.data;
    call.c = c;
    call.lda = a.stride;
    call.ldb = b.stride;
    call.ldc = stride;
    call.addend = add ? c : nullptr;
    call.workspace = workspace;
    (*context.gemm)(call);
  }
};

/// Row `first` of a tensor.
void* row_of(const TensorView& tensor, std::int64_t first) {
  return static_cast<std::byte*>(tensor.data) + first * tensor.cols() * static_cast<std::int64_t>(size_of(tensor.type.dtype));
}

}  // namespace

void run(const CrossEntropy& op, const Step& step, Context& context) {
  const Logits logits = logits_of(step.in[0]);
  const auto* labels = step.in[1].as<const std::uint32_t>();
  auto* losses = static_cast<double*>(step.workspace);
  launch(row_loss_kernel, shape_of(logits), context.stream, op, logits, labels, step.out[1].as<float>(), losses);
  put_loss(op, step, logits.rows, labels, losses, context);
}

std::size_t workspace(const CrossEntropy&, const Graph& graph, const Node& node) {
  return static_cast<std::size_t>(graph.shape(node.inputs[0]).rows()) * sizeof(double);
}

void run(const CrossEntropyGrad& op, const Step& step, Context& context) {
  if (!step.out[0]) return;
  const Logits logits = logits_of(step.in[0]);
  const LossGrad grad = {op.loss, step.in[1].as<const std::uint32_t>(), step.in[2].as<const float>(), step.in[3].as<const float>(), step.in[4].as<const float>()};
  with_float_type(step.out[0].type.dtype,
                  [&]<class T>() { launch(logits_grad_kernel<T>, shape_of(logits), context.stream, grad, logits, step.out[0].as<T>()); });
}

void run(const LinearCrossEntropy& op, const Step& step, Context& context) {
  const TensorView &x = step.in[0], &weight = step.in[1];
  const LogitChunks chunks(op, x.type.shape, weight.type.shape);
  const auto* labels = step.in[2].as<const std::uint32_t>();
  auto* space = static_cast<std::byte*>(step.workspace);
  const Multiply multiply = {context, space, x.type.dtype};
  auto* losses = reinterpret_cast<double*>(space + chunks.product_bytes());
  void* const logits = space + chunks.product_bytes() + chunks.losses_bytes();
  chunks.for_each([&](std::int64_t first, std::int64_t count) {
    multiply(count, chunks.classes, chunks.hidden, {row_of(x, first), chunks.hidden}, {weight.data, weight.cols(), op.transpose_weight}, logits, chunks.stride,
             DType::f32);
    const Logits here = chunks.logits(logits, count);
    launch(row_loss_kernel, shape_of(here), context.stream, op.loss, here, labels + first, step.out[1] ? step.out[1].as<float>() + first : nullptr,
           losses + first);
  });
  put_loss(op.loss, step, chunks.rows, labels, losses, context);
}

std::size_t workspace(const LinearCrossEntropy& op, const Graph& graph, const Node& node) {
  const LogitChunks chunks(op, graph.shape(node.inputs[0]), graph.shape(node.inputs[1]));
  return chunks.product_bytes() + chunks.losses_bytes() + chunks.logits_bytes();
}

/// Of bf16 operands the chunk's dlogits are rounded, so that they can be operands too; else they take the place of its logits.
void run(const LinearCrossEntropyGrad& op, const Step& step, Context& context) {
  if (!step.out[0] && !step.out[1]) return;
  const TensorView &x = step.in[0], &weight = step.in[1];
  const bool transposed = op.linear.transpose_weight;
  const LogitChunks chunks(op.linear, x.type.shape, weight.type.shape);
  const std::int64_t hidden = chunks.hidden, classes = chunks.classes, stride = chunks.stride;
  const DType dtype = x.type.dtype;
  auto* space = static_cast<std::byte*>(step.workspace);
  const Multiply multiply = {context, space, dtype};
  void* const logits = space + chunks.product_bytes();
  void* const dlogits = dtype == DType::bf16 ? space + chunks.product_bytes() + chunks.logits_bytes() : logits;
  chunks.for_each([&](std::int64_t first, std::int64_t count) {
    const Operand rows = {row_of(x, first), hidden}, w = {weight.data, weight.cols(), transposed};
    multiply(count, classes, hidden, rows, w, logits, stride, DType::f32);
    const Logits here = chunks.logits(logits, count);
    const LossGrad grad = {op.linear.loss, step.in[2].as<const std::uint32_t>() + first, step.in[3].as<const float>() + first, step.in[4].as<const float>(),
                           step.in[5].as<const float>()};
    with_float_type(dtype, [&]<class T>() { launch(logits_grad_kernel<T>, shape_of(here), context.stream, grad, here, static_cast<T*>(dlogits)); });
    if (step.out[0]) multiply(count, hidden, classes, {dlogits, stride}, {w.data, w.stride, !transposed}, row_of(step.out[0], first), hidden, dtype);
    if (!step.out[1]) return;
    const bool add = first > 0;
    if (transposed)
      multiply(classes, hidden, count, {dlogits, stride, true}, rows, step.out[1].data, hidden, DType::f32, add);
    else
      multiply(hidden, classes, count, {rows.data, hidden, true}, {dlogits, stride}, step.out[1].data, classes, DType::f32, add);
  });
}

std::size_t workspace(const LinearCrossEntropyGrad& op, const Graph& graph, const Node& node) {
  const LogitChunks chunks(op.linear, graph.shape(node.inputs[0]), graph.shape(node.inputs[1]));
  return chunks.product_bytes() + chunks.logits_bytes() + chunks.rounded_bytes(graph.type(node.inputs[0]).dtype);
}

}  // namespace graft::cuda
