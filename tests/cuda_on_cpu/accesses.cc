#include "tests/cuda_on_cpu/accesses.h"

#include <cstdlib>
#include <string>

#include "tests/cuda_on_cpu/symbols.h"

namespace emulation {
namespace {

/// Who was at two bytes of shared memory, and when: the barriers so far, the thread, and its moment, as one number. 0: nobody.
using Stamp = std::uint64_t;
constexpr int kThreadBits = 10, kMomentBits = 22;
Stamp stamp(std::uint32_t epoch, unsigned thread, std::uint32_t moment) {
  return std::uint64_t{epoch} << 32 | std::uint64_t{thread} << kMomentBits | (moment & ((1u << kMomentBits) - 1));
}
std::uint32_t epoch_of(Stamp s) { return static_cast<std::uint32_t>(s >> 32); }
unsigned thread_of(Stamp s) { return static_cast<unsigned>(s >> kMomentBits) & ((1u << kThreadBits) - 1); }
std::uint32_t moment_of(Stamp s) { return static_cast<std::uint32_t>(s) & ((1u << kMomentBits) - 1); }
static_assert(kMostThreads == 1u << kThreadBits);

/// The last writer, and the last two threads that read after it.
struct Cell {
  Stamp writer, reader, other_reader;
};
constexpr std::size_t kCellBytes = 2;

Cell* const cells = static_cast<Cell*>(std::calloc(kSharedWindow / kCellBytes, sizeof(Cell)));  // pages come with use

/// Whether what happened then, in the same epoch, has no order with what `thread` does now.
bool unordered(Stamp then, const Thread& thread) {
  const unsigned other = thread_of(then);
  return other != thread.number && (other / kWarp != thread.warp() || thread.seen[other % kWarp] < moment_of(then));
}

/// Memory that is not the device's: the thread's own stack, its arguments, constants; anything else is refused.
void check_host(const Thread& thread, const void* data, std::size_t bytes, bool write, const void* code) {
  const auto address = reinterpret_cast<std::uintptr_t>(data);
  if (address - thread.fiber->stack() < Fiber::kStack) return;
  const Call& call = multiprocessor().call();
  if (address - reinterpret_cast<std::uintptr_t>(call.arguments.get()) < call.bytes) return;
  if (!write && is_constant(data, bytes)) return;
  multiprocessor().fail(FaultKind::host_memory,
                        std::string(write ? "writes " : "reads ") + std::to_string(bytes) +
                            " bytes of the host's memory, or of another thread's, at " + hexadecimal(address),
                        thread, code);
}

}  // namespace

void check_access(const Thread& thread, const void* data, std::size_t bytes, bool write, bool whole, const void* code) {
  if (!memory().is_device(data)) return check_host(thread, data, bytes, write, code);
  if (whole && reinterpret_cast<std::uintptr_t>(data) % bytes != 0)
    multiprocessor().fail(
        FaultKind::misaligned,
        std::string(write ? "writes " : "reads ") + std::to_string(bytes) + " bytes at an address that is no multiple of that",
        thread, code);
  if (!memory().allows(data, bytes, write)) {
    const Memory::Verdict verdict = memory().judge(data, bytes, write);
    multiprocessor().fail(verdict.kind, verdict.text, thread, code);
  }
  if (watch.races) check_race(thread, data, bytes, write, code);
}

void check_shared(const Thread& thread, const void* data, std::size_t bytes, bool write) {
  if (!memory().is_device(data) || !Memory::is_shared(reinterpret_cast<std::uintptr_t>(data) - watch.memory))
    multiprocessor().fail(FaultKind::out_of_bounds, "takes memory for shared that is not", thread);
  check_access(thread, data, bytes, write, true);
}

void check_race(const Thread& thread, const void* data, std::size_t bytes, bool write, const void* code) {
  const std::size_t offset = reinterpret_cast<std::uintptr_t>(data) - watch.memory;
  if (!Memory::is_shared(offset)) return;
  const std::uint32_t epoch = multiprocessor().epoch();
  const Stamp now = stamp(epoch, thread.number, thread.seen[thread.lane()]);
  const auto refuse_if = [&](Stamp then, const char* did) {
    if (epoch_of(then) != epoch || !unordered(then, thread)) return;
    multiprocessor().fail(FaultKind::race,
                          std::string(write ? "writes" : "reads") + " shared memory that thread " +
                              text_of(multiprocessor().thread(thread_of(then)).index) + did + ", and nothing orders the two",
                          thread, code);
  };
  for (std::size_t i = offset / kCellBytes; i <= (offset + bytes - 1) / kCellBytes; ++i) {
    Cell& cell = cells[i];
    refuse_if(cell.writer, " writes");
    if (write) {
      refuse_if(cell.reader, " reads");
      refuse_if(cell.other_reader, " reads");
      cell.writer = now;  // those who read before it are before whoever comes after it
    } else if (epoch_of(cell.reader) != epoch || thread_of(cell.reader) == thread.number) {
      cell.reader = now;
    } else {
      cell.other_reader = cell.reader;
      cell.reader = now;
    }
  }
}

void host_access(const char* who, const void* data, std::size_t bytes, bool write) {
  if (memory().allows(data, bytes, write)) return;
  if (!memory().is_device(data))
    throw Fault(FaultKind::host_memory, std::string(who) + (write ? " writes " : " reads ") + std::to_string(bytes) +
                                            " bytes of the host's memory as the device's, at " +
                                            hexadecimal(reinterpret_cast<std::uintptr_t>(data)));
  const Memory::Verdict verdict = memory().judge(data, bytes, write);
  throw Fault(verdict.kind, std::string(who) + " " + verdict.text);
}

void read_access(const void* from, std::size_t bytes) {
  const Inside inside;
  check_access(multiprocessor().current(), from, bytes, false, true);
}
void write_access(void* to, std::size_t bytes) {
  const Inside inside;
  check_access(multiprocessor().current(), to, bytes, true, true);
}

}  // namespace emulation
