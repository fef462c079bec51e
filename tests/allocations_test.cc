#include "tests/allocations.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <new>
#include <utility>

#include "graft/nn.h"
#include "graft/optim.h"
#include "graft/passes.h"
#include "tests/session_fixture.h"

namespace graft {
namespace {

using testing::U32s;
using testing::write_u32;

void expect_no_allocation_after_the_first_step(Backend& backend, bool linear = false, bool narrow = false) {
  if (const std::string why = testing::no_allocation_count(); !why.empty()) GTEST_SKIP() << why;
  Graph g(5);
  nn::LlamaConfig config;
  config.vocab_size = 17;
  config.hidden_size = 32;
  config.intermediate_size = 48;
  config.num_layers = 2;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.dropout = 0.1;
  nn::Llama llama(g, config);
  const Value inputs = g.input_u32("ids", {24}), next = g.input_u32("labels", {24});
  const Segments segments = Segments::uniform(12);
  const Value loss =
      linear ? llama.loss(g, inputs, next, segments).loss : g.cross_entropy(llama.forward(g, inputs, segments), next);
  g.output("loss", loss);
  optim::UpdateOptions options;
  options.clip_norm = 1.0;
  options.loss = loss;
  optim::adamw(g, differentiate(g, loss), {}, options);
  Session session(narrow ? passes::mixed_precision(passes::fuse(g)) : g, backend);
  U32s ids(24), labels(24);
  for (std::uint32_t i = 0; i < 24; ++i) {
    ids[i] = i * 7 % 17;
    labels[i] = (i + 1) * 7 % 17;
  }
  write_u32(session, "ids", ids);
  write_u32(session, "labels", labels);
  session.step();
  const double first = session.scalar("loss");
  int count = 0;
  {
    const testing::CountAllocations allocations;
    for (int i = 0; i < 20; ++i) session.step();
    count = allocations.count();
  }
  EXPECT_EQ(count, 0);
  EXPECT_LT(session.scalar("loss"), first) << "it trains";
}

TEST(Allocations, AreCounted) {
  if (const std::string why = testing::no_allocation_count(); !why.empty()) GTEST_SKIP() << why;
  const testing::CountAllocations allocations;
  int before = allocations.count();
  const auto counted = [&] { return std::exchange(before, allocations.count()) < before; };
  EXPECT_FALSE(counted());
  void* volatile a = std::malloc(100);
  EXPECT_TRUE(counted()) << "malloc";
  double* volatile b = new double[100];
  EXPECT_TRUE(counted()) << "new";
  void* volatile c = ::operator new (100, std::align_val_t{64});
  EXPECT_TRUE(counted()) << "aligned new";
  void* volatile d = std::aligned_alloc(64, 128);
  EXPECT_TRUE(counted()) << "aligned_alloc";
  a = std::realloc(a, 5000);
  EXPECT_TRUE(counted()) << "realloc";
  std::free(a);
  delete[] b;
  ::operator delete (c, std::align_val_t{64});
  std::free(d);
  EXPECT_FALSE(counted());
}

TEST(Allocations, NoneInAStepAfterTheFirstOnReference) { expect_no_allocation_after_the_first_step(*reference_backend()); }
TEST(Allocations, NoneInAStepAfterTheFirstOnCpu) { expect_no_allocation_after_the_first_step(*cpu_backend(2)); }
TEST(Allocations, NoneInAStepInBf16) {
  expect_no_allocation_after_the_first_step(*reference_backend(), false, true);
  for (const bool linear : {false, true}) expect_no_allocation_after_the_first_step(*cpu_backend(2), linear, true);
}
TEST(Allocations, NoneInAStepWithLinearCrossEntropy) {
  expect_no_allocation_after_the_first_step(*reference_backend(), true);
  expect_no_allocation_after_the_first_step(*cpu_backend(2), true);
}

}  // namespace
}  // namespace graft
