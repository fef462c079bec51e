// What a query does not see may hold anything: infinity and NaN stay out of its result and its gradient, and a query's own out of the
// gradients of keys that do not see it.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "graft/autodiff.h"
#include "graft/backend.h"
#include "graft/graph.h"
#include "tests/run_graph.h"

namespace graft {
namespace {

constexpr std::int64_t kDim = 24;

using Results = std::map<std::string, std::vector<double>>;

/// Attention of `q_rows` on `kv_rows` with its gradients, where row `poisoned` of the tensors in `where` is `poison`, if it is not 0.
Results attend(Backend& backend, const AttentionOptions& options, std::int64_t q_rows, std::int64_t kv_rows, std::string_view where,
               std::int64_t poisoned, double poison) {
  Graph g(1);
  const Value q = g.input("q", {q_rows, kDim}), k = g.input("k", {kv_rows, kDim}), v = g.input("v", {kv_rows, kDim});
  const Value out = g.multi_head_attn(q, k, v, 1, 1, kDim, true, options);
  g.output("out", out);
  const Gradients all = differentiate(g, g.sum(g.mul(out, out)), {q, k, v});
  for (std::size_t i = 0; i < 3; ++i) g.output(std::string("d") + "qkv"[i], all.all[i].gradient);
  std::uint32_t seed = 1;
  const auto random = [&](std::int64_t rows) {
    std::vector<double> x(static_cast<std::size_t>(rows * kDim));
    for (double& e : x) e = static_cast<double>((seed = seed * 1664525u + 1013904223u) >> 8) / 8388608.0 - 1.0;
    return x;
  };
  std::map<std::string, std::vector<double>> inputs = {{"q", random(q_rows)}, {"k", random(kv_rows)}, {"v", random(kv_rows)}};
  for (const char tensor : poison == 0.0 ? std::string_view() : where)
    std::fill_n(inputs.at(std::string(1, tensor)).begin() + poisoned * kDim, kDim, poison);
  return testing::run_once(g, backend, inputs);
}

const double kPoisons[] = {std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity(),
                           std::numeric_limits<double>::quiet_NaN()};

/// Expects rows [begin, end) of each of `names` to have the bits that they have without the poison, on both backends. `begin` and `end` take the poisoned row.
void expect_unmoved(const AttentionOptions& options, std::int64_t q_rows, std::int64_t kv_rows, std::string_view where,
                    const std::vector<std::int64_t>& rows, const std::vector<const char*>& names,
                    std::int64_t (*begin)(std::int64_t), std::int64_t (*end)(std::int64_t)) {
  const auto cpu = cpu_backend(2), reference = reference_backend();
  for (Backend* backend : {reference.get(), cpu.get()})
    for (const std::int64_t poisoned : rows)
      for (const double poison : kPoisons) {
        const Results want = attend(*backend, options, q_rows, kv_rows, where, poisoned, 0.0);
        const Results got = attend(*backend, options, q_rows, kv_rows, where, poisoned, poison);
        for (const char* name : names) {
          const std::int64_t size = static_cast<std::int64_t>(want.at(name).size());
          for (std::int64_t i = begin(poisoned) * kDim; i < std::min(size, end(poisoned) * kDim); ++i)
            ASSERT_EQ(got.at(name)[static_cast<std::size_t>(i)], want.at(name)[static_cast<std::size_t>(i)])
                << backend->description() << ", " << poison << " in row " << poisoned << ", " << name << " " << i;
        }
      }
}

constexpr auto kFirst = [](std::int64_t) -> std::int64_t { return 0; };
constexpr auto kPoisoned = [](std::int64_t row) { return row; };
constexpr auto kNext = [](std::int64_t row) { return row + 1; };
constexpr auto kAll = [](std::int64_t) -> std::int64_t { return 1 << 20; };

TEST(AttentionUnseen, RowsBeforeAPoisonedKeyAreAsWithoutIt) {
  AttentionOptions options;
  options.mask = Mask::Kind::causal;
  expect_unmoved(options, 200, 200, "kv", {3, 70, 199}, {"out", "dq"}, kFirst, kPoisoned);
}

TEST(AttentionUnseen, KeysAfterAPoisonedQueryHaveTheirGradientsWithoutIt) {
  AttentionOptions options;
  options.mask = Mask::Kind::causal;
  expect_unmoved(options, 200, 200, "q", {3, 70, 190}, {"dk", "dv"}, kNext, kAll);
}

TEST(AttentionUnseen, AKeyOutsideOfAllWindowsReachesNoGradient) {
  AttentionOptions options;
  options.mask = Mask::Kind::causal;
  options.window = 4;
  expect_unmoved(options, 30, 99, "kv", {60, 65}, {"out", "dq", "dk", "dv"}, kFirst, kAll);  // the first query sees from 66 on
}

}  // namespace
}  // namespace graft
