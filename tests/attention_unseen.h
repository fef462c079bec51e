#pragma once
// What a query does not see may hold anything: infinity and NaN stay out of its result and its gradient, and a query's own out of the gradients of keys that do not see it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "graft/autodiff.h"
#include "graft/backend.h"
#include "graft/graph.h"
#include "tests/run_graph.h"

namespace graft::testing {

/// Where rows are poisoned one after the other, in the last kv head and the heads that read it, and which rows of which results, there, must not be moved by that. All other rows must
/// not be finite there; in other heads nothing may move.
struct Unseen {
  AttentionOptions options;
  std::int64_t q_rows, kv_rows;
  std::string_view where;  ///< the tensors poisoned, of "qkv"
  std::vector<std::int64_t> rows;
  std::vector<const char*> names;  ///< the results that are computed
  bool (*unmoved)(std::int64_t row, std::int64_t poisoned);
  std::int64_t heads = 1, kv_heads = 1;
  std::optional<std::int64_t> column = {};  ///< of a head, where only that is poisoned, and may move
};

inline const double kPoisons[] = {std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()};

inline std::vector<double> mixed_numbers(std::int64_t count, std::uint32_t& seed) {
  std::vector<double> x(static_cast<std::size_t>(count));
  for (double& e : x) e = static_cast<double>((seed = seed * 1664525u + 1013904223u) >> 8) / 8388608.0 - 1.0;
  return x;
}

/// Attention or its gradients, where row `poisoned` is `poison`, if that is not 0.
inline Inputs attend(Backend& backend, DType dtype, std::int64_t dim, const Unseen& unseen, std::int64_t poisoned, double poison) {
  Graph g(1);
  const std::int64_t q_cols = unseen.heads * dim, kv_cols = unseen.kv_heads * dim;
  const Value q = g.input("q", {unseen.q_rows, q_cols}), k = g.input("k", {unseen.kv_rows, kv_cols}), v = g.input("v", {unseen.kv_rows, kv_cols});
  const auto narrow = [&](Value x) { return dtype == DType::f32 ? x : g.cast(x, dtype); };
  const Value out = g.multi_head_attn(narrow(q), narrow(k), narrow(v), unseen.heads, unseen.kv_heads, dim, true, unseen.options);
  const Gradients all = differentiate(g, g.sum(g.mul(out, out)), {q, k, v});
  for (const std::string_view name : unseen.names) g.output(name, name == "out" ? out : all.all[std::string_view("qkv").find(name[1])].gradient);
  std::uint32_t seed = 1;
  Inputs inputs = {{"q", mixed_numbers(unseen.q_rows * q_cols, seed)}, {"k", mixed_numbers(unseen.kv_rows * kv_cols, seed)}, {"v", mixed_numbers(unseen.kv_rows * kv_cols, seed)}};
  for (const char tensor : poison == 0.0 ? std::string_view() : unseen.where) {
    const std::int64_t cols = tensor == 'q' ? q_cols : kv_cols, count = cols / unseen.kv_heads;
    const auto from = inputs.at(std::string(1, tensor)).begin() + (poisoned + 1) * cols - count;
    for (std::int64_t c = 0; c < count; ++c)
      if (unseen.column.value_or(c % dim) == c % dim) from[c] = poison;
  }
  return run_once(g, backend, inputs);
}

/// With each of `poisons` in each of the rows, or, if `in_turn`, with the next one in the next row.
inline void expect_unmoved(Backend& backend, DType dtype, std::int64_t dim, const Unseen& unseen, bool in_turn = false) {
  const Inputs want = attend(backend, dtype, dim, unseen, 0, 0.0);
  std::size_t turn = 0;
  for (const std::int64_t poisoned : unseen.rows)
    for (std::size_t i = 0; i < (in_turn ? 1 : std::size(kPoisons)); ++i) {
      const double poison = kPoisons[turn++ % std::size(kPoisons)];
      const Inputs got = attend(backend, dtype, dim, unseen, poisoned, poison);
      for (const char* name : unseen.names)
        for (std::size_t e = 0; e < want.at(name).size(); ++e) {
          const std::string_view result = name;
          const std::int64_t cols = dim * (result == "out" || result == "dq" ? unseen.heads : unseen.kv_heads);
          const std::int64_t row = static_cast<std::int64_t>(e) / cols, column = static_cast<std::int64_t>(e) % cols;
          if (column < cols - cols / unseen.kv_heads || column % dim != unseen.column.value_or(column % dim) || unseen.unmoved(row, poisoned)) {
            ASSERT_EQ(got.at(name)[e], want.at(name)[e]) << backend.description() << ", " << poison << " in row " << poisoned << ", " << name << " " << e;
          } else {
            ASSERT_FALSE(std::isfinite(got.at(name)[e])) << backend.description() << ", " << poison << " in row " << poisoned << ", " << name << " " << e;
          }
        }
    }
}

inline AttentionOptions causal(std::int64_t window = 0) {
  AttentionOptions options;
  options.mask = Mask::Kind::causal;
  options.window = window;
  return options;
}

/// Rows before a poisoned key are as without it.
inline Unseen key_after(std::int64_t rows, std::vector<std::int64_t> poisoned) {
  return {causal(), rows, rows, "kv", std::move(poisoned), {"out", "dq"}, [](std::int64_t row, std::int64_t key) { return row < key; }};
}
/// So are those whose window begins behind it, between rows that see other keys of its tile.
inline Unseen key_before_windows(std::int64_t rows, std::vector<std::int64_t> poisoned) {
  return {causal(20), rows, rows, "kv", std::move(poisoned), {"out", "dq"}, [](std::int64_t row, std::int64_t key) { return row < key || row >= key + 20; }};
}
/// An element of a value reaches its own column. With 16 keys more than queries, tiles' first keys are hidden from some of a warp's queries.
inline Unseen element_after(std::int64_t rows, std::vector<std::int64_t> poisoned) {
  return {causal(), rows, rows + 16, "v", std::move(poisoned), {"out"}, [](std::int64_t row, std::int64_t key) { return row + 16 < key; }, 1, 1, 13};
}
/// With a window of 120 rows all strips of 16 but one see it, and of that one some rows.
inline Unseen element_behind() {
  return {causal(120), 140, 140, "v", {0}, {"out"}, [](std::int64_t row, std::int64_t key) { return row >= key + 120; }, 1, 1, 13};
}
/// It reaches its column of the gradient of each value that a query sees beside it.
inline Unseen element_before(std::int64_t rows, std::vector<std::int64_t> poisoned) {
  return {causal(), rows, rows, "v", std::move(poisoned), {"dv"}, [](std::int64_t, std::int64_t) { return false; }, 1, 1, 13};
}
/// So it does without a mask.
inline Unseen element_without_mask(std::vector<std::int64_t> poisoned) {
  AttentionOptions options;
  options.mask = Mask::Kind::full;
  return {options, 140, 20, "v", std::move(poisoned), {"dv"}, [](std::int64_t, std::int64_t) { return false; }, 1, 1, 13};
}
/// Keys after a poisoned query have their gradients without it.
inline Unseen query_before(std::int64_t rows, std::vector<std::int64_t> poisoned) {
  return {causal(), rows, rows, "q", std::move(poisoned), {"dk", "dv"}, [](std::int64_t row, std::int64_t query) { return row > query; }};
}
/// With fewer keys than queries too.
inline Unseen query_before_of_fewer_keys(std::vector<std::int64_t> poisoned) {
  return {causal(), 100, 60, "q", std::move(poisoned), {"dk", "dv"}, [](std::int64_t row, std::int64_t query) { return row > query - 40; }};
}
/// So have those before its window, the first key of a tile among them.
inline Unseen query_behind(std::vector<std::int64_t> poisoned, std::vector<const char*> names) {
  return {causal(20), 140, 140, "q", std::move(poisoned), std::move(names), [](std::int64_t row, std::int64_t query) { return row > query || row <= query - 20; }};
}
/// A key outside of all windows, here of the first 66, reaches no result.
inline Unseen key_outside(std::vector<std::int64_t> poisoned) {
  return {causal(4), 30, 99, "kv", std::move(poisoned), {"out", "dq", "dk", "dv"}, [](std::int64_t, std::int64_t) { return true; }};
}

/// Sequences of 70 queries and 90 keys, of two kv heads that three heads each read.
constexpr std::int64_t kQueries = 70, kKeys = 90;
inline AttentionOptions causal_batch() {
  AttentionOptions options = causal();
  options.segments = Segments::uniform(kQueries, kKeys);
  return options;
}
constexpr bool sees(std::int64_t query, std::int64_t key) { return query / kQueries == key / kKeys && key % kKeys <= query % kQueries + kKeys - kQueries; }
inline Unseen key_of_one_sequence() {
  return {causal_batch(), 2 * kQueries, 2 * kKeys, "kv", {50, 130}, {"out", "dq"}, [](std::int64_t row, std::int64_t key) { return !sees(row, key); }, 6, 2};
}
inline Unseen query_of_one_sequence() {
  return {causal_batch(), 2 * kQueries, 2 * kKeys, "q", {30, 110}, {"dk", "dv"}, [](std::int64_t row, std::int64_t query) { return !sees(query, row); }, 6, 2};
}

/// More sequences, of two rows, than the careful kernels look at in one go with one multiprocessor. The first row does not see the second.
inline Unseen row_of_many_sequences(std::string_view where, std::vector<std::int64_t> poisoned, std::vector<const char*> names) {
  AttentionOptions options = causal();
  options.segments = Segments::uniform(2, 2);
  return {options, 132, 132, where, std::move(poisoned), std::move(names), [](std::int64_t row, std::int64_t other) { return row != other; }};
}

/// Without a mask, a poisoned query poisons its own results.
inline Unseen query_without_mask() {
  AttentionOptions options;
  options.mask = Mask::Kind::full;
  return {options, 140, 20, "q", {3, 133}, {"out", "dq"}, [](std::int64_t row, std::int64_t query) { return row != query; }};
}

/// A chunk of `chunk` ≤ 40 rows against a cache of 2 sequences: rows of the cache that nobody has written, and those of the chunk itself that come after a query.
inline void expect_cache_unseen(Backend& backend, DType dtype, std::int64_t dim, std::int64_t window, std::int64_t chunk) {
  constexpr std::int64_t kMaxSeq = 300, kLength[] = {270, 40};
  Graph g(1);
  const Value q = g.input("q", {2 * chunk, dim}), k = g.input("k", {2 * kMaxSeq, dim}), v = g.input("v", {2 * kMaxSeq, dim});
  const auto narrow = [&](Value x) { return dtype == DType::f32 ? x : g.cast(x, dtype); };
  CacheOptions options;
  options.window = window;
  g.output("out", g.cached_attention(narrow(q), narrow(k), narrow(v), g.input_u32("kv_len", {2}), 1, 1, dim, options));
  std::uint32_t seed = 1;
  Inputs inputs = {{"q", mixed_numbers(2 * chunk * dim, seed)},
                   {"k", mixed_numbers(2 * kMaxSeq * dim, seed)},
                   {"v", mixed_numbers(2 * kMaxSeq * dim, seed)},
                   {"kv_len", {kLength[0], kLength[1]}}};
  const Inputs want = run_once(g, backend, inputs);
  for (const double poison : kPoisons) {
    Inputs poisoned = inputs;
    for (const char* name : {"k", "v"})
      for (std::int64_t s = 0; s < 2; ++s) {
        auto* rows = poisoned.at(name).data() + s * kMaxSeq * dim;
        const std::int64_t first = std::max(kLength[s] - chunk - window + 1, std::int64_t{0});  // that the first query sees
        if (window > 0) std::fill(rows, rows + first * dim, poison);
        std::fill(rows + (kLength[s] - 1) * dim, rows + kMaxSeq * dim, poison);  // the last query alone sees the first of them
      }
    const Inputs got = run_once(g, backend, poisoned);
    for (std::size_t e = 0; e < want.at("out").size(); ++e) {
      const std::string where = backend.description() + ", " + std::to_string(poison) + ", element " + std::to_string(e);
      if (static_cast<std::int64_t>(e) / dim % chunk < chunk - 1) {
        ASSERT_EQ(got.at("out")[e], want.at("out")[e]) << where;
      } else {
        ASSERT_FALSE(std::isfinite(got.at("out")[e])) << where;
      }
    }
  }
}

}  // namespace graft::testing
