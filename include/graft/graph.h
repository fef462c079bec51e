#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graft/ops.h"
#include "graft/types.h"

namespace graft {

/// Op, inputs, and the types of its outputs, as `infer` gave them. Names are unique in a graph.
struct Node {
  Op op;
  std::vector<Value> inputs;
  std::vector<TensorType> outputs;
  std::string name;
};

/// How the rows of an op split into sequences; see SegmentLayout in ops.h.
struct Segments {
  SegmentLayout layout;
  Value q_offsets, kv_offsets;  ///< packed only: u32 [n + 1]

  static Segments single() { return {}; }
  /// Sequences of `length` rows each, q and kv alike.
  static Segments uniform(std::int64_t length) { return uniform(length, length); }
  static Segments uniform(std::int64_t q_length, std::int64_t kv_length) {
    return {{SegmentLayout::Kind::uniform, q_length, kv_length}, {}, {}};
  }
  /// Sequences of any length, also 0: sequence s has the rows offsets[s] ≤ i < offsets[s + 1].
  static Segments packed(Value offsets) { return packed(offsets, offsets); }
  static Segments packed(Value q_offsets, Value kv_offsets) {
    return {{SegmentLayout::Kind::packed, 0, 0}, q_offsets, kv_offsets};
  }
};

struct AttentionOptions {
  std::optional<double> scale = {};       ///< default 1/√head_dim
  std::int64_t window = 0;           ///< above 0: a query sees itself and the window − 1 keys before it (causal only)
  std::optional<Mask::Kind> mask = {};    ///< multi_head_attn only; default causal, full if is_cross
  Segments segments = {};
};

/// Which of the sequences that a cache holds the rows are; see CachedAttention in ops.h. By default the cache holds those of the rows,
/// in order.
struct CacheSlots {
  std::int64_t sequences = 0;  ///< in the cache
  Value slots = {};            ///< u32, like kv_pos
};
struct CacheOptions {
  std::optional<double> scale = {};  ///< default 1/√head_dim
  std::int64_t window = 0;           ///< above 0: a query sees itself and the window − 1 keys before it
  CacheSlots slots = {};
};

struct CrossEntropyOptions {
  Reduction reduction = Reduction::mean;
  double label_smoothing = 0.0;
  std::uint32_t ignore_index = kIgnoreIndex;
};
struct CrossEntropyResult {
  Value loss;     ///< []
  Value lse;      ///< [n], log Σ exp of each row
  Value counted;  ///< [], rows whose label is not ignore_index
};

/// Records ops as data. Recording checks everything that can be known without values: shapes, dtypes, attributes, names.
/// Errors name the node and give both sides: `matmul "mlp.up": inner dimensions differ, got [4, 8] and [9, 16]`.
///
///     Graph g;
///     Value x = g.input("x", {32, 784});
///     Value w = g.parameter("w", {784, 10}, Init::xavier());
///     Value loss = g.cross_entropy(g.matmul(x, w), g.input_u32("labels", {32}));
///     g.output("loss", loss);
///
/// Every method that records takes an optional name last; unnamed nodes get the op's name and a number. Names are put behind
/// the scopes that are open.
class Graph {
 public:
  /// The seed is the key of all random numbers of the graph: initial values and dropout.
  explicit Graph(std::uint64_t seed = 0) : seed_(seed) {}

  // ---- sources: names are required, unique, and not put behind scopes
  Value input(std::string_view name, Shape shape, DType dtype = DType::f32);
  Value input_u32(std::string_view name, Shape shape);
  Value parameter(std::string_view name, Shape shape, Init init = Init::zeros(), DType dtype = DType::f32);
  /// `saved` false: a checkpoint leaves it out (caches).
  Value state(std::string_view name, Shape shape, Init init = Init::zeros(), DType dtype = DType::f32, bool saved = true);
  /// One value for all elements, or size() values in row-major order.
  Value constant(Shape shape, std::vector<double> values, DType dtype = DType::f32, std::string_view name = {});

