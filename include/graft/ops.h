#pragma once
// Ops are data: one documented aggregate each, with its formula, inputs, outputs and shapes. No methods, no inheritance.
// What an op means elsewhere is found by overload: infer (src/infer*.cc), vjp (autodiff/rules*.cc),
// run (kernels/*/), cases (tests/op_cases*.cc). A forgotten overload is a compile error in that file.
// An op that cannot be differentiated says why in `no_gradient`.
//
// [r, c] is a matrix of r rows and c columns; "rows" stacks sequences; vectors [c]; scalars [].
// Tensors are f32 unless said otherwise; every op also runs in f64, on the reference backend. "bf16 too": the float tensors that are not
// said to be f32 may be bf16 instead, all of them. Such an op computes in f32 and rounds each bf16 result once, to the nearest (operands of
// products inside of it, as attention's P and dS, may be rounded too); statistics (lse, rstd, delta, …), losses, the weights of norms and
// their gradients stay f32. An attribute `bf16` says that the first output, else f32 or like x, is rounded to bf16.
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "graft/types.h"

namespace graft {

// ---- sources: no inputs, one output of `type` -------------------------------------------------------------------------

/// How a parameter or state starts. Random values come from Philox, keyed by the graph's seed and the tensor's name, so they
/// do not depend on backend, threads or the order of declarations.
struct Init {
  enum class Kind : std::uint8_t {
    constant,  ///< every element a
    normal,    ///< mean a, standard deviation b
    uniform,   ///< in [a, b)
    xavier,    ///< uniform in ±√(6 / (fan_in + fan_out))          (Glorot and Bengio 2010, eq. 16)
    kaiming,   ///< normal, mean 0, standard deviation √(2 / fan_in) (He et al. 2015, eq. 10)
  };
  Kind kind = Kind::constant;
  double a = 0.0, b = 0.0;

