#include "src/infer.h"

#include <cmath>

namespace graft {
namespace {

/// Of a number for each row of x.
TensorType of_rows(const TensorType& x) { return {wide(x.dtype), {x.shape.rows()}}; }

TensorType rounded(TensorType type, bool bf16) {
  require(!bf16 || type.dtype != DType::f64, "does not round f64 to bf16");
  if (bf16) type.dtype = DType::bf16;
  return type;
}

Types like_first(InputTypes in, std::size_t count) {
  require_inputs(in, count, count);
  require_float(in);
  for (std::size_t i = 1; i < count; ++i) require_equal(in[0], in[i], "inputs");
  return {in[0]};
}

/// Whether b repeats over a by the rules of Binary.
bool broadcasts(const Shape& b, const Shape& a) {
  if (b == a || b.rank() == 0) return true;
  if (b.rank() == 1) return b.cols() == a.cols();
  return a.rank() == 2 && ((b.rows() == 1 && b.cols() == a.cols()) || (b.cols() == 1 && b.rows() == a.rows()));
}

Shape reduced(const Shape& shape, Axis axis) {
  switch (axis) {
    case Axis::all: return {};
    case Axis::rows: return {shape.cols()};
    case Axis::columns: return {shape.rows(), 1};
  }
  GRAFT_ASSERT(!"an axis");
}

void require_norm(InputTypes in, double eps) {
  require_float(in.first(1));
  require_dtype(in[1], wide(in[0].dtype), "weight");
  require(eps > 0.0, "eps must be positive, got " + std::to_string(eps));
  const Shape weight{in[0].shape.cols()};
  require(in[1].shape == weight, "weight must be " + to_string(weight) + ", got " + to_string(in[1].shape));
}

/// The gradient of a norm's result.
void require_norm_gradient(const TensorType& x, const TensorType& dout) {
  if (dout.dtype == DType::bf16 && x.dtype == DType::f32) return require_equal({dout.dtype, x.shape}, dout, "x and dout");
  require_equal(x, dout, "x and dout");
}

}  // namespace

void require(bool condition, const std::string& what) {
  if (!condition) throw Error(what);
}

void require_inputs(InputTypes in, std::size_t least, std::size_t most) {
  require(in.size() >= least && in.size() <= most,
          "takes " + std::to_string(least) + (most > least ? " to " + std::to_string(most) : "") + " inputs, got " + std::to_string(in.size()));
}

void require_float(InputTypes in) {
  for (const TensorType& type : in) {
    require(is_float(type.dtype), "takes floating-point tensors, got " + to_string(type));
    require(type.dtype == in[0].dtype, "dtypes differ, got " + to_string(in[0]) + " and " + to_string(type));
  }
}

void require_wide(InputTypes in) {
  for (const TensorType& type : in)
    require(type.dtype != DType::bf16, "does not compute in bf16, cast to f32 first, got " + to_string(type));
  require_float(in);
}

DType wide(DType x) { return x == DType::bf16 ? DType::f32 : x; }

void require_dtype(const TensorType& type, DType dtype, const char* what) {
  require(type.dtype == dtype, std::string(what) + " must be " + std::string(to_string(dtype)) + ", got " + to_string(type));
}

void require_equal(const TensorType& a, const TensorType& b, const char* what) {
  require(a == b, std::string(what) + " differ, got " + to_string(a) + " and " + to_string(b));
}

void require_u32(const TensorType& type, const char* what) {
  require(type.dtype == DType::u32, std::string(what) + " must be u32, got " + to_string(type));
}

void require_u32_scalar(const TensorType& type, const char* what) {
  require(type == TensorType{DType::u32, {}}, std::string(what) + " must be u32[], got " + to_string(type));
}

Types infer_types(const Op& op, InputTypes in) {
  return std::visit([&](const auto& o) { return infer(o, in); }, op);
}

// ---- sources

Types infer(const Input& op, InputTypes in) {
  require_inputs(in, 0, 0);
  return {op.type};
}

Types infer(const Parameter& op, InputTypes in) {
  require_inputs(in, 0, 0);
  require(is_float(op.type.dtype), "a parameter must be floating-point, got " + to_string(op.type));
  return {op.type};
}

Types infer(const State& op, InputTypes in) {
  require_inputs(in, 0, 0);
  require(is_float(op.type.dtype) || op.init.kind == Init::Kind::constant, "a u32 state starts with a constant");
  return {op.type};
}

Types infer(const Constant& op, InputTypes in) {
  require_inputs(in, 0, 0);
  const auto count = static_cast<std::int64_t>(op.values.size());
  require(count == 1 || count == op.type.shape.size(),
          "takes 1 or " + std::to_string(op.type.shape.size()) + " values for " + to_string(op.type) + ", got " + std::to_string(count));
  if (op.type.dtype == DType::u32)
    for (double v : op.values)
      require(v >= 0 && v <= 4294967295.0 && v == std::floor(v), "a u32 constant holds whole numbers, got " + std::to_string(v));
  return {op.type};
}

// ---- products, elementwise

Types infer(const MatMul& op, InputTypes in) {
  require_inputs(in, 2, 3);
  require_float(in.first(2));
  const bool addend = in.size() == 3 && in[2].shape.rank() == 2;
  const std::string third = addend ? "addend" : "bias";
  const DType sums = wide(in[0].dtype);
  if (in.size() == 3) require_dtype(in[2], sums, third.c_str());
  require(!op.bf16 || in[0].dtype == DType::bf16, "rounds products of bf16 operands alone, got " + to_string(in[0]) + " and " + to_string(in[1]));
  require(!op.bf16 || !addend, "does not round a sum with an addend, got bf16 and the addend " + to_string(in.back()));
  const Shape &a = in[0].shape, &b = in[1].shape;
  require(a.rank() == 2 && b.rank() == 2, "takes matrices, got " + to_string(a) + " and " + to_string(b));
  const std::int64_t m = a[op.transpose_a], k = a[!op.transpose_a], kb = b[op.transpose_b], n = b[!op.transpose_b];
  require(k == kb, "inner dimensions differ, got " + to_string(a) + (op.transpose_a ? " transposed" : "") + " and " + to_string(b) +
                       (op.transpose_b ? " transposed" : ""));
  const Shape wanted = addend ? Shape{m, n} : Shape{n};
  if (in.size() == 3) require(in[2].shape == wanted, third + " must be " + to_string(wanted) + ", got " + to_string(in[2].shape));
  return {rounded({sums, {m, n}}, op.bf16)};
}

Types infer(const Unary&, InputTypes in) { return like_first(in, 1); }
Types infer(const UnaryGrad&, InputTypes in) { return like_first(in, 2); }

Types infer(const Binary&, InputTypes in) {
  require_inputs(in, 2, 2);
  require_float(in);
  const Shape &a = in[0].shape, &b = in[1].shape;
  require(broadcasts(b, a), "the right operand must have the left one's shape, or be a row [" + std::to_string(a.cols()) + "], a column [" +
                                std::to_string(a.rows()) + ", 1] or a scalar, got " + to_string(a) + " and " + to_string(b));
  return {in[0]};
}

Types infer(const Swiglu&, InputTypes in) { return like_first(in, 2); }

Types infer(const SwigluGrad&, InputTypes in) {
  const Types out = like_first(in, 3);
  return {out[0], out[0]};
}

Types infer(const Cast& op, InputTypes in) {
  require_inputs(in, 1, 1);
  require(is_float(in[0].dtype) && is_float(op.dtype), "casts between floating-point types, got " + to_string(in[0]) + " to " +
                                                           std::string(to_string(op.dtype)));
  return {{op.dtype, in[0].shape}};
}

Types infer(const StopGradient&, InputTypes in) {
  require_inputs(in, 1, 1);
  return {in[0]};
}

Types infer(const Dropout& op, InputTypes in) {
  require_inputs(in, 2, 2);
  require_float(in.first(1));
  require(op.p >= 0.0 && op.p < 1.0, "p must be in [0, 1), got " + std::to_string(op.p));
  require_u32_scalar(in[1], "the counter");
  return {in[0]};
}

// ---- reductions, shape

Types infer(const Reduce& op, InputTypes in) {
  require_inputs(in, 1, 1);
  require_float(in);
  return {{wide(in[0].dtype), reduced(in[0].shape, op.axis)}};
}

Types infer(const ReduceMaxGrad& op, InputTypes in) {
  require_inputs(in, 2, 2);
  require_float(in.first(1));
  require_equal({wide(in[0].dtype), reduced(in[0].shape, op.axis)}, in[1], "the maxima and dout");
  return {in[0]};
}

Types infer(const Broadcast& op, InputTypes in) {
  require_inputs(in, 1, 1);
  require_float(in);
  require(broadcasts(in[0].shape, op.shape), to_string(in[0].shape) + " does not broadcast to " + to_string(op.shape));
  return {{in[0].dtype, op.shape}};
}

Types infer(const Reshape& op, InputTypes in) {
  require_inputs(in, 1, 1);
  require(in[0].shape.size() == op.shape.size(), "sizes differ, got " + to_string(in[0].shape) + " and " + to_string(op.shape));
  return {{in[0].dtype, op.shape}};
}

Types infer(const Transpose&, InputTypes in) {
  require_inputs(in, 1, 1);
  require_float(in);
  require(in[0].shape.rank() == 2, "takes a matrix, got " + to_string(in[0].shape));
  return {{in[0].dtype, {in[0].shape[1], in[0].shape[0]}}};
}

Types infer(const Slice& op, InputTypes in) {
  require_inputs(in, 1, 1);
  require_float(in);
  const Shape& x = in[0].shape;
  require(x.rank() > 0, "takes a vector or matrix, got []");
  const auto range = [](std::int64_t begin, std::int64_t count) { return "[" + std::to_string(begin) + ", " + std::to_string(begin + count) + ")"; };
  require(op.row >= 0 && op.rows >= 1 && op.row + op.rows <= x.rows(), "rows " + range(op.row, op.rows) + " are not in " + to_string(x));
  require(op.col >= 0 && op.cols >= 1 && op.col + op.cols <= x.cols(), "columns " + range(op.col, op.cols) + " are not in " + to_string(x));
  return {{in[0].dtype, x.rank() == 1 ? Shape{op.cols} : Shape{op.rows, op.cols}}};
}

Types infer(const Pad& op, InputTypes in) {
  require_inputs(in, 1, 1);
  require_float(in);
  const Shape& x = in[0].shape;
  require(x.rank() == op.shape.rank() && op.row >= 0 && op.col >= 0 && op.row + x.rows() <= op.shape.rows() && op.col + x.cols() <= op.shape.cols(),
          to_string(x) + " at (" + std::to_string(op.row) + ", " + std::to_string(op.col) + ") is not in " + to_string(op.shape));
  return {{in[0].dtype, op.shape}};
}

Types infer(const Concat& op, InputTypes in) {
  require(!in.empty(), "takes at least one input");
  require_float(in);
  require(op.axis != Axis::all, "stacks rows or columns, not all");
  std::int64_t rows = 0, cols = 0;
  for (const TensorType& type : in) {
    require(type.shape.rank() == 2 || (type.shape.rank() == 1 && op.axis == Axis::columns && in[0].shape.rank() == 1),
            "takes matrices, or vectors side by side, got " + to_string(type.shape));
    require(type.shape.rank() == in[0].shape.rank(), "ranks differ, got " + to_string(in[0].shape) + " and " + to_string(type.shape));
    const bool fits = op.axis == Axis::rows ? type.shape.cols() == in[0].shape.cols() : type.shape.rows() == in[0].shape.rows();
    require(fits, std::string(op.axis == Axis::rows ? "columns" : "rows") + " differ, got " + to_string(in[0].shape) + " and " + to_string(type.shape));
    rows = op.axis == Axis::rows ? rows + type.shape.rows() : type.shape.rows();
    cols = op.axis == Axis::columns ? cols + type.shape.cols() : type.shape.cols();
  }
  return {{in[0].dtype, in[0].shape.rank() == 1 ? Shape{cols} : Shape{rows, cols}}};
}

// ---- rows

Types infer(const Softmax&, InputTypes in) { return like_first(in, 1); }
Types infer(const SoftmaxGrad&, InputTypes in) { return like_first(in, 2); }
Types infer(const LogSoftmax&, InputTypes in) { return like_first(in, 1); }
Types infer(const LogSoftmaxGrad&, InputTypes in) { return like_first(in, 2); }

Types infer(const RmsNorm& op, InputTypes in) {
  require_inputs(in, 2, 2);
  require_norm(in, op.eps);
  return {rounded(in[0], op.bf16), of_rows(in[0])};
}

Types infer(const RmsNormGrad&, InputTypes in) {
  require_inputs(in, 4, 5);
  require_norm(in, 1.0);
  require_equal(in[2], of_rows(in[0]), "rstd and rows");
  require_norm_gradient(in[0], in[3]);
  if (in.size() == 5) require_equal(in[0], in[4], "x and addend");
  return {in[0], in[1]};
}

Types infer(const LayerNorm& op, InputTypes in) {
  require_inputs(in, 3, 3);
  require_norm(in, op.eps);
  require_dtype(in[2], in[1].dtype, "bias");
  require(in[2].shape == in[1].shape, "bias must be " + to_string(in[1].shape) + ", got " + to_string(in[2].shape));
  return {rounded(in[0], op.bf16), of_rows(in[0]), of_rows(in[0])};
}

Types infer(const LayerNormGrad&, InputTypes in) {
  require_inputs(in, 5, 6);
  require_norm(in, 1.0);
  for (std::size_t i : {2u, 3u}) require_equal(in[i], of_rows(in[0]), "mean or rstd and rows");
  require_norm_gradient(in[0], in[4]);
  if (in.size() == 6) require_equal(in[0], in[5], "x and addend");
  return {in[0], in[1], in[1]};
}

// ---- tokens

Types infer(const Embedding&, InputTypes in) {
  require_inputs(in, 2, 2);
  require_wide(in.first(1));
  require(in[0].shape.rank() == 2, "the table must be a matrix, got " + to_string(in[0].shape));
  require_u32(in[1], "ids");
  require(in[1].shape.rank() <= 1, "ids must be a vector, got " + to_string(in[1].shape));
  return {{in[0].dtype, {in[1].shape.size(), in[0].shape.cols()}}};
}

Types infer(const EmbeddingGrad& op, InputTypes in) {
  require_inputs(in, 2, 3);
  require_u32(in[0], "ids");
  require_wide(in.subspan(1));
  require(in[1].shape.rank() == 2 && in[1].shape.rows() == in[0].shape.size(), "ids and dout differ, got " + to_string(in[0]) + " and " + to_string(in[1]));
  const TensorType table{in[1].dtype, {op.vocabulary, in[1].shape.cols()}};
  if (in.size() > 2) require_equal(table, in[2], "table and addend");
  return {table};
}

Types infer(const CrossEntropy& op, InputTypes in) {
  require_inputs(in, 2, 2);
  require_wide(in.first(1));
  require(in[0].shape.rank() == 2, "logits must be a matrix, got " + to_string(in[0].shape));
  require_u32(in[1], "labels");
  const Shape labels{in[0].shape.rows()};
  require(in[1].shape == labels, "labels must be " + to_string(labels) + ", one a row of logits " + to_string(in[0].shape) + ", got " + to_string(in[1].shape));
  require(op.label_smoothing >= 0.0 && op.label_smoothing < 1.0, "label_smoothing must be in [0, 1), got " + std::to_string(op.label_smoothing));
  return {{in[0].dtype, {}}, {in[0].dtype, labels}, {in[0].dtype, {}}};
}

Types infer(const CrossEntropyGrad& op, InputTypes in) {
  require_inputs(in, 5, 5);
  const Types forward = infer(op.loss, in.first(2));
  require_equal(in[2], forward[1], "lse and rows");
  require_equal(in[3], forward[2], "counted and the loss");
  require_equal(in[4], forward[0], "dloss and the loss");
  return {rounded(in[0], op.bf16)};
}

Types infer(const LinearCrossEntropy& op, InputTypes in) {
  require_inputs(in, 3, 3);
  const TensorType of_loss[] = {infer(MatMul{false, op.transpose_weight}, in.first(2))[0], in[2]};
  return infer(op.loss, of_loss);
}

Types infer(const LinearCrossEntropyGrad& op, InputTypes in) {
  require_inputs(in, 6, 6);
  const Types forward = infer(op.linear, in.first(3));
  require_equal(in[3], forward[1], "lse and rows");
  require_equal(in[4], forward[2], "counted and the loss");
  require_equal(in[5], forward[0], "dloss and the loss");
  return {in[0], {forward[0].dtype, in[1].shape}};
}

}  // namespace graft