  // ---- products and elementwise; formulas and shapes are in ops.h
  Value matmul(Value a, Value b, bool transpose_a = false, bool transpose_b = false, std::string_view name = {});
  Value matmul_bias(Value a, Value b, Value bias, bool transpose_a = false, bool transpose_b = false, std::string_view name = {});
  Value unary(UnaryFn fn, Value x, double alpha = 0.0, std::string_view name = {});
  Value neg(Value x) { return unary(UnaryFn::neg, x); }
  Value scale(Value x, double factor) { return unary(UnaryFn::scale, x, factor); }
  Value add_scalar(Value x, double value) { return unary(UnaryFn::add_scalar, x, value); }
  Value exp(Value x) { return unary(UnaryFn::exp, x); }
  Value log(Value x) { return unary(UnaryFn::log, x); }
  Value sqrt(Value x) { return unary(UnaryFn::sqrt, x); }
  Value abs(Value x) { return unary(UnaryFn::abs, x); }
  Value tanh(Value x) { return unary(UnaryFn::tanh, x); }
  Value sigmoid(Value x) { return unary(UnaryFn::sigmoid, x); }
  Value relu(Value x) { return unary(UnaryFn::relu, x); }
  Value gelu(Value x) { return unary(UnaryFn::gelu, x); }
  Value gelu_tanh(Value x) { return unary(UnaryFn::gelu_tanh, x); }
  Value silu(Value x) { return unary(UnaryFn::silu, x); }
  Value softplus(Value x) { return unary(UnaryFn::softplus, x); }
  Value binary(BinaryFn fn, Value a, Value b, std::string_view name = {});
  Value add(Value a, Value b) { return binary(BinaryFn::add, a, b); }
  Value sub(Value a, Value b) { return binary(BinaryFn::sub, a, b); }
  Value mul(Value a, Value b) { return binary(BinaryFn::mul, a, b); }
  Value div(Value a, Value b) { return binary(BinaryFn::div, a, b); }
  Value swiglu(Value gate, Value up, std::string_view name = {});
  Value cast(Value x, DType dtype, std::string_view name = {});
  Value stop_gradient(Value x, std::string_view name = {});
  /// Identity when p is 0. Masks come from the graph's seed, the node's number among the dropouts, and the state `rng/counter`, which
  /// an optimizer advances each step (or `advance_rng`).
  Value dropout(Value x, double p, std::string_view name = {});
  /// Records the increment of `rng/counter`, if the graph has one that is not advanced yet. Record it after everything that reads it.
  void advance_rng();

  // ---- reductions, broadcast, shape
  Value reduce(ReduceFn fn, Value x, Axis axis, std::string_view name = {});
  Value sum(Value x, Axis axis = Axis::all) { return reduce(ReduceFn::sum, x, axis); }
  Value mean(Value x, Axis axis = Axis::all) { return reduce(ReduceFn::mean, x, axis); }
  Value max(Value x, Axis axis = Axis::all) { return reduce(ReduceFn::max, x, axis); }
  Value broadcast(Value x, Shape shape, std::string_view name = {});
  Value reshape(Value x, Shape shape, std::string_view name = {});
  Value transpose(Value x, std::string_view name = {});
  /// Rows [row, row + rows) and columns [col, col + cols) of x; a vector counts as one row.
  Value slice(Value x, std::int64_t row, std::int64_t rows, std::int64_t col, std::int64_t cols, std::string_view name = {});
  Value slice_rows(Value x, std::int64_t row, std::int64_t rows, std::string_view name = {});
  Value slice_cols(Value x, std::int64_t col, std::int64_t cols, std::string_view name = {});
  Value concat(std::span<const Value> parts, Axis axis, std::string_view name = {});
  /// Parts of the given numbers of rows (Axis::rows) or columns (Axis::columns), which must add up.
  std::vector<Value> split(Value x, std::span<const std::int64_t> sizes, Axis axis);

