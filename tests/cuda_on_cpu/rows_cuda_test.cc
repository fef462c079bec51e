// Kernels of rows at sizes and places that the shared op cases do not reach: thousands of ids, a large vocabulary, parts of matrices.
#include <gtest/gtest.h>

#include <bit>

#include "graft/bf16.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/rows.h"
#include "tests/cuda_on_cpu/checked_backend.h"
#include "tests/cuda_on_cpu/device_array.h"
#include "tests/cuda_on_cpu/emulation.h"
#include "tests/run_graph.h"

namespace graft {
namespace {

using testing::DeviceArray;

/// The gradient of an embedding where row i of dout is i + 1, i + 2, …: sums of whole numbers, so exact.
void expect_gradient(std::int64_t vocabulary, std::int64_t cols, const std::vector<double>& ids) {
  const auto count = static_cast<std::int64_t>(ids.size());
  std::vector<double> dout(static_cast<std::size_t>(count * cols)), want(static_cast<std::size_t>(vocabulary * cols));
  for (std::int64_t i = 0; i < count; ++i)
    for (std::int64_t c = 0; c < cols; ++c) {
      const auto value = static_cast<double>(i % 512 + c + 1);
      dout[static_cast<std::size_t>(i * cols + c)] = value;
      want[static_cast<std::size_t>(static_cast<std::int64_t>(ids[static_cast<std::size_t>(i)]) * cols + c)] += value;
    }
  Graph g(1);
  g.output("dtable", g.record(EmbeddingGrad{vocabulary}, {g.input_u32("ids", {count}), g.input("dout", {count, cols})}));
  const std::unique_ptr<Backend> cuda = cuda_backend();
  testing::CheckedBackend checked(*cuda);
  EXPECT_EQ(testing::run_once(g, checked, {{"ids", ids}, {"dout", dout}}).at("dtable"), want);
}

/// More than 2048 ids: a thread of the scan has several counts. More than 2^18 rows: the radix sort has three passes, of which each must take the order of the one before.
TEST(EmbeddingCuda, ThousandsOfIdsOfALargeVocabulary) {
  constexpr std::int64_t kVocabulary = (1 << 18) + 5;
  std::vector<double> ids;
  std::uint32_t seed = 1;
  for (int i = 0; i < 2100; ++i) ids.push_back((seed = seed * 1664525u + 1013904223u) % kVocabulary);
  for (std::size_t i = 0; i < ids.size(); i += 3) ids[i] = kVocabulary - 1 - static_cast<double>(i % 4);
  expect_gradient(kVocabulary, 1, ids);
}

/// Whose sums over tiles need more columns than there are rows.
TEST(EmbeddingCuda, OneIdInRowsThatAreLong) { expect_gradient(2, 96, std::vector<double>(65, 1.0)); }

TEST(EmbeddingCuda, WithoutAnOutputNothingRuns) {
  const DeviceArray<float> table(std::vector<float>(6)), dout(std::vector<float>(4));
  const DeviceArray<std::uint32_t> ids(std::vector<std::uint32_t>{1, 0});
  const TensorView table_view = {table.data(), {DType::f32, {3, 2}}}, ids_view = {ids.data(), {DType::u32, {2}}}, dout_view = {dout.data(), {DType::f32, {2, 2}}};
  const TensorView out[] = {{nullptr, {DType::f32, {2, 2}}}}, dtable[] = {{nullptr, {DType::f32, {3, 2}}}};
  const TensorView forward[] = {table_view, ids_view}, backward[] = {ids_view, dout_view};
  cuda::Context context;
  cuda::run(Embedding{}, Step{nullptr, forward, out, nullptr}, context);
  cuda::run(EmbeddingGrad{3}, Step{nullptr, backward, dtable, nullptr}, context);
  emulation::synchronize();
}

/// More words across, and down, than one multiprocessor's grid has threads.
TEST(ShapeCuda, MoreWordsThanThreads) {
  const emulation::With with({.multiprocessors = 1});
  const std::unique_ptr<Backend> cuda = cuda_backend();
  testing::CheckedBackend checked(*cuda);
  for (const auto& [rows, cols] : {std::pair<std::int64_t, std::int64_t>{2, 32 * 256 + 3}, {32 * 32 + 2, 3}}) {
    std::vector<double> x, slice;
    for (std::int64_t i = 0; i < rows * cols; ++i) {
      const bool inside = i >= cols && i % cols > 0;
      x.push_back(inside ? static_cast<double>(i) : 0.0);
      if (inside) slice.push_back(x.back());
    }
    Graph g(1);
    const Value inner = g.record(Slice{1, rows - 1, 1, cols - 1}, {g.input("x", {rows, cols})});
    g.output("slice", inner);
    g.output("pad", g.record(Pad{{rows, cols}, 1, 1}, {inner}));
    const testing::Inputs got = testing::run_once(g, checked, {{"x", x}});
    EXPECT_EQ(got.at("slice"), slice);
    EXPECT_EQ(got.at("pad"), x);
  }
}

/// `rows` × `cols` elements of a matrix with rows of `stride`, from its element `first` on.
template <class T, class Value, class Number>
void expect_bias(DType dtype, std::int64_t rows, std::int64_t cols, std::int64_t stride, std::int64_t first, Value to_value, Number to_number) {
  const std::int64_t size = first + rows * stride;
  std::vector<T> values;
  for (std::int64_t i = 0; i < size; ++i) values.push_back(to_value(static_cast<float>(i % 50)));
  std::vector<float> biases;
  for (std::int64_t j = 0; j < cols; ++j) biases.push_back(static_cast<float>(j % 40 + 1));
  const DeviceArray<T> c(values);
  const DeviceArray<float> bias(biases);
  cuda::add_bias(bias.data(), c.data() + first, dtype, rows, cols, stride, nullptr);
  emulation::synchronize();
  const std::vector<T> got = c.values();
  for (std::int64_t i = 0; i < size; ++i) {
    const std::int64_t row = (i - first) / stride, col = (i - first) % stride;
    const float added = i >= first && row < rows && col < cols ? biases[static_cast<std::size_t>(col)] : 0.0f;
    ASSERT_EQ(to_number(got[static_cast<std::size_t>(i)]), static_cast<float>(i % 50) + added) << rows << " x " << cols << " of " << stride << " from " << first << ", element " << i;
  }
}

TEST(AddBiasCuda, InPacksOrOneByOne) {
  struct Place {
    std::int64_t rows, cols, stride, first;
  };
  for (const Place at : {Place{5, 16, 24, 0}, Place{300, 24, 24, 16}, Place{5, 16, 23, 0}, Place{5, 13, 24, 0}, Place{5, 16, 24, 3}}) {
    expect_bias<float>(DType::f32, at.rows, at.cols, at.stride, at.first, [](float x) { return x; }, [](float x) { return x; });
    expect_bias<std::uint16_t>(DType::bf16, at.rows, at.cols, at.stride, at.first, [](float x) { return to_bf16(x).bits; },
                               [](std::uint16_t x) { return to_float(Bf16{x}); });
  }
}

}  // namespace
}  // namespace graft
