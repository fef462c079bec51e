#pragma once
#include <gtest/gtest.h>

#include <string>

#include "graft/error.h"

namespace graft::testing {

/// The message of the Error that `call` throws; fails the test when it throws none.
template <class Call>
std::string message_of(Call&& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  ADD_FAILURE() << "no graft::Error was thrown";
  return {};
}

}  // namespace graft::testing