  // ---- rows, tokens, losses
  Value softmax(Value x, std::string_view name = {});
  Value log_softmax(Value x, std::string_view name = {});
  Value rms_norm(Value x, Value weight, double eps = 1e-5, std::string_view name = {});
  Value layer_norm(Value x, Value weight, Value bias, double eps = 1e-5, std::string_view name = {});
  Value embedding(Value table, Value ids, std::string_view name = {});
  CrossEntropyResult cross_entropy_with(Value logits, Value labels, const CrossEntropyOptions& options, std::string_view name = {});
  Value cross_entropy(Value logits, Value labels, const CrossEntropyOptions& options = {}, std::string_view name = {}) {
    return cross_entropy_with(logits, labels, options, name).loss;
  }
  /// cross_entropy_with(matmul(x, weight, false, transpose_weight), …) that never holds all logits, for a fourth product in the gradient.
  /// Its lse has no gradient. x [n, h], weight [h, v], or [v, h] if transposed (a tied embedding), labels u32 [n].
  CrossEntropyResult linear_cross_entropy(Value x, Value weight, Value labels, const CrossEntropyOptions& options = {},
                                          bool transpose_weight = false, std::string_view name = {});
  /// mean((prediction − target)²).   out: []
  Value mse(Value prediction, Value target);
  /// mean(softplus(x) − x·t), the numerically safe −t·log σ(x) − (1 − t)·log(1 − σ(x)).   out: []
  Value bce_with_logits(Value logits, Value targets);

  // ---- attention: q [q_seq, H·D], k and v [kv_seq, Hkv·D] → [q_seq, H·D]; see MultiHeadAttn in ops.h. All four differentiate.
  /// Causal self-attention over whole sequences (prefill and training); aligned bottom-right when q_seq ≠ kv_seq.
  Value causal_attention(Value q, Value k, Value v, std::int64_t num_heads, std::int64_t num_kv_heads, std::int64_t head_dim,
                         const AttentionOptions& options = {}, std::string_view name = {});
  /// Every row attends to every row (encoders). Requires q_seq == kv_seq.
  Value full_attention(Value q, Value k, Value v, std::int64_t num_heads, std::int64_t num_kv_heads, std::int64_t head_dim,
                       const AttentionOptions& options = {}, std::string_view name = {});
  /// q attends to another sequence; q_seq and kv_seq may differ.
  Value cross_attention(Value q, Value k, Value v, std::int64_t num_heads, std::int64_t num_kv_heads, std::int64_t head_dim,
                        const AttentionOptions& options = {}, std::string_view name = {});
  /// Self-attention (is_cross false: q_seq == kv_seq is required, causal unless options.mask says full) or cross-attention
  /// (is_cross true, full unless options.mask says causal). Slot 1 of the node returned is the lse, [q_seq, H].
  Value multi_head_attn(Value q, Value k, Value v, std::int64_t num_heads, std::int64_t num_kv_heads, std::int64_t head_dim,
                        bool is_cross, const AttentionOptions& options = {}, std::string_view name = {});
  /// One new token, q [1, H·D], attends to the first kv_len (u32 []) rows of caches [max_seq, Hkv·D]; or t new tokens of each of n
  /// sequences, q [n·t, H·D], to caches [n·max_seq, Hkv·D] by kv_len [n]. See CachedAttention in ops.h. Not differentiable.
  Value cached_attention(Value q, Value k_cache, Value v_cache, Value kv_len, std::int64_t num_heads, std::int64_t num_kv_heads,
                         std::int64_t head_dim, const CacheOptions& options = {}, std::string_view name = {});
  /// Rotary embedding from position 0 of each segment. x [seq, heads·head_dim], head_dim even.
  Value rope(Value x, double theta, std::int64_t head_dim, const Segments& segments = {}, const RopeScaling& scaling = {},
             std::string_view name = {});
  Value rope_with_offset(Value x, double theta, std::int64_t offset, std::int64_t head_dim, const Segments& segments = {},
                         const RopeScaling& scaling = {}, std::string_view name = {});
  /// Positions start at offset[0], a u32 [] read at the step, or in segment s at offset[s], a u32 [n].
  Value rope_dynamic_offset(Value x, double theta, Value offset, std::int64_t head_dim, const Segments& segments = {},
                            const RopeScaling& scaling = {}, std::string_view name = {});
  /// Writes row [1, c] at kv_pos (u32 []) of a state [max_seq, c], or rows [n·t, c] from kv_pos (u32 [n]) of n sequences in a state
  /// [n·max_seq, c] on; use the value returned, the old one is refused from here on.
  Value cache_write(Value rows, Value cache, Value kv_pos, std::string_view name = {}) { return cache_write(rows, cache, kv_pos, CacheSlots{}, name); }
  Value cache_write(Value rows, Value cache, Value kv_pos, const CacheSlots& slots, std::string_view name = {});
  /// Overwrites a state with a value of the same type; use the value returned.
  Value assign(Value value, Value state, std::string_view name = {});

