#pragma once
// Stacks that one OS thread switches between.
#include <setjmp.h>

#include <cstddef>
#include <cstdint>

namespace emulation {

class Fiber {
 public:
  static constexpr std::size_t kStack = 128 * 1024;

  /// `body` runs on the new stack whenever it is started, and must not return: it ends by switching away.
  explicit Fiber(void (*body)());
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  std::uintptr_t stack() const { return reinterpret_cast<std::uintptr_t>(stack_); }

  /// Begins the body, wherever it was: what lay on the stack is forgotten, without destructors.
  [[noreturn]] void start() { _longjmp(beginning_, 1); }

 private:
  static void enter();

  char* stack_ = nullptr;
  void (*body_)();
  jmp_buf beginning_;
};

/// A point to return to. _setjmp and _longjmp save and restore registers only: no system call, which swapcontext makes.
struct Place {
  jmp_buf registers;
  [[noreturn]] void go_on() { _longjmp(registers, 1); }
};

}  // namespace emulation