  static constexpr Init zeros() { return {Kind::constant, 0.0, 0.0}; }
  static constexpr Init ones() { return {Kind::constant, 1.0, 0.0}; }
  static constexpr Init fill(double value) { return {Kind::constant, value, 0.0}; }
  static constexpr Init normal(double mean, double stddev) { return {Kind::normal, mean, stddev}; }
  static constexpr Init uniform(double low, double high) { return {Kind::uniform, low, high}; }
  /// fan_in and fan_out are the rows and columns of a weight [in, out].
  static constexpr Init xavier() { return {Kind::xavier, 0.0, 0.0}; }
  static constexpr Init kaiming() { return {Kind::kaiming, 0.0, 0.0}; }
  bool operator==(const Init&) const = default;
};

/// A tensor that the caller writes before a step.
struct Input { TensorType type; };
/// A trainable tensor, kept between steps.
struct Parameter { TensorType type; Init init; };
/// A tensor kept between steps that is not trained: optimizer moments, counters, KV caches. Checkpoints hold it if `saved`.
struct State { TensorType type; Init init; bool saved = true; };
/// A tensor fixed when the graph is recorded: one value for all elements, or size() values in row-major order.
struct Constant { TensorType type; std::vector<double> values; };

// ---- products ---------------------------------------------------------------------------------------------------------

/// out = A·B + c, A = aᵀ if transpose_a else a, B likewise.
/// in: A [m, k]  B [k, n]  c (optional): a bias [n] for every row, or an addend [m, n] (a residual, a sum so far)   out: [m, n]
/// Operands of one dtype, bf16 too; with bf16 operands sums and c are f32, and out is f32 or, without an addend [m, n], bf16.
/// A backend may round a bias to bf16 before it is added where out is bf16 (cuda does).
struct MatMul { bool transpose_a = false, transpose_b = false; bool bf16 = false; };

// ---- elementwise: bf16 too --------------------------------------------------------------------------------------------

enum class UnaryFn : std::uint8_t {
  neg,         ///< −x
  scale,       ///< alpha·x
  add_scalar,  ///< x + alpha
  exp,
  log,
  sqrt,
  abs,         ///< derivative 0 at 0
  tanh,
  sigmoid,     ///< 1 / (1 + e^−x)
  relu,        ///< max(x, 0), derivative 0 at 0
  gelu,        ///< x·Φ(x), Φ by erf                                     (Hendrycks and Gimpel 2016)
  gelu_tanh,   ///< ½x(1 + tanh(√(2/π)(x + 0.044715x³)))                 (same, section 2)
  silu,        ///< x·sigmoid(x)
  softplus,    ///< log(1 + e^x), computed without overflow
};
inline constexpr std::array kUnaryFns = {UnaryFn::neg,     UnaryFn::scale, UnaryFn::add_scalar, UnaryFn::exp,  UnaryFn::log,
                                         UnaryFn::sqrt,    UnaryFn::abs,   UnaryFn::tanh,       UnaryFn::sigmoid, UnaryFn::relu,
                                         UnaryFn::gelu,    UnaryFn::gelu_tanh, UnaryFn::silu,   UnaryFn::softplus};
/// out = fn(x).   in: x   out: like x
struct Unary { UnaryFn fn; double alpha = 0.0; };
/// dx = dout ∘ fn′(x).   in: x, dout   out: dx like x
struct UnaryGrad {
  UnaryFn fn; double alpha = 0.0;
  static constexpr std::string_view no_gradient = "second derivatives of elementwise functions are not implemented";
};

enum class BinaryFn : std::uint8_t { add, sub, mul, div };
inline constexpr std::array kBinaryFns = {BinaryFn::add, BinaryFn::sub, BinaryFn::mul, BinaryFn::div};
/// out = a fn b.   in: a [r, c], b: like a, or broadcast: [c] or [1, c] to every row, [r, 1] to every column, [] to all
/// out: like a.  Only b broadcasts.
struct Binary { BinaryFn fn; };

/// out = silu(gate) ∘ up (Shazeer 2020, SwiGLU).   in: gate, up [r, c]   out: [r, c]
struct Swiglu {};
/// in: gate, up, dout   out: dgate, dup
struct SwigluGrad { static constexpr std::string_view no_gradient = "second derivatives of swiglu are not implemented"; };

/// out = each element in the other type.   in: x (float)   out: dtype, shape of x
struct Cast { DType dtype = DType::f32; };
/// out = x; no gradient flows back.   in: x   out: x itself (a view)
struct StopGradient {};
/// out = x / (1 − p) where Philox keeps the element, else 0. Element i is dropped when the uniform number (seed, stream, counter, i)
/// is below p, so its gradient is the same op on dout.   in: x, counter u32 []   out: like x
struct Dropout { double p = 0.0; std::uint64_t seed = 0; std::uint32_t stream = 0; };

// ---- reductions and broadcast: bf16 too -------------------------------------------------------------------------------

/// What a reduction sums over. all: out []; rows: over the rows, out [c]; columns: over the columns, out [r, 1]. Each result
/// broadcasts back over its source as the right operand of a Binary.
enum class Axis : std::uint8_t { all, rows, columns };
enum class ReduceFn : std::uint8_t { sum, mean, max };
/// in: x [r, c]   out: see Axis, f32 (f64 if x is). Fixed order, whatever the number of threads.
struct Reduce { ReduceFn fn; Axis axis = Axis::all; };
/// dx = dout at the first maximum (row-major) of each group, else 0.   in: x, dout of the maxima's type   out: dx like x
struct ReduceMaxGrad { Axis axis = Axis::all; static constexpr std::string_view no_gradient = "second derivatives of max are not implemented"; };
/// out = x repeated, by the rules of Binary's b.   in: x   out: shape
struct Broadcast { Shape shape; };

// ---- shape: bf16 too --------------------------------------------------------------------------------------------------

/// The same elements in row-major order.   in: x   out: shape, x itself (a view)
struct Reshape { Shape shape; };
/// in: x [r, c]   out: [c, r]
struct Transpose {};
/// out = x[row, row + rows) × [col, col + cols).   in: x [r, c] (a vector counts as one row)   out: [rows, cols], a vector if x is one
struct Slice { std::int64_t row = 0, rows = 0, col = 0, cols = 0; };
/// The gradient of Slice: x placed at (row, col) of zeros.   in: x   out: shape
struct Pad { Shape shape; std::int64_t row = 0, col = 0; };
/// in: one or more tensors   out: stacked as rows (Axis::rows: equal columns) or side by side (Axis::columns: equal rows)
struct Concat { Axis axis = Axis::rows; };

// ---- rows: softmax, norms: bf16 too -----------------------------------------------------------------------------------

/// out = exp(x − max) / Σ exp(x − max), per row.   in: x [r, c]   out: like x
struct Softmax {};
/// dx = out ∘ (dout − Σ dout ∘ out).   in: out, dout   out: dx
struct SoftmaxGrad { static constexpr std::string_view no_gradient = "second derivatives of softmax are not implemented"; };
/// out = x − max − log Σ exp(x − max), per row.   in: x [r, c]   out: like x
struct LogSoftmax {};
/// dx = dout − exp(out) · Σ dout.   in: out, dout   out: dx
struct LogSoftmaxGrad { static constexpr std::string_view no_gradient = "second derivatives of log_softmax are not implemented"; };

/// out = x · rstd ∘ weight, rstd = 1 / √(mean(x²) + eps), per row (Zhang and Sennrich 2019).
/// in: x [r, c], weight [c] f32   out: out like x, or bf16; rstd [r] f32
struct RmsNorm { double eps = 1e-5; bool bf16 = false; };
/// in: x, weight, rstd f32, dout like x or bf16, addend like x (optional: added to dx)
/// out: dx like x; dweight [c] f32 (summed over rows in fixed order)
struct RmsNormGrad { static constexpr std::string_view no_gradient = "second derivatives of rms_norm are not implemented"; };
/// out = (x − mean) · rstd ∘ weight + bias, rstd = 1 / √(var(x) + eps), biased variance, per row (Ba et al. 2016).
/// in: x [r, c], weight [c], bias [c] f32   out: out like x, or bf16; mean [r]; rstd [r] f32
struct LayerNorm { double eps = 1e-5; bool bf16 = false; };
/// in: x, weight, mean, rstd f32, dout like x or bf16, addend like x (optional: added to dx)   out: dx like x; dweight [c]; dbias [c] f32
struct LayerNormGrad { static constexpr std::string_view no_gradient = "second derivatives of layer_norm are not implemented"; };

// ---- tokens -----------------------------------------------------------------------------------------------------------

/// out[i] = table[ids[i]].   in: table [v, c], ids u32 [n]   out: [n, c].  An id ≥ v is an error at the step.
struct Embedding {};
/// dtable[t] = addend[t] + Σ dout[i] over ids[i] = t, in order of i.   in: ids, dout, addend (optional)   out: dtable [vocabulary, c]
struct EmbeddingGrad { std::int64_t vocabulary = 0; static constexpr std::string_view no_gradient = "second derivatives of embedding are not implemented"; };

inline constexpr std::uint32_t kIgnoreIndex = 0xffffffffu;
enum class Reduction : std::uint8_t { mean, sum };
/// Per counted row: lse − (1 − s)·x[label] − s·mean(x), s = label_smoothing; rows whose label is ignore_index count nothing.
/// The loss is the mean over counted rows (0 if none), or their sum.
/// in: logits [n, v], labels u32 [n]   out: loss []; lse [n] = log Σ exp(logits), natural; counted [] = number of counted rows.
/// A label ≥ v that is not ignore_index is an error at the step.
struct CrossEntropy {
  Reduction reduction = Reduction::mean;
  double label_smoothing = 0.0;
  std::uint32_t ignore_index = kIgnoreIndex;
};
/// dlogits = dloss · (exp(logits − lse) − (1 − s)·onehot − s/v) on counted rows, / counted for the mean; else 0.
/// in: logits, labels, lse, counted, dloss []   out: dlogits [n, v], f32 or bf16
struct CrossEntropyGrad { CrossEntropy loss; bool bf16 = false; static constexpr std::string_view no_gradient = "second derivatives of cross_entropy are not implemented"; };

/// CrossEntropy of x·W, the logits made some rows at a time: all [n, v] of them are never held. For large vocabularies, or when memory is
/// short: the gradient makes them once more, so it costs 4 products where MatMul and CrossEntropy cost 3, and saves n·v elements.
/// in: x [n, h], weight [h, v], or [v, h] if transposed (a tied embedding), both bf16 too, labels u32 [n]   out: as CrossEntropy, f32
struct LinearCrossEntropy { CrossEntropy loss; bool transpose_weight = false; };
/// With dlogits as in CrossEntropyGrad: dx = dlogits·Wᵀ, dweight = xᵀ·dlogits, if transposed dlogitsᵀ·x.
/// in: x, weight, labels, lse, counted, dloss []   out: dx like x; dweight of weight's shape, f32 (summed over rows in fixed order)
struct LinearCrossEntropyGrad { LinearCrossEntropy linear; static constexpr std::string_view no_gradient = "second derivatives of linear_cross_entropy are not implemented"; };

// ---- attention: bf16 too ----------------------------------------------------------------------------------------------

/// Head h of q reads head h / (heads / kv_heads) of k and v; heads % kv_heads == 0; 1 ≤ head_dim ≤ 256.
struct AttentionShape {
  std::int64_t heads = 1, kv_heads = 1, head_dim = 1;
  bool operator==(const AttentionShape&) const = default;
};
/// Which keys a query sees. Inside a segment with q_seq queries and kv_seq keys, query i stands at p = i + kv_seq − q_seq:
/// full: all; causal: keys j ≤ p; window: keys p − window < j ≤ p.
struct Mask {
  enum class Kind : std::uint8_t { full, causal, window } kind = Kind::full;
  std::int64_t window = 0;
  bool operator==(const Mask&) const = default;
};
/// How the rows split into sequences that do not see each other. single: one; uniform: q_length rows of q and kv_length rows of
/// k and v each; packed: sequence s has the rows offsets[s] ≤ i < offsets[s+1], offsets u32 [n + 1] being inputs of the op
/// (first 0, last the number of rows, never falling).
struct SegmentLayout {
  enum class Kind : std::uint8_t { single, uniform, packed } kind = Kind::single;
  std::int64_t q_length = 0, kv_length = 0;
  bool operator==(const SegmentLayout&) const = default;
};

/// out = softmax(scale·q·kᵀ + mask)·v, per head and segment (Vaswani et al. 2017, eq. 1; GQA: Ainslie et al. 2023).
/// in: q [q_seq, H·D], k, v [kv_seq, Hkv·D], if packed: q_offsets, kv_offsets u32 [n + 1]
/// out: out like q; lse [q_seq, H], f32 (f64 if q is) = natural log Σ exp of the row's scaled scores, saved for the backward pass.
/// A row that sees no key gives out = 0, lse = −inf and gradients 0. What is not seen has no effect, whatever it holds: a hidden ∞ or NaN
/// reaches no result, here, in the gradients and in CachedAttention.
struct MultiHeadAttn { AttentionShape heads; Mask mask; double scale = 1.0; SegmentLayout segments; };
/// delta[i, h] = Σ_d dout[i, h, d] · out[i, h, d] (Dao et al. 2022, eq. 4).   in: out, dout   out: delta [q_seq, H], f32 as lse
struct AttnDelta { AttentionShape heads; static constexpr std::string_view no_gradient = "second derivatives of attention are not implemented"; };
/// The gradients of attention from the saved lse (Dao 2023, algorithm 2): P = exp(scale·q·kᵀ − lse), dS = P ∘ (dout·vᵀ − delta);
/// dq = scale·dS·k, dk = scale·dSᵀ·q, dv = Pᵀ·dout, dk and dv summed over the query heads of a kv head.
/// in: q, k, v, lse, dout, delta, if packed: q_offsets, kv_offsets   out: dq like q
struct MultiHeadAttnGradQ { MultiHeadAttn attn; static constexpr std::string_view no_gradient = "second derivatives of attention are not implemented"; };
/// in: as MultiHeadAttnGradQ   out: dk like k
struct MultiHeadAttnGradK { MultiHeadAttn attn; static constexpr std::string_view no_gradient = "second derivatives of attention are not implemented"; };
/// in: as MultiHeadAttnGradQ   out: dv like v
struct MultiHeadAttnGradV { MultiHeadAttn attn; static constexpr std::string_view no_gradient = "second derivatives of attention are not implemented"; };

/// What a rotary embedding's frequencies f become in a model made for longer texts than its rotations were first trained on.
/// linear: f / factor (Chen et al. 2023).   llama3: f·((1 − s) / factor + s), s = (original_context·f/2π − low_freq_factor) /
/// (high_freq_factor − low_freq_factor) held in [0, 1], as Hugging Face's rope_type "llama3": slow rotations are stretched, fast ones not.
struct RopeScaling {
  enum class Kind : std::uint8_t { none, linear, llama3 } kind = Kind::none;
  double factor = 1.0, low_freq_factor = 1.0, high_freq_factor = 4.0;
  std::int64_t original_context = 8192;
  bool operator==(const RopeScaling&) const = default;
};

/// Rotary embedding (Su et al. 2021), halves rotated as in Hugging Face Llama: in each head, with i < D/2, f = theta^(−2i/D), scaled, and
/// a = (offset + row in its segment)·f:  out[i] = x[i]·cos a − x[i + D/2]·sin a,  out[i + D/2] = x[i + D/2]·cos a + x[i]·sin a.
/// `inverse` rotates by −a, which is the gradient.
/// in: x [seq, H·D]; if dynamic: offset u32 [] or one number a segment [n], added to the static one; if packed: offsets u32 [n + 1]
/// out: like x
struct Rope { double theta = 10000.0; std::int64_t head_dim = 2; std::int64_t offset = 0; bool dynamic = false; bool inverse = false; SegmentLayout segments; RopeScaling scaling = {}; };

/// The newest t tokens of each of n sequences attend to the tokens so far: query i of a sequence sees the rows j ≤ p = kv_len − t + i of
/// its cache (as a causal mask, aligned bottom-right), with a window above 0 only j > p − window. A query that sees nothing gives 0.
/// A cache stacks the rows of its sequences, max_seq each: of these n, in order, or of `sequences` where that is above 0; then slots
/// u32, like kv_len, say which of them each is.
/// in: q [n·t, H·D], k_cache, v_cache [n·max_seq, Hkv·D], kv_len u32 [n] (n = 1: or []), slots   out: like q
/// 1 ≤ kv_len ≤ max_seq and slot < sequences are checked at the step.
struct CachedAttention {
  AttentionShape heads; double scale = 1.0; std::int64_t window = 0; std::int64_t sequences = 0;
  static constexpr std::string_view no_gradient = "it decodes from a cache that is overwritten; train with causal_attention or multi_head_attn";
};
/// Rows kv_pos … kv_pos + t − 1 of each of n sequences = its t new rows; what a cache holds, and `sequences`, as in CachedAttention.
/// in: rows [n·t, c], cache [n·max_seq, c] (a state), kv_pos u32 [n] (n = 1: or []), slots   out: the cache itself, overwritten.
/// kv_pos + t ≤ max_seq is checked at the step, before anything is written. Of one sequence named twice the last rows stay.
struct CacheWrite {
  std::int64_t sequences = 0;
  static constexpr std::string_view no_gradient = "it overwrites its cache; train with causal_attention or multi_head_attn";
};

// ---- updates: effects on states ---------------------------------------------------------------------------------------
// An update whose `scale` is not finite leaves everything as it was: that is how a step with a non-finite loss or gradient is skipped.

/// state = value.   in: value, state   out: the state itself, overwritten
struct Assign { static constexpr std::string_view no_gradient = "it overwrites a state"; };
/// out = √(Σ over all inputs and elements of x²), summed in fixed order.   in: one or more tensors of one dtype   out: []
struct GlobalNorm { static constexpr std::string_view no_gradient = "it measures gradients"; };
/// out = 1, or max_norm / norm where max_norm > 0 and norm > max_norm; NaN where norm or loss is not finite.
/// in: norm [], loss [] (optional)   out: scale []
struct UpdateScale { double max_norm = 0.0; static constexpr std::string_view no_gradient = "it measures gradients"; };
/// step = step + 1 if scale is finite, else skipped = skipped + 1.   in: step, skipped u32 [], scale []   out: both, overwritten
struct CountStep { static constexpr std::string_view no_gradient = "it counts steps"; };
/// counter = counter + 1.   in: counter u32 []   out: the counter itself, overwritten
struct Increment { static constexpr std::string_view no_gradient = "it counts steps"; };

/// The learning rate of 0-based step t; total steps N, warm-up W (linear from 0: (t + 1)/W of base), decay D, f = fraction of the way:
/// constant: base; linear: base → min; cosine: min + ½(base − min)(1 + cos πf); wsd (warm-up-stable-decay, Hu et al. 2024): base,
/// then linear base → min over the last D steps. After N: min (constant: base).
struct Schedule {
  enum class Kind : std::uint8_t { constant, linear, cosine, wsd } kind = Kind::constant;
  double base = 1e-3, min = 0.0;
  std::int64_t total = 0, warmup = 0, decay = 0;
  bool operator==(const Schedule&) const = default;
};
/// in: step u32 []   out: lr []
struct LearningRate { Schedule schedule; DType dtype = DType::f32; static constexpr std::string_view no_gradient = "it counts steps"; };

/// g = scale·grad + weight_decay·p; m = momentum·m + g; p −= lr·lr_scale·(nesterov ? g + momentum·m : m)   (PyTorch's SGD)
/// in: p, grad, m, lr [], scale []   out: p, m, overwritten
struct SgdUpdate { double momentum = 0.0, weight_decay = 0.0, lr_scale = 1.0; bool nesterov = false; static constexpr std::string_view no_gradient = "it overwrites its parameter"; };
/// Adam (Kingma and Ba 2015, algorithm 1) with t = step + 1; decoupled: AdamW (Loshchilov and Hutter 2019, algorithm 2),
/// p −= lr·lr_scale·(weight_decay·p + m̂ / (√v̂ + eps)); else weight_decay·p is added to the gradient.
/// in: p, grad, m, v, step u32 [], lr [], scale []   out: p, m, v, overwritten
struct AdamUpdate { double beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0.0, lr_scale = 1.0; bool decoupled = true; static constexpr std::string_view no_gradient = "it overwrites its parameter"; };
/// p −= lr·lr_scale·(weight_decay·p + sign(beta1·m + (1 − beta1)·g)); m = beta2·m + (1 − beta2)·g   (Chen et al. 2023, algorithm 2)
/// in: p, grad, m, lr [], scale []   out: p, m, overwritten
struct LionUpdate { double beta1 = 0.9, beta2 = 0.99, weight_decay = 0.0, lr_scale = 1.0; static constexpr std::string_view no_gradient = "it overwrites its parameter"; };

using Op = std::variant<Input, Parameter, State, Constant,                                              //
                        MatMul, Unary, UnaryGrad, Binary, Swiglu, SwigluGrad, Cast, StopGradient, Dropout,  //
                        Reduce, ReduceMaxGrad, Broadcast, Reshape, Transpose, Slice, Pad, Concat,        //
                        Softmax, SoftmaxGrad, LogSoftmax, LogSoftmaxGrad, RmsNorm, RmsNormGrad, LayerNorm, LayerNormGrad,  //
                        Embedding, EmbeddingGrad, CrossEntropy, CrossEntropyGrad, LinearCrossEntropy, LinearCrossEntropyGrad,  //
                        MultiHeadAttn, AttnDelta, MultiHeadAttnGradQ, MultiHeadAttnGradK, MultiHeadAttnGradV,  //
                        Rope, CachedAttention, CacheWrite,                                               //
                        Assign, GlobalNorm, UpdateScale, CountStep, Increment, LearningRate, SgdUpdate, AdamUpdate, LionUpdate>;

/// The op's name in snake_case: "matmul", "gelu_tanh", "multi_head_attn_grad_q".
std::string op_name(const Op& op);
/// Its attributes as text, "" if it has none: "transpose_a", "heads=8/2x64 mask=causal scale=0.125".
std::string op_attributes(const Op& op);

}  // namespace graft
