// What attention does not see, on the reference and the cpu backend.
#include "tests/attention_unseen.h"

namespace graft {
namespace {

using namespace graft::testing;

class AttentionUnseen : public ::testing::TestWithParam<const char*> {
 protected:
  const std::unique_ptr<Backend> backend_ = std::string_view(GetParam()) == "cpu" ? cpu_backend(2) : reference_backend();
};

TEST_P(AttentionUnseen, RowsBeforeAPoisonedKeyAreAsWithoutIt) { expect_unmoved(*backend_, DType::f32, 24, key_after(200, {3, 70, 199})); }

TEST_P(AttentionUnseen, RowsWhoseWindowBeginsBehindAPoisonedKeyAreAsWithoutIt) { expect_unmoved(*backend_, DType::f32, 24, key_before_windows(300, {100, 127})); }

TEST_P(AttentionUnseen, KeysAfterAPoisonedQueryHaveTheirGradientsWithoutIt) {
  for (const Unseen& unseen : {query_before(200, {3, 70, 190}), query_before_of_fewer_keys({50, 95})}) expect_unmoved(*backend_, DType::f32, 24, unseen);
}

TEST_P(AttentionUnseen, AKeyOutsideOfAllWindowsReachesNoGradient) { expect_unmoved(*backend_, DType::f32, 24, key_outside({60, 65})); }

TEST_P(AttentionUnseen, KeysOutsideOfTheWindowOfAPoisonedQueryHaveTheirGradientsWithoutIt) {
  expect_unmoved(*backend_, DType::f32, 24, query_behind({50, 100}, {"dk", "dv"}));
}

TEST_P(AttentionUnseen, APoisonedElementOfAValueReachesItsOwnColumn) {
  for (const Unseen& unseen : {element_after(200, {3, 70}), element_before(200, {3, 70}), element_without_mask({3}), element_behind()}) expect_unmoved(*backend_, DType::f32, 24, unseen);
}

TEST_P(AttentionUnseen, OtherHeadsAndSequencesAreAsWithoutAPoisonedRow) {
  for (const Unseen& unseen : {key_of_one_sequence(), query_of_one_sequence()}) expect_unmoved(*backend_, DType::f32, 8, unseen);
}

TEST_P(AttentionUnseen, APoisonedQueryWithoutAMaskPoisonsItsOwnResults) { expect_unmoved(*backend_, DType::f32, 24, query_without_mask()); }

TEST_P(AttentionUnseen, RowsOfACacheThatAreNotSeenReachNothing) {
  for (const std::int64_t window : {0, 20}) expect_cache_unseen(*backend_, DType::f32, 24, window, 3);
}

INSTANTIATE_TEST_SUITE_P(, AttentionUnseen, ::testing::Values("reference", "cpu"), [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace graft
