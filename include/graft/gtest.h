#pragma once
// GoogleTest helpers for your own models; include it in tests that link GTest.
#include <gtest/gtest.h>

#include "graft/gradient_check.h"

namespace graft {

/// EXPECT_TRUE(graft::gradients_match(graph, loss)); prints the table of gradient_check when it fails.
inline ::testing::AssertionResult gradients_match(const Graph& graph, Value loss, const GradientCheckOptions& options = {}) {
  const GradientCheckReport report = gradient_check(graph, loss, options);
  if (report.passed) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "gradients differ from central differences\n" << report.to_string();
}

/// EXPECT_TRUE(graft::backend_matches(graph, backend)); prints the table of backend_check when it fails.
inline ::testing::AssertionResult backend_matches(const Graph& graph, Backend& backend, const BackendCheckOptions& options = {}) {
  const GradientCheckReport report = backend_check(graph, backend, options);
  if (report.passed) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << backend.description() << " differs from the reference\n" << report.to_string();
}

}  // namespace graft