  // ---- results
  /// Keeps a value readable after a step under `name`. A value may have several names.
  void output(std::string_view name, Value value);
  const std::map<std::string, Value, std::less<>>& outputs() const { return outputs_; }

  // ---- for passes: optimizers, autodiff, your own
  /// Records a node: checks the inputs, infers the types, throws Error naming the node. The other methods end here.
  /// Returns slot 0. A `name` that is taken throws; an empty one becomes the op's name and a number.
  Value record(Op op, std::vector<Value> inputs, std::string_view name = {});
  const std::vector<Node>& nodes() const { return nodes_; }
  const Node& node(Value v) const;
  const TensorType& type(Value v) const;
  const Shape& shape(Value v) const { return type(v).shape; }
  /// The source or named node, or a Value that names nothing.
  Value find(std::string_view name) const;
  /// What goes before the names of nodes recorded now: "model.layers.0.", or "".
  const std::string& scope() const { return scope_; }
  std::vector<Value> parameters() const;
  std::uint64_t seed() const { return seed_; }
  /// The same graph with every f32 and bf16 as f64: what gradient checks and oracles run.
  Graph to_f64() const;

  /// Re-infers every node and checks order, names and effects. Throws InternalError naming the node. Passes call it when they are done.
  void verify() const;
  /// One line a node: name, op, attributes, inputs, types.
  std::string to_text() const;
  /// Graphviz.
  std::string to_dot() const;
  /// Of to_text(): equal graphs, equal hashes, on every machine.
  std::uint64_t hash() const;

  /// Puts a prefix before the names of unnamed and named nodes recorded while it lives ("model.layers.0" gives "model.layers.0.add_3").
  class Scope {
   public:
    Scope(Graph& graph, std::string_view name);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Graph& graph_;
    std::size_t restore_;
  };

 private:
  Value attention(Value q, Value k, Value v, AttentionShape heads, Mask::Kind mask, bool equal_lengths, const AttentionOptions& options,
                  std::string_view default_name, std::string_view name);
  Value rope(const Rope& op, Value x, Value offset, const Segments& segments, std::string_view name);
  std::string free_name(const std::string& base);
  std::string described(const Op& op, std::string_view name) const;

  std::uint64_t seed_;
  std::vector<Node> nodes_;
  std::map<std::string, std::int32_t, std::less<>> names_;
  std::map<std::string, Value, std::less<>> outputs_;
  std::map<std::int32_t, Value> overwritten_;  // source node of a state → the value that replaced it last
  std::map<std::string, std::int32_t, std::less<>> next_number_;
  std::int32_t dropouts_ = 0;
  std::string scope_;
};

}  // namespace graft
