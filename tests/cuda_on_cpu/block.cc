#undef _FORTIFY_SOURCE  // its longjmp refuses to go up to another stack
#include "tests/cuda_on_cpu/block.h"

#include <algorithm>
#include <numeric>

#include "tests/cuda_on_cpu/memory.h"
#include "tests/cuda_on_cpu/symbols.h"

namespace emulation {
namespace {

uint3 index_of(std::uint64_t number, dim3 shape) {
  return {static_cast<unsigned>(number % shape.x), static_cast<unsigned>(number / shape.x % shape.y),
          static_cast<unsigned>(number / shape.x / shape.y)};
}

template <class Numbers>
void put_in_order(Numbers& numbers, std::mt19937_64& random) {
  std::iota(numbers.begin(), numbers.end(), typename Numbers::value_type{0});
  if (options().order == Options::Order::reverse) std::reverse(numbers.begin(), numbers.end());
  if (options().order == Options::Order::shuffled) std::shuffle(numbers.begin(), numbers.end(), random);
}

bool same_text(const char* a, const char* b) { return a == b || std::string_view(a) == b; }

/// Whether both wait at the same call in the source.
bool same_call(const Thread& a, const Thread& b) {
  return a.site.line == b.site.line && same_text(a.call, b.call) && same_text(a.site.file, b.site.file);
}

}  // namespace

std::string text_of(uint3 at) {
  return "(" + std::to_string(at.x) + ", " + std::to_string(at.y) + ", " + std::to_string(at.z) + ")";
}

Multiprocessor the_multiprocessor;

// ---- grids and blocks

void Multiprocessor::run(const Call& call, dim3 grid, dim3 block, std::size_t shared) {
  call_ = &call;
  grid_ = grid;
  block_ = block;
  random_.seed(options().seed);
  watch.races = options().races;
  memory().begin_launch(shared);
  std::vector<std::uint64_t> blocks(std::uint64_t{grid.x} * grid.y * grid.z);
  put_in_order(blocks, random_);
  for (const std::uint64_t number : blocks) {
    block_index_ = index_of(number, grid);
    memory().begin_block();
    run_block();
    if (fault_ || thrown_) break;
  }
  memory().end_launch();
  call_ = nullptr;
  if (thrown_) std::rethrow_exception(std::exchange(thrown_, nullptr));
  if (fault_) {
    const Fault fault = *fault_;
    fault_.reset();
    throw fault;
  }
}

void Multiprocessor::run_block() {
  const unsigned count = block_.x * block_.y * block_.z;
  if (threads_.size() < count) threads_.resize(count);
  order_.resize(count);
  put_in_order(order_, random_);
  put_in_order(lane_order_, random_);
  head_ = tail_ = done_ = at_barrier_ = 0;
  arrived_.assign((count + kWarp - 1) / kWarp, 0);
  ++epoch_;
  for (unsigned i = 0; i < count; ++i) {
    Thread& thread = threads_[i];
    thread.number = i;
    thread.index = index_of(i, block_);
    thread.state = Thread::State::fresh;
    thread.fiber = nullptr;
    thread.copies.clear();
    thread.group = 0;
    if (watch.races) {
      thread.seen.fill(0);
      thread.seen[thread.lane()] = 1;
    }
  }
  for (const unsigned i : order_) push(threads_[i]);
  threads_run_ += count;

  if (free_.empty()) {
    fibers_.push_back(std::make_unique<Fiber>(&Multiprocessor::fiber_body));
    free_.push_back(fibers_.back().get());
  }
  if (_setjmp(host_.registers) == 0) {
    Fiber* fiber = free_.back();
    free_.pop_back();
    fiber->start();
  }
  current_ = nullptr;
  device_stack = 0;
  free_.clear();  // also those of threads that will never go on
  for (const auto& fiber : fibers_) free_.push_back(fiber.get());
}

/// Runs threads one after the other. One that waits keeps the stack, and the next one gets another.
void Multiprocessor::fiber_body() {
  Multiprocessor& self = multiprocessor();
  const auto here = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
  const auto own = std::find_if(self.fibers_.begin(), self.fibers_.end(),
                                [&](const auto& fiber) { return here - fiber->stack() < Fiber::kStack; });
  Fiber* const stack = own->get();
  for (;;) {
    Thread* next = self.take();
    if (next == nullptr) {
      if (self.done_ < self.order_.size()) self.diagnose();
      self.leave();
    }
    if (next->fiber != nullptr) {
      self.free_.push_back(stack);
      next->place.go_on();
    }
    next->fiber = stack;
    self.make_current(*next);
    try {
      self.call_->run(self.call_->kernel, self.call_->arguments.get());
    } catch (...) {
      self.thrown_ = std::current_exception();
    }
    if (self.thrown_) self.leave();
    device_stack = 0;
    if (!self.current_->copies.empty())
      self.fail(FaultKind::unwritten, "ends while a copy by cp.async is on its way", *self.current_);
    self.current_->state = Thread::State::done;
    ++self.done_;
  }
}

void Multiprocessor::make_current(Thread& thread) {
  current_ = &thread;
  device_stack = thread.fiber->stack();
}

void Multiprocessor::push(Thread& thread) { queue_[tail_++ % kMostThreads] = &thread; }

Thread* Multiprocessor::take() { return idle() ? nullptr : queue_[head_++ % kMostThreads]; }

void Multiprocessor::leave() { host_.go_on(); }

/// Another thread's turn, until this one is in the queue and its turn comes.
[[gnu::noinline]] void Multiprocessor::suspend() {
  Thread& self = *current_;
  if (_setjmp(self.place.registers) == 0) {
    if (idle()) {
      diagnose();
      leave();
    }
    Thread& next = *queue_[head_ % kMostThreads];
    if (next.fiber != nullptr) take()->place.go_on();
    if (free_.empty()) {
      fibers_.push_back(std::make_unique<Fiber>(&Multiprocessor::fiber_body));
      free_.push_back(fibers_.back().get());
    }
    Fiber* fiber = free_.back();
    free_.pop_back();
    fiber->start();  // which takes `next`
  }
  make_current(self);
}

// ---- barriers and what a warp does together

int Multiprocessor::barrier(Barrier kind, int predicate, Site site) {
  constexpr const char* kNames[] = {"__syncthreads", "__syncthreads_or", "__syncthreads_and", "__syncthreads_count"};
  const Inside inside;
  Thread& self = *current_;
  self.state = Thread::State::at_barrier;
  self.call = kNames[static_cast<int>(kind)];
  self.site = site;
  self.mask = predicate != 0 ? 1 : 0;
  if (++at_barrier_ == order_.size()) {
    unsigned yes = 0;
    for (const unsigned i : order_) {
      const Thread& other = threads_[i];
      if (!same_call(other, self))
        fail(FaultKind::divergence, "waits at " + waits_at(self) + ", thread " + text_of(other.index) + " at " + waits_at(other),
             self);
      yes += other.mask;
    }
    barrier_result_ = kind == Barrier::any ? yes > 0 : kind == Barrier::all ? yes == order_.size() : static_cast<int>(yes);
    at_barrier_ = 0;
    ++epoch_;
    for (const unsigned i : order_) {
      threads_[i].state = Thread::State::ready;
      push(threads_[i]);
    }
  }
  suspend();
  return barrier_result_;
}

void Multiprocessor::together(unsigned mask, const char* name, Together function, void* argument, Site site) {
  const Inside inside;
  Thread& self = *current_;
  self.state = Thread::State::at_collective;
  self.call = name;
  self.site = site;
  self.mask = mask;
  self.function = function;
  self.argument = argument;
  const unsigned first = self.warp() * kWarp, lanes = static_cast<unsigned>(std::min<std::size_t>(kWarp, order_.size() - first));
  if ((mask >> self.lane() & 1) == 0)
    fail(FaultKind::divergence, "calls " + waits_at(self) + ", which does not name its own lane", self);
  if (lanes < kWarp && mask >> lanes != 0)
    fail(FaultKind::divergence, "calls " + waits_at(self) + ", but its warp has " + std::to_string(lanes) + " lanes", self);

  unsigned& arrived = arrived_[self.warp()];
  arrived |= 1u << self.lane();
  if ((arrived & mask) == mask) {
    std::array<void*, kWarp> arguments = {};
    for (unsigned lane = 0; lane < lanes; ++lane) {
      if ((mask >> lane & 1) == 0) continue;
      const Thread& other = threads_[first + lane];
      if (other.function != function || other.mask != mask || !same_call(other, self))
        fail(FaultKind::divergence, "waits at " + waits_at(self) + ", thread " + text_of(other.index) + " at " + waits_at(other),
             self);
      arguments[lane] = other.argument;
    }
    function(arguments.data(), mask, first);
    arrived &= ~mask;
    if (watch.races) {
      std::array<std::uint32_t, kWarp> seen = {};
      for (unsigned lane = 0; lane < lanes; ++lane)
        if (mask >> lane & 1)
          for (unsigned i = 0; i < kWarp; ++i) seen[i] = std::max(seen[i], threads_[first + lane].seen[i]);
      for (unsigned lane = 0; lane < lanes; ++lane) {
        if ((mask >> lane & 1) == 0) continue;
        threads_[first + lane].seen = seen;
        ++threads_[first + lane].seen[lane];
      }
    }
    for (const unsigned lane : lane_order_) {
      if (lane >= lanes || (mask >> lane & 1) == 0) continue;
      threads_[first + lane].state = Thread::State::ready;
      push(threads_[first + lane]);
    }
  }
  suspend();
}

// ---- reports

std::string Multiprocessor::waits_at(const Thread& thread) const {
  const std::string mask = thread.state == Thread::State::at_collective ? "(" + hexadecimal(thread.mask) + ")" : "";
  return thread.call + mask + " (" + short_file(thread.site.file) + ":" + std::to_string(thread.site.line) + ")";
}

/// No thread can go on, and some are not done: which call waits for whom.
void Multiprocessor::diagnose() {
  const auto waiting = [&](unsigned i) {
    return threads_[i].state == Thread::State::at_barrier || threads_[i].state == Thread::State::at_collective;
  };
  const Thread& who = threads_[*std::find_if(order_.begin(), order_.end(), waiting)];
  const bool warp = who.state == Thread::State::at_collective;
  for (unsigned i = 0; i < order_.size(); ++i) {
    const Thread& other = threads_[i];
    if (warp && (other.warp() != who.warp() || (who.mask >> other.lane() & 1) == 0)) continue;
    if (other.state == who.state && (!warp || (other.function == who.function && other.mask == who.mask && same_call(other, who))))
      continue;
    const std::string does = other.state == Thread::State::done ? " has ended" : " waits at " + waits_at(other);
    fail(FaultKind::divergence, "waits at " + waits_at(who) + ", but thread " + text_of(other.index) + does, who);
  }
  fail(FaultKind::divergence, "waits at " + waits_at(who) + " for ever", who);
}

std::string Multiprocessor::report(FaultKind, const std::string& text, const Thread& who, const void* code) const {
  std::string line =
      function_name(call_->kernel) + ", block " + text_of(block_index_) + ", thread " + text_of(who.index) + ": " + text;
  if (code != nullptr && options().locate) line += "\n" + source_lines(code);
  return line;
}

void Multiprocessor::fail(FaultKind kind, const std::string& text, const Thread& who, const void* code) {
  fault_.emplace(kind, report(kind, text, who, code));
  leave();
}

}  // namespace emulation
