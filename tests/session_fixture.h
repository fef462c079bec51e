#pragma once
// What the tests of sessions share.
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "graft/session.h"
#include "tests/message.h"

namespace graft::testing {

using Floats = std::vector<float>;
using Doubles = std::vector<double>;
using U32s = std::vector<std::uint32_t>;

inline void write(Session& session, std::string_view name, const Floats& values) {
  session.write(name, std::span<const float>(values));
}
inline void write_u32(Session& session, std::string_view name, const U32s& values) {
  session.write(name, std::span<const std::uint32_t>(values));
}

class SessionTest : public ::testing::Test {
 protected:
  std::unique_ptr<Backend> backend = reference_backend();
};

}  // namespace graft::testing
