#pragma once
#include <stdexcept>
#include <string>

namespace graft {

/// The caller's fault: a shape that does not fit, an unknown name, a bad file. The message reads
/// `op "name": what is wrong, got X and Y` and is meant to be shown as it is.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Our fault: an invariant of graft does not hold. Please report it with the message.
class InternalError : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

[[noreturn]] void assertion_failed(const char* expression, const char* file, int line);

}  // namespace graft

/// Checks an invariant of graft itself; throws InternalError, in every build type.
#define GRAFT_ASSERT(condition) \
  ((condition) ? static_cast<void>(0) : ::graft::assertion_failed(#condition, __FILE__, __LINE__))
