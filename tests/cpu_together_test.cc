// What the cpu backend runs side by side: loops whose threads keep to their own memory, products that share a loop.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <thread>
#include <vector>

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/kernels.h"

namespace graft::cpu {
namespace {

TEST(ParallelNear, DoesEachTaskOnce) {
  for (const int threads : {1, 2, 5}) {
    ThreadTeam team(threads);
    for (const std::int64_t tasks : {0, 1, 2, 4, 7, 100}) {
      std::vector<std::atomic<int>> done(static_cast<std::size_t>(tasks));
      parallel_near(team, tasks, [&](std::int64_t task, int thread) {
        EXPECT_LT(thread, threads);
        ++done.at(static_cast<std::size_t>(task));
      });
      EXPECT_TRUE(std::all_of(done.begin(), done.end(), [](int count) { return count == 1; })) << threads << ", " << tasks;
    }
  }
}

TEST(ParallelNear, ThreadsBeginWithTheLastOfTheirOwnTasksAndHelpWithTheOthers) {
  ThreadTeam team(2);
  std::array<std::atomic<std::int64_t>, 2> first{-1, -1};
  std::array<std::atomic<int>, 2> count{};
  std::atomic<int> arrived{0};
  parallel_near(team, 11, [&](std::int64_t task, int thread) {
    const auto t = static_cast<std::size_t>(thread);
    if (++count.at(t) == 1) {
      first.at(t) = task;
      ++arrived;
      while (arrived < 2) std::this_thread::yield();
    }
    while (thread == 0 && count[0] + count[1] < 11) std::this_thread::yield();  // the other one has the rest to do
  });
  EXPECT_EQ(first[0], 4);
  EXPECT_EQ(first[1], 10);
  EXPECT_EQ(count[0], 1);
  EXPECT_EQ(count[1], 10);
}

TEST(ParallelNear, ThrowsWhatATaskThrows) {
  ThreadTeam team(2);
  EXPECT_THROW(parallel_near(team, 8, [](std::int64_t task, int) { if (task == 2) throw std::runtime_error("2"); }),
               std::runtime_error);
  std::atomic<int> done{0};
  parallel_near(team, 8, [&](std::int64_t, int) { ++done; });
  EXPECT_EQ(done, 8) << "a loop after one that threw";
}

/// Products of square matrices that lie in one block of memory, one after another unless they are told to lie elsewhere.
class Products {
 public:
  static constexpr std::int64_t kSide = 96, kSize = kSide * kSide;

  Products() : memory_(10 * kSize) {
    for (std::size_t i = 0; i < memory_.size(); ++i) memory_[i] = static_cast<float>(i % 13) / 8 - 0.75f;
  }

  float* at(std::int64_t matrix) { return memory_.data() + matrix * kSize; }
  /// out = a·b, or a·b + addend.
  void add(float* out, float* a, float* b, float* addend = nullptr, Op op = MatMul{}, DType dtype = DType::f32) {
    const auto view = [&](float* data) { return TensorView{data, {dtype, {kSide, kSide}}}; };
    auto& entry = *entries_.emplace_back(std::make_unique<Entry>());
    entry.node.op = std::move(op);
    entry.in = {view(a), view(b)};
    if (addend != nullptr) entry.in.push_back(view(addend));
    entry.out = {view(out)};
    steps_.push_back({&entry.node, entry.in, entry.out, nullptr});
  }
  /// How many ran together, from the first on.
  std::size_t run(GemmChoice choice = GemmChoice::fastest) {
    ThreadTeam team(2);
    Gemm gemm(team, choice);
    Context context{team, &gemm};
    return run_products(steps_, context);
  }

 private:
  struct Entry {
    Node node;
    std::vector<TensorView> in, out;
  };
  std::vector<float> memory_;
  std::vector<std::unique_ptr<Entry>> entries_;
  std::vector<Step> steps_;
};

class TogetherBy : public ::testing::TestWithParam<GemmChoice> {};
INSTANTIATE_TEST_SUITE_P(, TogetherBy, ::testing::Values(GemmChoice::packed, GemmChoice::onednn),
                         [](const auto& info) { return info.param == GemmChoice::packed ? "packed" : "onednn"; });

TEST_P(TogetherBy, IndependentProductsHaveTheBitsTheyHaveAlone) {
  Products together;
  together.add(together.at(4), together.at(0), together.at(1));
  together.add(together.at(5), together.at(0), together.at(2), together.at(3));
  together.add(together.at(6), together.at(1), together.at(0));
  EXPECT_EQ(together.run(GetParam()), 3u);
  Products alone[3];
  alone[0].add(alone[0].at(4), alone[0].at(0), alone[0].at(1));
  alone[1].add(alone[1].at(5), alone[1].at(0), alone[1].at(2), alone[1].at(3));
  alone[2].add(alone[2].at(6), alone[2].at(1), alone[2].at(0));
  for (std::int64_t i = 0; i < 3; ++i) {
    EXPECT_EQ(alone[i].run(GetParam()), 1u);
    EXPECT_TRUE(std::equal(together.at(4 + i), together.at(5 + i), alone[i].at(4 + i))) << i;
    double sum = 0.0;  // element (0, 1) of the product
    const float *a = alone[i].at(i == 2 ? 1 : 0), *b = alone[i].at(i == 0 ? 1 : i == 1 ? 2 : 0);
    for (std::int64_t k = 0; k < Products::kSide; ++k) sum += static_cast<double>(a[k]) * b[k * Products::kSide + 1];
    if (i == 1) sum += alone[i].at(3)[1];
    EXPECT_NEAR(together.at(4 + i)[1], sum, 1e-4) << i;
  }
}

TEST(Products, OneThatReadsWhatAnotherWritesWaits) {
  for (int operand = 0; operand < 3; ++operand) {
    Products p;
    p.add(p.at(4), p.at(0), p.at(1));
    p.add(p.at(5), p.at(operand == 0 ? 4 : 1), p.at(operand == 1 ? 4 : 2), p.at(operand == 2 ? 4 : 3));
    EXPECT_EQ(p.run(), 1u) << operand;
  }
}

TEST(Products, OneThatIsGivenTheMemoryOfWhatAnotherReadsOrWritesWaits) {
  for (int matrix = 0; matrix < 5; ++matrix) {  // 3 is read by neither
    for (const std::int64_t offset : {-1, 0, 1}) {
      Products p;
      p.add(p.at(matrix < 3 ? 7 : 4), p.at(1), p.at(1), p.at(1));
      p.add(p.at(matrix < 3 ? 1 : matrix == 3 ? 9 : 4) + offset * (matrix == 3 ? 0 : Products::kSize - 1), p.at(6), p.at(6));
      EXPECT_EQ(p.run(), matrix == 3 ? 2u : 1u) << matrix << ", " << offset;
    }
  }
}

TEST(Products, TheThirdWaitsForTheFirst) {
  Products p;
  p.add(p.at(4), p.at(0), p.at(1));
  p.add(p.at(5), p.at(0), p.at(1));
  p.add(p.at(6), p.at(4), p.at(1));
  EXPECT_EQ(p.run(), 2u);
}

TEST(Products, OtherOpsAndTypesEndThem) {
  Products p;
  p.add(p.at(4), p.at(0), p.at(1));
  p.add(p.at(5), p.at(0), p.at(1), nullptr, Binary{BinaryFn::add});
  EXPECT_EQ(p.run(), 1u);
  Products wide;
  wide.add(wide.at(4), wide.at(0), wide.at(1), nullptr, MatMul{}, DType::f64);
  EXPECT_EQ(wide.run(), 0u);
}

}  // namespace
}  // namespace graft::cpu
