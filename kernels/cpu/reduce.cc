#include "graft/error.h"
#include "graft/graph.h"
#include "kernels/cpu/map.h"
#include "kernels/cpu/sums.h"
#include "kernels/cpu/views.h"

namespace graft::cpu {
namespace {

template <class T>
void sum(const Reduce& op, const Step& step, const Context& context) {
  const TensorView& x = step.in[0];
  const T* data = input<T>(step, 0);
  float* out = output(step);
  const std::int64_t rows = x.rows(), cols = x.cols();
  const auto finish = [&](double sum, std::int64_t count) {
    return static_cast<float>(op.fn == ReduceFn::mean ? sum / static_cast<double>(count) : sum);
  };
  switch (op.axis) {
    case Axis::all: {
      double* partial = static_cast<double*>(step.workspace);
      const std::int64_t pieces = sum_pieces(x.size());
      parallel_tasks(context.threads, pieces, [&](std::int64_t piece, int) {
        const std::int64_t begin = piece * kSumPiece;
        partial[piece] = sum_of(data + begin, std::min(kSumPiece, x.size() - begin), [](DoubleVec v) { return v; });
      });
      double total = 0.0;
      for (std::int64_t piece = 0; piece < pieces; ++piece) total += partial[piece];
      *out = finish(total, x.size());
      return;
    }
    case Axis::columns:
      for_each_row(context.threads, rows, cols, [&](std::int64_t row) {
        out[row] = finish(sum_of(data + row * cols, cols, [](DoubleVec v) { return v; }), cols);
      });
      return;
    case Axis::rows: {
      const RowChunks chunks(rows);
      float* partial = static_cast<float*>(step.workspace);
      parallel_tasks(rows * cols < kElementGrain ? Threads() : context.threads, chunks.count, [&](std::int64_t chunk, int) {
        float* sums = partial + chunk * cols;
        std::fill_n(sums, cols, 0.0f);
        for (std::int64_t row = chunks.begin(chunk); row < chunks.end(chunk); ++row) add_row(sums, data + row * cols, cols);
      });
      sum_chunks(chunks, partial, cols, out);
      if (op.fn == ReduceFn::mean)
        for (std::int64_t j = 0; j < cols; ++j) out[j] /= static_cast<float>(rows);
      return;
    }
  }
  GRAFT_ASSERT(!"a known axis");
}

}  // namespace

void run(const Reduce& op, const Step& step, Context& context) {
  if (is_f64(step) || op.fn == ReduceFn::max) return reference::run(op, step);
  if (!step.out[0]) return;
  with_types([&]<class T>() { sum<T>(op, step, context); }, step.in[0]);
}

std::size_t workspace(const Reduce& op, const Graph& graph, const Node& node, int) {
  const Shape& x = graph.shape(node.inputs[0]);
  switch (op.axis) {
    case Axis::all: return static_cast<std::size_t>(sum_pieces(x.size())) * sizeof(double);
    case Axis::rows: return RowChunks(x.rows()).bytes(x.cols());
    case Axis::columns: break;
  }
  return 0;
}

void run(const Broadcast& op, const Step& step, Context& context) {
  if (!is_f32(step)) return reference::run(op, step);
  if (!step.out[0]) return;
  const float* x = input(step, 0);
  const std::int64_t cols = step.out[0].cols();
  const bool each_row = step.in[0].rows() > 1, each_col = step.in[0].cols() > 1;
  for_each_row(context.threads, step.out[0].rows(), cols, [&](std::int64_t row) {
    const float* from = x + (each_row ? row * step.in[0].cols() : 0);
    float* to = output(step) + row * cols;
    if (each_col) {
      std::copy_n(from, cols, to);
    } else {
      std::fill_n(to, cols, *from);
    }
  });
}

}  // namespace graft::cpu
