// What attention does not see, on the cuda backend: each kernel for itself, by type and head dimension.
#include "tests/attention_unseen.h"
#include "tests/cuda_on_cpu/emulation.h"

namespace graft {
namespace {

using namespace graft::testing;

struct Kernel {
  const char* name;
  DType dtype;
  std::int64_t dim;
};

class AttentionUnseenCuda : public ::testing::TestWithParam<Kernel> {
 protected:
  const std::unique_ptr<Backend> backend_ = cuda_backend();
  const Kernel& kernel_ = GetParam();
};

TEST_P(AttentionUnseenCuda, RowsBeforeAPoisonedKeyAreAsWithoutIt) { expect_unmoved(*backend_, kernel_.dtype, kernel_.dim, key_after(140, {3, 64, 127, 139}), true); }

TEST_P(AttentionUnseenCuda, RowsWhoseWindowBeginsBehindAPoisonedKeyAreAsWithoutIt) {
  expect_unmoved(*backend_, kernel_.dtype, kernel_.dim, key_before_windows(140, {30, 63}), true);
}

TEST_P(AttentionUnseenCuda, KeysAfterAPoisonedQueryHaveTheirGradientsWithoutIt) {
  expect_unmoved(*backend_, kernel_.dtype, kernel_.dim, query_before(140, {3, 64, 127, 133}), true);
}

TEST_P(AttentionUnseenCuda, KeysOutsideOfTheWindowOfAPoisonedQueryHaveTheirGradientsWithoutIt) {
  for (const std::vector<const char*>& names : {std::vector{"dk", "dv"}, std::vector{"dk"}, std::vector{"dv"}}) expect_unmoved(*backend_, kernel_.dtype, kernel_.dim, query_behind({50, 100}, names), true);
}

TEST_P(AttentionUnseenCuda, APoisonedElementOfAValueReachesItsOwnColumn) {
  for (const Unseen& unseen : {element_after(140, {64, 70, 127}), element_before(140, {3, 70, 100}), element_without_mask({3, 10, 19}), element_behind()}) expect_unmoved(*backend_, kernel_.dtype, kernel_.dim, unseen, true);
}

/// With one multiprocessor a block of the careful kernel has two of the heads.
TEST_P(AttentionUnseenCuda, OtherHeadsAndSequencesAreAsWithoutAPoisonedRow) {
  const emulation::With with({.races = true, .multiprocessors = 1});
  const std::unique_ptr<Backend> backend = cuda_backend();
  for (const Unseen& unseen : {key_of_one_sequence(), query_of_one_sequence()}) expect_unmoved(*backend, kernel_.dtype, kernel_.dim, unseen, true);
}

TEST_P(AttentionUnseenCuda, APoisonedQueryWithoutAMaskPoisonsItsOwnResults) { expect_unmoved(*backend_, kernel_.dtype, kernel_.dim, query_without_mask(), true); }

TEST_P(AttentionUnseenCuda, AKeyOutsideOfAllWindowsReachesNoGradient) { expect_unmoved(*backend_, kernel_.dtype, kernel_.dim, key_outside({60, 65}), true); }

TEST_P(AttentionUnseenCuda, RowsOfACacheThatAreNotSeenReachNothing) {
  for (const std::int64_t window : {0, 20}) expect_cache_unseen(*backend_, kernel_.dtype, kernel_.dim, window, window == 0 ? 40 : 3);
}

INSTANTIATE_TEST_SUITE_P(, AttentionUnseenCuda,
                         ::testing::Values(Kernel{"f32", DType::f32, 24}, Kernel{"bf16_dim24", DType::bf16, 24}, Kernel{"bf16_dim72", DType::bf16, 72},
                                           Kernel{"bf16_dim20", DType::bf16, 20}),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(AttentionUnseenCudaAlone, OneOfManySequences) {
  const emulation::With with({.multiprocessors = 1});
  const std::unique_ptr<Backend> backend = cuda_backend();
  expect_unmoved(*backend, DType::bf16, 8, row_of_many_sequences("kv", {1, 131}, {"out", "dq"}), true);
  expect_unmoved(*backend, DType::bf16, 8, row_of_many_sequences("q", {130}, {"dk", "dv"}), true);
}

}  // namespace
}  // namespace graft
