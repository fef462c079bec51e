#pragma once
// What a query does not see may hold anything: infinity and NaN stay out of its result and its gradient, and a query's own out of the gradients of keys that do not see it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "graft/autodiff.h"
#include "graft/backend.h"
#include "graft/graph.h"
#include "tests/run_graph.h"

namespace graft::testing {

/// Where rows are poisoned one after the other, and which rows of which results must not be moved by that. All other rows of those results must not be finite.
struct Unseen {
  AttentionOptions options;
  std::int64_t q_rows, kv_rows;
  std::string_view where;  ///< the tensors poisoned, of "qkv"
  std::vector<std::int64_t> rows;
  std::vector<const char*> names;
  std::int64_t (*begin)(std::int64_t poisoned);
  std::int64_t (*end)(std::int64_t poisoned);
};

inline const double kPoisons[] = {std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()};

inline std::vector<double> mixed_numbers(std::int64_t count, std::uint32_t& seed) {
  std::vector<double> x(static_cast<std::size_t>(count));
  for (double& e : x) e = static_cast<double>((seed = seed * 1664525u + 1013904223u) >> 8) / 8388608.0 - 1.0;
  return x;
}

/// Attention with its gradients, where row `poisoned` is `poison`, if that is not 0.
inline Inputs attend(Backend& backend, DType dtype, std::int64_t dim, const Unseen& unseen, std::int64_t poisoned, double poison) {
  Graph g(1);
  const Value q = g.input("q", {unseen.q_rows, dim}), k = g.input("k", {unseen.kv_rows, dim}), v = g.input("v", {unseen.kv_rows, dim});
  const auto narrow = [&](Value x) { return dtype == DType::f32 ? x : g.cast(x, dtype); };
  const Value out = g.multi_head_attn(narrow(q), narrow(k), narrow(v), 1, 1, dim, true, unseen.options);
  g.output("out", out);
  const Gradients all = differentiate(g, g.sum(g.mul(out, out)), {q, k, v});
  for (std::size_t i = 0; i < 3; ++i) g.output(std::string("d") + "qkv"[i], all.all[i].gradient);
  std::uint32_t seed = 1;
  Inputs inputs = {{"q", mixed_numbers(unseen.q_rows * dim, seed)}, {"k", mixed_numbers(unseen.kv_rows * dim, seed)}, {"v", mixed_numbers(unseen.kv_rows * dim, seed)}};
  for (const char tensor : poison == 0.0 ? std::string_view() : unseen.where) std::fill_n(inputs.at(std::string(1, tensor)).begin() + poisoned * dim, dim, poison);
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
          const auto row = static_cast<std::int64_t>(e) / dim;
          if (row >= unseen.begin(poisoned) && row < unseen.end(poisoned)) {
            ASSERT_EQ(got.at(name)[e], want.at(name)[e]) << backend.description() << ", " << poison << " in row " << poisoned << ", " << name << " " << e;
          } else {
            ASSERT_FALSE(std::isfinite(got.at(name)[e])) << backend.description() << ", " << poison << " in row " << poisoned << ", " << name << " " << e;
          }
        }
    }
}

constexpr auto kFirst = [](std::int64_t) -> std::int64_t { return 0; };
constexpr auto kPoisoned = [](std::int64_t row) { return row; };
constexpr auto kNext = [](std::int64_t row) { return row + 1; };
constexpr auto kAll = [](std::int64_t) -> std::int64_t { return 1 << 20; };

inline AttentionOptions causal(std::int64_t window = 0) {
  AttentionOptions options;
  options.mask = Mask::Kind::causal;
  options.window = window;
  return options;
}

/// Rows before a poisoned key are as without it.
inline Unseen key_after(std::int64_t rows, std::vector<std::int64_t> poisoned) {
  return {causal(), rows, rows, "kv", std::move(poisoned), {"out", "dq"}, kFirst, kPoisoned};
}
/// Keys after a poisoned query have their gradients without it.
inline Unseen query_before(std::int64_t rows, std::vector<std::int64_t> poisoned) {
  return {causal(), rows, rows, "q", std::move(poisoned), {"dk", "dv"}, kNext, kAll};
}
/// A key outside of all windows, here of the first 66, reaches no result.
inline Unseen key_outside(std::vector<std::int64_t> poisoned) {
  return {causal(4), 30, 99, "kv", std::move(poisoned), {"out", "dq", "dk", "dv"}, kFirst, kAll};
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
