#pragma once
#include <string>

#include "graft/error.h"

namespace graft::testing {

/// The message of the Error that `call` throws, "no error" when it throws none.
template <class Call>
std::string message_of(Call&& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace graft::testing
