// What the graph refuses to record and what it says then.
#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <limits>
#include <ostream>

#include "graft/error.h"
#include "graft/graph.h"

namespace graft {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct BadInput {
  std::string name;
  std::function<void(Graph&)> record;
  std::string message;
};
std::ostream& operator<<(std::ostream& out, const BadInput& bad) { return out << bad.name; }

void attend(Graph& g, Shape q, Shape k, Shape v, std::int64_t heads, std::int64_t kv_heads, std::int64_t dim,
            const AttentionOptions& options = {}, bool is_cross = true) {
  g.multi_head_attn(g.input("q", q), g.input("k", k), g.input("v", v), heads, kv_heads, dim, is_cross, options, "attn");
}

AttentionOptions packed(Graph& g, Shape q_offsets, Shape kv_offsets, DType dtype = DType::u32) {
  AttentionOptions options;
  options.segments = Segments::packed(g.input("q_offsets", q_offsets, dtype), g.input("kv_offsets", kv_offsets, dtype));
  return options;
}

/// Of four rows; the last input may be missing.
void linear_cross_entropy_grad(Graph& g, Shape lse, Shape counted, Shape dloss, bool with_dloss = true) {
  std::vector<Value> in = {g.input("x", {4, 8}), g.input("w", {8, 5}), g.input_u32("t", {4}), g.input("lse", lse),
                           g.input("counted", counted)};
  if (with_dloss) in.push_back(g.input("dloss", dloss));
  g.record(LinearCrossEntropyGrad{}, in);
}

// one line of code each, and its message
// clang-format off
std::vector<BadInput> shapes() {
  return {
      {"matmul_inner", [](Graph& g) { g.matmul(g.input("a", {4, 8}), g.input("b", {9, 16}), false, false, "mlp.up"); },
       R"(matmul "mlp.up": inner dimensions differ, got [4, 8] and [9, 16])"},
      {"matmul_inner_transposed", [](Graph& g) { g.matmul(g.input("a", {4, 8}), g.input("b", {4, 16}), false, true, "up"); },
       R"(matmul "up": inner dimensions differ, got [4, 8] and [4, 16] transposed)"},
      {"matmul_of_vector", [](Graph& g) { g.matmul(g.input("a", {8}), g.input("b", {8, 16})); },
       R"(matmul "matmul_0": takes matrices, got [8] and [8, 16])"},
      {"matmul_addend", [](Graph& g) { g.record(MatMul{}, {g.input("a", {4, 8}), g.input("b", {8, 16}), g.input("c", {16, 4})}); },
       R"(matmul "matmul_0": addend must be [4, 16], got [16, 4])"},
      {"rms_norm_grad_addend", [](Graph& g) {
         const Value x = g.input("x", {2, 3});
         g.record(RmsNormGrad{}, {x, g.input("w", {3}), g.input("rstd", {2}), x, g.input("addend", {3, 3})});
       }, R"(rms_norm_grad "rms_norm_grad_0": x and addend differ, got f32[2, 3] and f32[3, 3])"},
      {"layer_norm_grad_addend", [](Graph& g) {
         const Value x = g.input("x", {2, 3}), row = g.input("row", {2});
         g.record(LayerNormGrad{}, {x, g.input("w", {3}), row, row, x, g.input("addend", {2, 4})});
       }, R"(layer_norm_grad "layer_norm_grad_0": x and addend differ, got f32[2, 3] and f32[2, 4])"},
      {"embedding_grad_addend", [](Graph& g) {
         g.record(EmbeddingGrad{6}, {g.input_u32("ids", {2}), g.input("dout", {2, 3}), g.input("addend", {5, 3})});
       }, R"(embedding_grad "embedding_grad_0": table and addend differ, got f32[6, 3] and f32[5, 3])"},
      {"matmul_bias", [](Graph& g) { g.matmul_bias(g.input("a", {4, 8}), g.input("b", {8, 16}), g.input("bias", {8})); },
       R"(matmul "matmul_0": bias must be [16], got [8])"},
      {"add", [](Graph& g) { g.add(g.input("a", {2, 3}), g.input("b", {2, 4})); },
       R"(add "add_0": the right operand must have the left one's shape, or be a row [3], a column [2, 1] or a scalar, got [2, 3] and [2, 4])"},
      {"left_operand_does_not_broadcast", [](Graph& g) { g.mul(g.input("a", {3}), g.input("b", {2, 3})); },
       R"(mul "mul_0": the right operand must have the left one's shape, or be a row [3], a column [1, 1] or a scalar, got [3] and [2, 3])"},
      {"swiglu", [](Graph& g) { g.swiglu(g.input("gate", {2, 3}), g.input("up", {3, 2})); },
       R"(swiglu "swiglu_0": inputs differ, got f32[2, 3] and f32[3, 2])"},
      {"broadcast", [](Graph& g) { g.broadcast(g.input("x", {3}), {2, 4}); }, R"(broadcast "broadcast_0": [3] does not broadcast to [2, 4])"},
      {"reshape", [](Graph& g) { g.reshape(g.input("x", {3, 4}), {5, 2}); }, R"(reshape "reshape_0": sizes differ, got [3, 4] and [5, 2])"},
      {"transpose_of_vector", [](Graph& g) { g.transpose(g.input("x", {3})); }, R"(transpose "transpose_0": takes a matrix, got [3])"},
      {"slice_rows", [](Graph& g) { g.slice_rows(g.input("x", {3, 4}), 2, 2); }, R"(slice "slice_0": rows [2, 4) are not in [3, 4])"},
      {"slice_columns", [](Graph& g) { g.slice_cols(g.input("x", {3, 4}), 3, 2); }, R"(slice "slice_0": columns [3, 5) are not in [3, 4])"},
      {"slice_of_nothing", [](Graph& g) { g.slice_rows(g.input("x", {3, 4}), 1, 0); }, R"(slice "slice_0": rows [1, 1) are not in [3, 4])"},
      {"slice_before_the_first", [](Graph& g) { g.slice_cols(g.input("x", {3, 4}), -1, 2); }, R"(slice "slice_0": columns [-1, 1) are not in [3, 4])"},
      {"slice_of_scalar", [](Graph& g) { g.slice(g.input("x", {}), 0, 1, 0, 1); }, R"(slice "slice_0": takes a vector or matrix, got [])"},
      {"pad", [](Graph& g) { g.record(Pad{{3, 4}, 2, 0}, {g.input("x", {2, 2})}); }, R"(pad "pad_0": [2, 2] at (2, 0) is not in [3, 4])"},
      {"concat_rows", [](Graph& g) { g.concat(std::array{g.input("a", {2, 3}), g.input("b", {2, 4})}, Axis::rows); },
       R"(concat "concat_0": columns differ, got [2, 3] and [2, 4])"},
      {"concat_columns", [](Graph& g) { g.concat(std::array{g.input("a", {2, 3}), g.input("b", {4, 3})}, Axis::columns); },
       R"(concat "concat_0": rows differ, got [2, 3] and [4, 3])"},
      {"concat_ranks", [](Graph& g) { g.concat(std::array{g.input("a", {2, 3}), g.input("b", {3})}, Axis::rows); },
       R"(concat "concat_0": takes matrices, or vectors side by side, got [3])"},
      {"concat_all", [](Graph& g) { g.concat(std::array{g.input("a", {2, 3})}, Axis::all); },
       R"(concat "concat_0": stacks rows or columns, not all)"},
      {"concat_of_nothing", [](Graph& g) { g.concat({}, Axis::rows); }, R"(concat "concat_0": takes at least one input)"},
      {"split_rows", [](Graph& g) { g.split(g.input("x", {6, 4}), std::array<std::int64_t, 2>{2, 3}, Axis::rows); },
       R"(split "x": the sizes add up to 5, got 6 rows)"},
      {"split_columns", [](Graph& g) { g.split(g.input("x", {6, 4}), std::array<std::int64_t, 2>{2, 3}, Axis::columns); },
       R"(split "x": the sizes add up to 5, got 4 columns)"},
      {"split_all", [](Graph& g) { g.split(g.input("x", {6, 4}), std::array<std::int64_t, 1>{24}, Axis::all); },
       R"(split "x": splits rows or columns, not all)"},
      {"constant_count", [](Graph& g) { g.constant({2, 3}, {1, 2, 3}, DType::f32, "c"); },
       R"(constant "c": takes 1 or 6 values for f32[2, 3], got 3)"},
      {"rms_norm_weight", [](Graph& g) { g.rms_norm(g.input("x", {2, 3}), g.input("w", {2})); },
       R"(rms_norm "rms_norm_0": weight must be [3], got [2])"},
      {"layer_norm_bias", [](Graph& g) { g.layer_norm(g.input("x", {2, 3}), g.input("w", {3}), g.input("b", {1, 3})); },
       R"(layer_norm "layer_norm_0": bias must be [3], got [1, 3])"},
      {"embedding_table", [](Graph& g) { g.embedding(g.input("table", {3}), g.input_u32("ids", {2})); },
       R"(embedding "embedding_0": the table must be a matrix, got [3])"},
      {"cross_entropy_labels", [](Graph& g) { g.cross_entropy(g.input("logits", {4, 5}), g.input_u32("labels", {5})); },
       R"(cross_entropy "cross_entropy_0": labels must be [4], one a row of logits [4, 5], got [5])"},
      {"linear_cross_entropy_inner",
       [](Graph& g) { g.linear_cross_entropy(g.input("x", {4, 8}), g.input("w", {9, 5}), g.input_u32("t", {4})); },
       R"(linear_cross_entropy "linear_cross_entropy_0": inner dimensions differ, got [4, 8] and [9, 5])"},
      {"linear_cross_entropy_inner_transposed",
       [](Graph& g) { g.linear_cross_entropy(g.input("x", {4, 8}), g.input("w", {8, 5}), g.input_u32("t", {4}), {}, true, "head"); },
       R"(linear_cross_entropy "head": inner dimensions differ, got [4, 8] and [8, 5] transposed)"},
      {"linear_cross_entropy_vector",
       [](Graph& g) { g.linear_cross_entropy(g.input("x", {8}), g.input("w", {8, 5}), g.input_u32("t", {1})); },
       R"(linear_cross_entropy "linear_cross_entropy_0": takes matrices, got [8] and [8, 5])"},
      {"linear_cross_entropy_labels",
       [](Graph& g) { g.linear_cross_entropy(g.input("x", {4, 8}), g.input("w", {8, 5}), g.input_u32("t", {5})); },
       R"(linear_cross_entropy "linear_cross_entropy_0": labels must be [4], one a row of logits [4, 5], got [5])"},
      {"linear_cross_entropy_float_labels",
       [](Graph& g) { g.linear_cross_entropy(g.input("x", {4, 8}), g.input("w", {8, 5}), g.input("t", {4})); },
       R"(linear_cross_entropy "linear_cross_entropy_0": labels must be u32, got f32[4])"},
      {"linear_cross_entropy_bf16",
       [](Graph& g) { g.linear_cross_entropy(g.input("x", {4, 8}, DType::bf16), g.input("w", {8, 5}), g.input_u32("t", {4})); },
       R"(linear_cross_entropy "linear_cross_entropy_0": dtypes differ, got bf16[4, 8] and f32[8, 5])"},
      {"linear_cross_entropy_smoothing",
       [](Graph& g) { g.linear_cross_entropy(g.input("x", {4, 8}), g.input("w", {8, 5}), g.input_u32("t", {4}), {.label_smoothing = 1.0}); },
       R"(linear_cross_entropy "linear_cross_entropy_0": label_smoothing must be in [0, 1), got 1.000000)"},
      {"linear_cross_entropy_inputs", [](Graph& g) { g.record(LinearCrossEntropy{}, {g.input("x", {4, 8}), g.input("w", {8, 5})}); },
       R"(linear_cross_entropy "linear_cross_entropy_0": takes 3 inputs, got 2)"},
      {"linear_cross_entropy_grad_inputs", [](Graph& g) { linear_cross_entropy_grad(g, {4}, {}, {}, false); },
       R"(linear_cross_entropy_grad "linear_cross_entropy_grad_0": takes 6 inputs, got 5)"},
      {"linear_cross_entropy_grad_lse", [](Graph& g) { linear_cross_entropy_grad(g, {5}, {}, {}); },
       R"(linear_cross_entropy_grad "linear_cross_entropy_grad_0": lse and rows differ, got f32[5] and f32[4])"},
      {"linear_cross_entropy_grad_counted", [](Graph& g) { linear_cross_entropy_grad(g, {4}, {1}, {}); },
       R"(linear_cross_entropy_grad "linear_cross_entropy_grad_0": counted and the loss differ, got f32[1] and f32[])"},
      {"linear_cross_entropy_grad_dloss", [](Graph& g) { linear_cross_entropy_grad(g, {4}, {}, {4}); },
       R"(linear_cross_entropy_grad "linear_cross_entropy_grad_0": dloss and the loss differ, got f32[4] and f32[])"},
      {"mse", [](Graph& g) { g.mse(g.input("a", {2, 3}), g.input("b", {3, 2})); }, "mse: prediction and target differ, got [2, 3] and [3, 2]"},
      {"bce", [](Graph& g) { g.bce_with_logits(g.input("a", {2}), g.input("b", {2, 1})); },
       "bce_with_logits: logits and targets differ, got [2] and [2, 1]"},
      {"shape_of_zero", [](Graph& g) { g.input("x", {0, 3}); }, "shape: every dimension must be at least 1, got [0, 3]"},
      {"shape_of_rank_3", [](Graph& g) { g.input("x", {1, 2, 3}); }, "shape: at most 2 dimensions, got [1, 2, 3]"},
  };
}

std::vector<BadInput> attention() {
  return {
      {"heads_do_not_divide", [](Graph& g) { attend(g, {5, 24}, {5, 20}, {5, 20}, 6, 5, 4); },
       R"(multi_head_attn "attn": num_heads must divide by num_kv_heads, got 6 and 5)"},
      {"no_heads", [](Graph& g) { attend(g, {5, 24}, {5, 24}, {5, 24}, 0, 1, 4); },
       R"(multi_head_attn "attn": numbers of heads must be at least 1, got 0 and 1)"},
      {"head_dim_0", [](Graph& g) { attend(g, {5, 8}, {5, 8}, {5, 8}, 2, 2, 0); }, R"(multi_head_attn "attn": head_dim must be 1 to 256, got 0)"},
      {"head_dim_257", [](Graph& g) { attend(g, {5, 514}, {5, 514}, {5, 514}, 2, 2, 257); },
       R"(multi_head_attn "attn": head_dim must be 1 to 256, got 257)"},
      {"q_columns", [](Graph& g) { attend(g, {5, 20}, {5, 8}, {5, 8}, 4, 2, 4); },
       R"(multi_head_attn "attn": q must have 4 heads of 4, so 16 columns, got [5, 20])"},
      {"k_columns", [](Graph& g) { attend(g, {5, 16}, {5, 16}, {5, 16}, 4, 2, 4); },
       R"(multi_head_attn "attn": k must have 2 heads of 4, so 8 columns, got [5, 16])"},
      {"v_rows", [](Graph& g) { attend(g, {5, 16}, {5, 8}, {6, 8}, 4, 2, 4); }, R"(multi_head_attn "attn": k and v differ, got [5, 8] and [6, 8])"},
      {"self_attention_of_unequal_lengths", [](Graph& g) { attend(g, {5, 16}, {6, 8}, {6, 8}, 4, 2, 4, {}, false); },
       R"(multi_head_attn "attn": q and k must have equally many rows unless it is cross-attention, got 5 and 6)"},
      {"full_attention_of_unequal_lengths",
       [](Graph& g) { g.full_attention(g.input("q", {5, 4}), g.input("k", {6, 4}), g.input("v", {6, 4}), 1, 1, 4); },
       R"(full_attention "full_attention_0": q and k must have equally many rows unless it is cross-attention, got 5 and 6)"},
      {"window_of_full_attention", [](Graph& g) { attend(g, {5, 4}, {5, 4}, {5, 4}, 1, 1, 4, {.window = 3}); },
       R"(multi_head_attn "attn": a window needs a causal mask, got a full one)"},
      {"negative_window", [](Graph& g) { attend(g, {5, 4}, {5, 4}, {5, 4}, 1, 1, 4, {.window = -1}); },
       R"(multi_head_attn "attn": window must not be negative, got -1)"},
      {"window_mask_without_window",
       [](Graph& g) { attend(g, {5, 4}, {5, 4}, {5, 4}, 1, 1, 4, {.mask = Mask::Kind::window}); },
       R"(multi_head_attn "attn": a window mask needs a window of at least 1, got 0)"},
      {"uniform_length", [](Graph& g) { attend(g, {6, 4}, {6, 4}, {6, 4}, 1, 1, 4, {.segments = Segments::uniform(4, 3)}); },
       R"(multi_head_attn "attn": q must be a multiple of the segment length, got 6 rows and length 4)"},
      {"uniform_counts", [](Graph& g) { attend(g, {6, 4}, {6, 4}, {6, 4}, 1, 1, 4, {.segments = Segments::uniform(3, 2)}); },
       R"(multi_head_attn "attn": q and k must hold equally many segments, got 2 and 3)"},
      {"packed_counts", [](Graph& g) { attend(g, {6, 4}, {6, 4}, {6, 4}, 1, 1, 4, packed(g, {3}, {4})); },
       R"(multi_head_attn "attn": q and kv segment offsets differ, got u32[3] and u32[4])"},
      {"packed_dtype", [](Graph& g) { attend(g, {6, 4}, {6, 4}, {6, 4}, 1, 1, 4, packed(g, {3}, {3}, DType::f32)); },
       R"(multi_head_attn "attn": segment offsets must be u32, got f32[3])"},
      {"packed_one_offset", [](Graph& g) { attend(g, {6, 4}, {6, 4}, {6, 4}, 1, 1, 4, packed(g, {1}, {1})); },
       R"(multi_head_attn "attn": segment offsets must be a vector of at least 2, got [1])"},
      {"rope_odd_head_dim", [](Graph& g) { g.rope(g.input("x", {5, 6}), 10000.0, 3); }, R"(rope "rope_0": head_dim must be even, got 3)"},
      {"rope_head_dim_0", [](Graph& g) { g.rope(g.input("x", {5, 6}), 10000.0, 0); }, R"(rope "rope_0": head_dim must be even, got 0)"},
      {"rope_columns", [](Graph& g) { g.rope(g.input("x", {5, 6}), 10000.0, 4); },
       R"(rope "rope_0": columns must be a multiple of head_dim, got [5, 6] and 4)"},
      {"rope_theta", [](Graph& g) { g.rope(g.input("x", {5, 4}), 0.0, 4); }, R"(rope "rope_0": theta must be positive, got 0.000000)"},
      {"rope_linear_factor", [](Graph& g) { g.rope(g.input("x", {5, 4}), 10.0, 4, {}, {RopeScaling::Kind::linear, 0.0}); },
       R"(rope "rope_0": the scaling factor must be finite and above 0, got 0.000000)"},
      {"rope_llama3_factor", [](Graph& g) { g.rope(g.input("x", {5, 4}), 10.0, 4, {}, {RopeScaling::Kind::llama3, kInfinity}); },
       R"(rope "rope_0": the scaling factor must be finite and above 0, got inf)"},
      {"rope_llama3_low", [](Graph& g) { g.rope(g.input("x", {5, 4}), 10.0, 4, {}, {RopeScaling::Kind::llama3, 8.0, 0.0}); },
       R"(rope "rope_0": low_freq_factor must be above 0 and below high_freq_factor, got 0.000000 and 4.000000)"},
      {"rope_llama3_high", [](Graph& g) { g.rope(g.input("x", {5, 4}), 10.0, 4, {}, {RopeScaling::Kind::llama3, 8.0, 4.0, 4.0}); },
       R"(rope "rope_0": low_freq_factor must be above 0 and below high_freq_factor, got 4.000000 and 4.000000)"},
      {"rope_llama3_high_infinite", [](Graph& g) { g.rope(g.input("x", {5, 4}), 10.0, 4, {}, {RopeScaling::Kind::llama3, 8.0, 1.0, kInfinity}); },
       R"(rope "rope_0": low_freq_factor must be above 0 and below high_freq_factor, got 1.000000 and inf)"},
      {"rope_llama3_context", [](Graph& g) { g.rope(g.input("x", {5, 4}), 10.0, 4, {}, {RopeScaling::Kind::llama3, 8.0, 1.0, 4.0, 0}); },
       R"(rope "rope_0": original_context must be at least 1, got 0)"},
      {"cached_window",
       [](Graph& g) { g.cached_attention(g.input("q", {1, 4}), g.state("k", {8, 4}), g.state("v", {8, 4}), g.input_u32("n", {}), 1, 1, 4, {.window = -1}); },
       R"(cached_attention "cached_attention_0": window must not be negative, got -1)"},
      {"rope_offset", [](Graph& g) { g.rope_with_offset(g.input("x", {5, 4}), 10.0, -1, 4); }, R"(rope "rope_0": offset must not be negative, got -1)"},
      {"rope_dynamic_offset", [](Graph& g) { g.rope_dynamic_offset(g.input("x", {5, 4}), 10.0, g.input_u32("o", {2}), 4); },
       R"(rope "rope_0": the offset must be u32[] or u32[1], one a segment, got u32[2])"},
      {"rope_offsets_of_uniform_segments",
       [](Graph& g) { g.rope_dynamic_offset(g.input("x", {6, 4}), 10.0, g.input_u32("o", {2}), 4, Segments::uniform(2)); },
       R"(rope "rope_0": the offset must be u32[] or u32[3], one a segment, got u32[2])"},
      {"rope_offsets_of_packed_segments",
       [](Graph& g) { g.rope_dynamic_offset(g.input("x", {6, 4}), 10.0, g.input_u32("o", {2}), 4, Segments::packed(g.input_u32("s", {4}))); },
       R"(rope "rope_0": the offset must be u32[] or u32[3], one a segment, got u32[2])"},
      {"rope_offset_type", [](Graph& g) { g.rope_dynamic_offset(g.input("x", {6, 4}), 10.0, g.input("o", {}), 4); },
       R"(rope "rope_0": the offset must be u32, got f32[])"},
      {"cached_attention_rows",
       [](Graph& g) {
         g.cached_attention(g.input("q", {3, 4}), g.state("k", {8, 4}), g.state("v", {8, 4}), g.input_u32("n", {2}), 1, 1, 4);
       },
       R"(cached_attention "cached_attention_0": q must be equally many for each of 2 sequences, got [3, 4])"},
      {"cached_attention_caches",
       [](Graph& g) {
         g.cached_attention(g.input("q", {1, 4}), g.state("k", {8, 4}), g.state("v", {9, 4}), g.input_u32("n", {}), 1, 1, 4);
       },
       R"(cached_attention "cached_attention_0": k_cache and v_cache differ, got f32[8, 4] and f32[9, 4])"},
      {"cached_attention_length",
       [](Graph& g) { g.cached_attention(g.input("q", {1, 4}), g.state("k", {8, 4}), g.state("v", {8, 4}), g.input("n", {}), 1, 1, 4); },
       R"(cached_attention "cached_attention_0": kv_len must be u32, got f32[])"},
      {"cached_attention_length_rank",
       [](Graph& g) { g.cached_attention(g.input("q", {1, 4}), g.state("k", {8, 4}), g.state("v", {8, 4}), g.input_u32("n", {1, 1}), 1, 1, 4); },
       R"(cached_attention "cached_attention_0": kv_len must be u32[] or a vector with a number for each sequence, got u32[1, 1])"},
      {"cached_attention_rows_of_caches",
       [](Graph& g) { g.cached_attention(g.input("q", {3, 4}), g.state("k", {8, 4}), g.state("v", {8, 4}), g.input_u32("n", {3}), 1, 1, 4); },
       R"(cached_attention "cached_attention_0": the cache must have equally many rows for each of 3 sequences, got [8, 4])"},
      {"cached_attention_queries_fit",
       [](Graph& g) { g.cached_attention(g.input("q", {10, 4}), g.state("k", {8, 4}), g.state("v", {8, 4}), g.input_u32("n", {2}), 1, 1, 4); },
       R"(cached_attention "cached_attention_0": q must fit in the cache, got 5 rows a sequence and a cache of 4)"},
      {"cached_attention_slots",
       [](Graph& g) {
         g.cached_attention(g.input("q", {2, 4}), g.state("k", {8, 4}), g.state("v", {8, 4}), g.input_u32("n", {2}), 1, 1, 4, {.slots = {4, g.input_u32("s", {1})}});
       },
       R"(cached_attention "cached_attention_0": slots and kv_len differ, got u32[1] and u32[2])"},
      {"cached_attention_sequences",
       [](Graph& g) {
         g.cached_attention(g.input("q", {2, 4}), g.state("k", {8, 4}), g.state("v", {8, 4}), g.input_u32("n", {2}), 1, 1, 4, {.slots = {3, g.input_u32("s", {2})}});
       },
       R"(cached_attention "cached_attention_0": the cache must have equally many rows for each of 3 sequences, got [8, 4])"},
      {"cached_attention_negative_sequences",
       [](Graph& g) {
         g.cached_attention(g.input("q", {2, 4}), g.state("k", {8, 4}), g.state("v", {8, 4}), g.input_u32("n", {2}), 1, 1, 4, {.slots = {-1, g.input_u32("s", {2})}});
       },
       R"(cached_attention "cached_attention_0": the cache's sequences must not be negative, got -1)"},
      {"cache_write_rows", [](Graph& g) { g.cache_write(g.input("rows", {3, 4}), g.state("k", {8, 4}), g.input_u32("p", {2})); },
       R"(cache_write "cache_write_0": the new rows must be equally many for each of 2 sequences, got [3, 4])"},
      {"cache_write_rows_fit", [](Graph& g) { g.cache_write(g.input("rows", {9, 4}), g.state("k", {8, 4}), g.input_u32("p", {})); },
       R"(cache_write "cache_write_0": the new rows must fit in the cache, got 9 rows a sequence and a cache of 8)"},
      {"cache_write_position", [](Graph& g) { g.cache_write(g.input("row", {1, 4}), g.state("k", {8, 4}), g.input("p", {})); },
       R"(cache_write "cache_write_0": kv_pos must be u32, got f32[])"},
      {"cache_write_row", [](Graph& g) { g.cache_write(g.input("row", {1, 5}), g.state("k", {8, 4}), g.input_u32("p", {})); },
       R"(cache_write "cache_write_0": the new rows must have the columns of the cache, got [1, 5] and [8, 4])"},
      {"cache_write_to_an_input", [](Graph& g) { g.cache_write(g.input("row", {1, 4}), g.input("k", {8, 4}), g.input_u32("p", {})); },
       R"(cache_write "cache_write_0": overwrites "k", which is not a state or parameter)"},
  };
}

std::vector<BadInput> names_dtypes_and_settings() {
  constexpr std::int64_t kMany = std::numeric_limits<std::int64_t>::max() / 2;
  return {
      {"duplicate_parameter", [](Graph& g) { g.parameter("w", {2}), g.parameter("w", {3}); }, R"(parameter "w": the name is taken already)"},
      {"parameter_named_as_input", [](Graph& g) { g.input("w", {2}), g.parameter("w", {2}); }, R"(parameter "w": the name is taken already)"},
      {"duplicate_node", [](Graph& g) { g.softmax(g.softmax(g.input("x", {2}), "y"), "y"); }, R"(softmax "y": the name is taken already)"},
      {"parameter_without_name", [](Graph& g) { g.parameter("", {2}); }, "parameter: needs a name"},
      {"input_without_name", [](Graph& g) { g.input("", {2}); }, "input: needs a name"},
      {"state_without_name", [](Graph& g) { g.state("", {2}); }, "state: needs a name"},
      {"output_without_name", [](Graph& g) { g.output("", g.input("x", {2})); }, "output: needs a name"},
      {"output_name_taken", [](Graph& g) { g.output("y", g.input("x", {2})), g.output("y", g.input("z", {2})); },
       R"(output "y": the name is taken already)"},
      {"output_named_as_another_node", [](Graph& g) { g.input("x", {2}), g.output("x", g.input("z", {2})); },
       R"(output "x": another node has this name)"},
      {"value_of_no_graph", [](Graph& g) { g.add(g.input("x", {2}), Value{}); }, R"(add "add_0": input 1 is not a value of this graph)"},
      {"slot_that_does_not_exist", [](Graph& g) { g.exp(Value{g.input("x", {2}).node, 1}); }, R"(exp "exp_0": input 0 is not a value of this graph)"},
      {"float_labels", [](Graph& g) { g.cross_entropy(g.input("logits", {4, 5}), g.input("labels", {4})); },
       R"(cross_entropy "cross_entropy_0": labels must be u32, got f32[4])"},
      {"float_ids", [](Graph& g) { g.embedding(g.input("table", {4, 5}), g.input("ids", {4})); },
       R"(embedding "embedding_0": ids must be u32, got f32[4])"},
      {"u32_in_add", [](Graph& g) { g.add(g.input("a", {4}), g.input_u32("b", {4})); },
       R"(add "add_0": takes floating-point tensors, got u32[4])"},
      {"mixed_floats", [](Graph& g) { g.mul(g.input("a", {4}), g.input("b", {4}, DType::f64)); },
       R"(mul "mul_0": dtypes differ, got f32[4] and f64[4])"},
      {"bf16_table", [](Graph& g) { g.embedding(g.input("table", {4, 5}, DType::bf16), g.input_u32("ids", {2})); },
       R"(embedding "embedding_0": does not compute in bf16, cast to f32 first, got bf16[4, 5])"},
      {"bf16_logits", [](Graph& g) { g.cross_entropy(g.input("x", {4, 5}, DType::bf16), g.input_u32("t", {4})); },
       R"(cross_entropy "cross_entropy_0": does not compute in bf16, cast to f32 first, got bf16[4, 5])"},
      {"bf16_norm_of_gradients", [](Graph& g) { g.record(GlobalNorm{}, {g.input("x", {4}), g.input("y", {4}, DType::bf16)}); },
       R"(global_norm "global_norm_0": does not compute in bf16, cast to f32 first, got bf16[4])"},
      {"bf16_mixed", [](Graph& g) { g.swiglu(g.input("gate", {4}, DType::bf16), g.input("up", {4})); },
       R"(swiglu "swiglu_0": dtypes differ, got bf16[4] and f32[4])"},
      {"bf16_bias", [](Graph& g) {
         g.matmul_bias(g.input("a", {2, 3}, DType::bf16), g.input("b", {3, 4}, DType::bf16), g.input("c", {4}, DType::bf16));
       }, R"(matmul "matmul_0": bias must be f32, got bf16[4])"},
      {"rounded_f32_product", [](Graph& g) { g.record(MatMul{false, false, true}, {g.input("a", {2, 3}), g.input("b", {3, 4})}); },
       R"(matmul "matmul_0": rounds products of bf16 operands alone, got f32[2, 3] and f32[3, 4])"},
      {"rounded_sum", [](Graph& g) {
         g.record(MatMul{false, false, true}, {g.input("a", {2, 3}, DType::bf16), g.input("b", {3, 4}, DType::bf16), g.input("c", {2, 4})});
       }, R"(matmul "matmul_0": does not round a sum with an addend, got bf16 and the addend f32[2, 4])"},
      {"bf16_weight_of_rms_norm", [](Graph& g) { g.rms_norm(g.input("x", {2, 3}), g.input("w", {3}, DType::bf16)); },
       R"(rms_norm "rms_norm_0": weight must be f32, got bf16[3])"},
      {"bf16_weight_of_bf16_rms_norm", [](Graph& g) { g.rms_norm(g.input("x", {2, 3}, DType::bf16), g.input("w", {3}, DType::bf16)); },
       R"(rms_norm "rms_norm_0": weight must be f32, got bf16[3])"},
      {"bf16_bias_of_layer_norm", [](Graph& g) { g.layer_norm(g.input("x", {2, 3}), g.input("w", {3}), g.input("b", {3}, DType::bf16)); },
       R"(layer_norm "layer_norm_0": bias must be f32, got bf16[3])"},
      {"rounded_f64_norm", [](Graph& g) { g.record(RmsNorm{1e-5, true}, {g.input("x", {2, 3}, DType::f64), g.input("w", {3}, DType::f64)}); },
       R"(rms_norm "rms_norm_0": does not round f64 to bf16)"},
      {"norm_gradient_shape", [](Graph& g) {
         g.record(RmsNormGrad{}, {g.input("x", {2, 3}), g.input("w", {3}), g.input("rstd", {2}), g.input("dout", {3, 2}, DType::bf16)});
       }, R"(rms_norm_grad "rms_norm_grad_0": x and dout differ, got bf16[2, 3] and bf16[3, 2])"},
      {"norm_gradient_of_bf16", [](Graph& g) {
         g.record(RmsNormGrad{}, {g.input("x", {2, 3}, DType::bf16), g.input("w", {3}), g.input("rstd", {2}), g.input("dout", {2, 3})});
       }, R"(rms_norm_grad "rms_norm_grad_0": x and dout differ, got bf16[2, 3] and f32[2, 3])"},
      {"bf16_addend_of_norm_gradient", [](Graph& g) {
         g.record(RmsNormGrad{}, {g.input("x", {2, 3}), g.input("w", {3}), g.input("rstd", {2}), g.input("dout", {2, 3}, DType::bf16),
                                  g.input("addend", {2, 3}, DType::bf16)});
       }, R"(rms_norm_grad "rms_norm_grad_0": x and addend differ, got f32[2, 3] and bf16[2, 3])"},
      {"bf16_maxima", [](Graph& g) { g.record(ReduceMaxGrad{}, {g.input("x", {4}, DType::bf16), g.input("dout", {}, DType::bf16)}); },
       R"(max_grad "max_grad_0": the maxima and dout differ, got f32[] and bf16[])"},
      {"bf16_lse", [](Graph& g) {
         const Value q = g.input("q", {2, 3}, DType::bf16), n = g.input("lse", {2, 1}, DType::bf16);
         g.record(MultiHeadAttnGradQ{MultiHeadAttn{{1, 1, 3}, {}, 1.0, {}}}, {q, q, q, n, q, n});
       }, R"(multi_head_attn_grad_q "multi_head_attn_grad_q_0": lse and q differ, got bf16[2, 1] and f32[2, 1])"},
      {"cast_of_u32", [](Graph& g) { g.cast(g.input_u32("a", {4}), DType::f32); },
       R"(cast "cast_0": casts between floating-point types, got u32[4] to f32)"},
      {"u32_parameter", [](Graph& g) { g.parameter("w", {4}, Init::zeros(), DType::u32); },
       R"(parameter "w": a parameter must be floating-point, got u32[4])"},
      {"random_u32_state", [](Graph& g) { g.state("s", {4}, Init::normal(0, 1), DType::u32); }, R"(state "s": a u32 state starts with a constant)"},
      {"fraction_in_u32_constant", [](Graph& g) { g.constant({1}, {0.5}, DType::u32, "c"); },
       R"(constant "c": a u32 constant holds whole numbers, got 0.500000)"},
      {"negative_u32_constant", [](Graph& g) { g.constant({1}, {-1}, DType::u32, "c"); },
       R"(constant "c": a u32 constant holds whole numbers, got -1.000000)"},
      {"dropout_1", [](Graph& g) { g.dropout(g.input("x", {4}), 1.0); }, R"(dropout "dropout_0": p must be in [0, 1), got 1.000000)"},
      {"dropout_negative", [](Graph& g) { g.dropout(g.input("x", {4}), -0.1); }, R"(dropout "dropout_0": p must be in [0, 1), got -0.100000)"},
      {"dropout_nan", [](Graph& g) { g.dropout(g.input("x", {4}), std::numeric_limits<double>::quiet_NaN()); },
       R"(dropout "dropout_0": p must be in [0, 1), got nan)"},
      {"label_smoothing_1", [](Graph& g) { g.cross_entropy(g.input("x", {4, 5}), g.input_u32("t", {4}), {.label_smoothing = 1.0}); },
       R"(cross_entropy "cross_entropy_0": label_smoothing must be in [0, 1), got 1.000000)"},
      {"label_smoothing_negative", [](Graph& g) { g.cross_entropy(g.input("x", {4, 5}), g.input_u32("t", {4}), {.label_smoothing = -0.1}); },
       R"(cross_entropy "cross_entropy_0": label_smoothing must be in [0, 1), got -0.100000)"},
      {"eps_0", [](Graph& g) { g.rms_norm(g.input("x", {4, 5}), g.input("w", {5}), 0.0); },
       R"(rms_norm "rms_norm_0": eps must be positive, got 0.000000)"},
      {"max_norm_negative", [](Graph& g) { g.record(UpdateScale{-1.0}, {g.input("norm", {})}); },
       R"(update_scale "update_scale_0": max_norm must not be negative, got -1.000000)"},
      {"assign_of_another_type", [](Graph& g) { g.assign(g.input("x", {2}), g.state("s", {3})); },
       R"(assign "assign_0": value and state differ, got f32[2] and f32[3])"},
      {"assign_to_a_constant", [](Graph& g) { g.assign(g.input("x", {2}), g.constant({2}, {1}, DType::f32, "c")); },
       R"(assign "assign_0": overwrites "c", which is not a state or parameter)"},
      {"update_of_one_state_twice",
       [](Graph& g) {
         const Value p = g.parameter("p", {2});
         g.record(SgdUpdate{}, {p, g.input("g", {2}), p, g.input("lr", {}), g.input("scale", {})});
       },
       R"(sgd_update "sgd_update_0": overwrites "p" twice)"},
      {"too_few_inputs", [](Graph& g) { g.record(MatMul{}, {g.input("x", {2, 2})}); }, R"(matmul "matmul_0": takes 2 to 3 inputs, got 1)"},
      {"too_many_elements", [](Graph& g) { g.input("x", {kMany, 3}); }, "shape: too many elements, got [" + std::to_string(kMany) + ", 3]"},
  };
}

// clang-format on

class GraphRefuses : public ::testing::TestWithParam<BadInput> {};

TEST_P(GraphRefuses, WithThisMessage) {
  Graph g;
  try {
    GetParam().record(g);
    FAIL() << "was recorded:\n" << g.to_text();
  } catch (const Error& error) {
    EXPECT_EQ(error.what(), GetParam().message);
  }
  EXPECT_NO_THROW(g.verify());  // what was refused left nothing behind
}

std::string name_of(const ::testing::TestParamInfo<BadInput>& info) { return info.param.name; }
INSTANTIATE_TEST_SUITE_P(Shapes, GraphRefuses, ::testing::ValuesIn(shapes()), name_of);
INSTANTIATE_TEST_SUITE_P(Attention, GraphRefuses, ::testing::ValuesIn(attention()), name_of);
INSTANTIATE_TEST_SUITE_P(NamesDtypesAndSettings, GraphRefuses, ::testing::ValuesIn(names_dtypes_and_settings()), name_of);

}  // namespace
}  // namespace graft
