#undef _FORTIFY_SOURCE  // its longjmp refuses to go up to another stack
#include "tests/cuda_on_cpu/fibers.h"

#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <new>

namespace emulation {
namespace {

Fiber* entering = nullptr;
ucontext_t creator;

std::size_t guard() { return static_cast<std::size_t>(sysconf(_SC_PAGESIZE)); }

}  // namespace

Fiber::Fiber(void (*body)()) : body_(body) {
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK;
  void* memory = mmap(nullptr, kStack + guard(), PROT_READ | PROT_WRITE, flags, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  mprotect(memory, guard(), PROT_NONE);
  stack_ = static_cast<char*>(memory) + guard();

  ucontext_t context;
  getcontext(&context);
  context.uc_stack.ss_sp = stack_;
  context.uc_stack.ss_size = kStack;
  context.uc_link = nullptr;
  makecontext(&context, &Fiber::enter, 0);
  entering = this;
  swapcontext(&creator, &context);
}

Fiber::~Fiber() { munmap(stack_ - guard(), kStack + guard()); }

void Fiber::enter() {
  Fiber* const self = entering;
  if (_setjmp(self->beginning_) == 0) setcontext(&creator);
  // Here by start(). Registers are those of the first time, so `self` is what it was.
  self->body_();
}

}  // namespace emulation
