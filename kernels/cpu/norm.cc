#include <cmath>

#include "graft/graph.h"
#include "kernels/cpu/map.h"
#include "kernels/cpu/sums.h"
#include "kernels/cpu/views.h"

namespace graft::cpu {
namespace {

/// Calls row(i, sums) for each row, chunk by chunk; sums is the chunk's own part of the workspace, `width` floats that start as 0.
template <class Row>
void for_each_chunk(const Step& step, const Context& context, const RowChunks& chunks, std::int64_t width, const Row& row) {
  float* partial = static_cast<float*>(step.workspace);
  parallel_near(chunks.rows * width < kElementGrain ? Threads() : context.threads, chunks.count, [&](std::int64_t chunk, int) {
    float* sums = partial + chunk * width;
    std::fill_n(sums, width, 0.0f);
    for (std::int64_t i = chunks.begin(chunk); i < chunks.end(chunk); ++i) row(i, sums);
  });
}

/// dx[j] = f(get), added to addend[j] if there is one; dx may lie where an operand does.
template <class T, class F>
GRAFT_INLINE void put_sum(T* dx, std::int64_t cols, const T* addend, const F& f) {
  if (addend == nullptr) {
    for_each_vector(0, cols, [&](std::int64_t, const auto& get, const auto& put) { put(dx, f(get)); });
  } else {
    for_each_vector(0, cols, [&](std::int64_t, const auto& get, const auto& put) { put(dx, get(addend) + f(get)); });
  }
}

template <class X, class Out>
void forward(const RmsNorm& op, const Step& step, const Context& context) {
  const std::int64_t cols = step.in[0].cols();
  const float* weight = input(step, 1);
  for_each_row(context.threads, step.in[0].rows(), cols, [&](std::int64_t i) {
    const X* x = input<X>(step, 0) + i * cols;
    const double squares = sum_of(x, cols, [](DoubleVec v) { return v * v; });
    const float rstd = static_cast<float>(1.0 / std::sqrt(squares / static_cast<double>(cols) + op.eps));
    if (step.out[1]) output(step, 1)[i] = rstd;
    if (!step.out[0]) return;
    Out* out = output<Out>(step) + i * cols;
    for_each_vector(0, cols, [&](std::int64_t, const auto& get, const auto& put) { put(out, get(x) * rstd * get(weight)); });
  });
}

template <class X, class Dout>
void backward(const RmsNormGrad&, const Step& step, const Context& context) {
  const std::int64_t cols = step.in[0].cols();
  const float* weight = input(step, 1);
  const X* addend = step.in.size() > 4 ? input<X>(step, 4) : nullptr;
  const RowChunks chunks(step.in[0].rows());
  // With n = x·rstd and g = dout ∘ weight:  dx = rstd·(g − n·mean(g ∘ n)),  dweight = Σ_rows dout ∘ n
  for_each_chunk(step, context, chunks, cols, [&](std::int64_t i, float* dweight) {
    const X* x = input<X>(step, 0) + i * cols;
    const Dout* dout = input<Dout>(step, 3) + i * cols;
    const float rstd = input(step, 2)[i];
    Vec dot{};
    for_each_vector(0, cols, [&](std::int64_t, const auto& get, const auto& put) {
      const Vec d = get(dout), n = get(x) * rstd;
      dot = fma(d * get(weight), n, dot);
      put(dweight, fma(d, n, get(dweight)));
    });
    if (!step.out[0]) return;
    X* dx = output<X>(step) + i * cols;
    const float mean = sum(dot) / static_cast<float>(cols);
    put_sum(dx, cols, addend == nullptr ? nullptr : addend + i * cols,
            [&](const auto& get) { return rstd * (get(dout) * get(weight) - get(x) * rstd * mean); });
  });
  if (step.out[1]) sum_chunks(chunks, static_cast<const float*>(step.workspace), cols, output(step, 1));
}

template <class X, class Out>
void forward(const LayerNorm& op, const Step& step, const Context& context) {
  const std::int64_t cols = step.in[0].cols();
  const float *weight = input(step, 1), *bias = input(step, 2);
  for_each_row(context.threads, step.in[0].rows(), cols, [&](std::int64_t i) {
    const X* x = input<X>(step, 0) + i * cols;
    const double count = static_cast<double>(cols);
    const double mean = sum_of(x, cols, [](DoubleVec v) { return v; }) / count;
    const double squares = sum_of(x, cols, [&](DoubleVec v) { return (v - mean) * (v - mean); });
    const float rstd = static_cast<float>(1.0 / std::sqrt(squares / count + op.eps));
    if (step.out[1]) output(step, 1)[i] = static_cast<float>(mean);
    if (step.out[2]) output(step, 2)[i] = rstd;
    if (!step.out[0]) return;
    const float high = static_cast<float>(mean), low = static_cast<float>(mean - high);
    Out* out = output<Out>(step) + i * cols;
    for_each_vector(0, cols, [&](std::int64_t, const auto& get, const auto& put) {
      put(out, fma((get(x) - high - low) * rstd, get(weight), get(bias)));
    });
  });
}

template <class X, class Dout>
void backward(const LayerNormGrad&, const Step& step, const Context& context) {
  const std::int64_t cols = step.in[0].cols();
  const float* weight = input(step, 1);
  const X* addend = step.in.size() > 5 ? input<X>(step, 5) : nullptr;
  const RowChunks chunks(step.in[0].rows());
  // With n = (x − mean)·rstd and g = dout ∘ weight:  dx = rstd·(g − mean(g) − n·mean(g ∘ n))
  for_each_chunk(step, context, chunks, 2 * cols, [&](std::int64_t i, float* sums) {
    const X* x = input<X>(step, 0) + i * cols;
    const Dout* dout = input<Dout>(step, 4) + i * cols;
    const float mean = input(step, 2)[i], rstd = input(step, 3)[i];
    float *dweight = sums, *dbias = sums + cols;
    Vec sum_g{}, sum_gn{};
    for_each_vector(0, cols, [&](std::int64_t, const auto& get, const auto& put) {
      const Vec d = get(dout), n = (get(x) - mean) * rstd, g = d * get(weight);
      sum_g += g;
      sum_gn = fma(g, n, sum_gn);
      put(dweight, fma(d, n, get(dweight)));
      put(dbias, get(dbias) + d);
    });
    if (!step.out[0]) return;
    X* dx = output<X>(step) + i * cols;
    const float mean_g = sum(sum_g) / static_cast<float>(cols), mean_gn = sum(sum_gn) / static_cast<float>(cols);
    put_sum(dx, cols, addend == nullptr ? nullptr : addend + i * cols,
            [&](const auto& get) { return rstd * (get(dout) * get(weight) - mean_g - (get(x) - mean) * rstd * mean_gn); });
  });
  float* partial = static_cast<float*>(step.workspace);
  for (std::int64_t chunk = 1; chunk < chunks.count; ++chunk) add_row(partial, partial + chunk * 2 * cols, 2 * cols);
  if (step.out[1]) std::copy_n(partial, cols, output(step, 1));
  if (step.out[2]) std::copy_n(partial + cols, cols, output(step, 2));
}

/// Calls f with the types of x and of `other`, an output or its gradient.
template <class F>
void with_norm_types(const TensorView& x, const TensorView& other, const F& f) {
  if (x.type.dtype == DType::bf16) return f.template operator()<Bf16, Bf16>();
  if (other.type.dtype == DType::bf16) return f.template operator()<float, Bf16>();
  f.template operator()<float, float>();
}

}  // namespace

void run(const RmsNorm& op, const Step& step, Context& context) {
  if (is_f64(step)) return reference::run(op, step);
  with_norm_types(step.in[0], step.out[0], [&]<class X, class Out>() { forward<X, Out>(op, step, context); });
}

void run(const RmsNormGrad& op, const Step& step, Context& context) {
  if (is_f64(step)) return reference::run(op, step);
  with_norm_types(step.in[0], step.in[3], [&]<class X, class Dout>() { backward<X, Dout>(op, step, context); });
}

std::size_t workspace(const RmsNormGrad&, const Graph& graph, const Node& node, int) {
  const Shape& x = graph.shape(node.inputs[0]);
  return RowChunks(x.rows()).bytes(x.cols());
}

void run(const LayerNorm& op, const Step& step, Context& context) {
  if (is_f64(step)) return reference::run(op, step);
  with_norm_types(step.in[0], step.out[0], [&]<class X, class Out>() { forward<X, Out>(op, step, context); });
}

void run(const LayerNormGrad& op, const Step& step, Context& context) {
  if (is_f64(step)) return reference::run(op, step);
  with_norm_types(step.in[0], step.in[4], [&]<class X, class Dout>() { backward<X, Dout>(op, step, context); });
}

std::size_t workspace(const LayerNormGrad&, const Graph& graph, const Node& node, int) {
  const Shape& x = graph.shape(node.inputs[0]);
  return RowChunks(x.rows()).bytes(2 * x.cols());
}

}  // namespace graft::cpu
