// What the lanes of a warp do together, shared memory, and cp.async: the device-side calls.
#include <bit>

#include "graft/bf16.h"
#include "tests/cuda_on_cpu/accesses.h"
#include "tests/cuda_on_cpu/symbols.h"

namespace emulation {
namespace {

uint3 plain(dim3 shape) { return {shape.x, shape.y, shape.z}; }

template <class F>
void for_lanes(unsigned mask, F&& f) {
  for (; mask != 0; mask &= mask - 1) f(static_cast<unsigned>(std::countr_zero(mask)));
}

struct ShuffleArgument {
  Shuffle kind;
  std::uint64_t bits, result;
  int parameter, width;
};

/// The lane whose value a lane gets (CUDA C++ Programming Guide, "Warp Shuffle Functions"): its own where the source lies outside of its part of `width` lanes.
unsigned source_of(const ShuffleArgument& a, int lane) {
  const int begin = lane / a.width * a.width, at = lane - begin;
  switch (a.kind) {
    case Shuffle::from: return static_cast<unsigned>(begin + (a.parameter & (a.width - 1)));
    case Shuffle::up: return static_cast<unsigned>(at - a.parameter < 0 ? lane : lane - a.parameter);
    case Shuffle::down: return static_cast<unsigned>(at + a.parameter >= a.width ? lane : lane + a.parameter);
    case Shuffle::exclusive_or: {
      const int other = lane ^ a.parameter;  // of a later part: its own; of an earlier one: as it is
      return static_cast<unsigned>(other >= begin + a.width ? lane : other);
    }
  }
  return 0;
}

struct VoteArgument {
  std::uint64_t bits;
  unsigned result;
};

struct MatricesArgument {
  std::uint32_t* to;
  unsigned count;
  const void* row;
  bool transposed;
};

struct MultiplyArgument {
  float* d;
  const std::uint32_t *a, *b;
};

float half_of(std::uint32_t pair, unsigned upper) {
  return graft::to_float(graft::Bf16{static_cast<std::uint16_t>(pair >> (16 * upper))});
}

/// Lanes that PTX calls .sync.aligned: all 32.
constexpr unsigned kAll = 0xffffffffu;

}  // namespace

uint3 thread_index() noexcept { return multiprocessor().running() ? multiprocessor().current().index : uint3{}; }
uint3 block_index() noexcept { return multiprocessor().block_index(); }
uint3 block_shape() noexcept { return plain(multiprocessor().block_shape()); }
uint3 grid_shape() noexcept { return plain(multiprocessor().grid_shape()); }

int barrier(Barrier kind, int predicate, Site site) { return multiprocessor().barrier(kind, predicate, site); }
void together(unsigned mask, const char* name, Together function, void* argument, Site site) {
  multiprocessor().together(mask, name, function, argument, site);
}

void sync_warp(unsigned mask, Site site) {
  together(
      mask, "__syncwarp", [](void* const*, unsigned, unsigned) {}, nullptr, site);
}

std::uint64_t shuffle_bits(Shuffle kind, unsigned mask, std::uint64_t bits, int parameter, int width, Site site) {
  constexpr const char* kNames[] = {"__shfl_sync", "__shfl_up_sync", "__shfl_down_sync", "__shfl_xor_sync"};
  ShuffleArgument argument = {kind, bits, 0, parameter, width};
  const auto exchange = [](void* const* arguments, unsigned lanes, unsigned first) {
    for_lanes(lanes, [&](unsigned lane) {
      auto& own = *static_cast<ShuffleArgument*>(arguments[lane]);
      const unsigned source = source_of(own, static_cast<int>(lane));
      const Thread& thread = multiprocessor().thread(first + lane);
      if (source >= kWarp || (lanes >> source & 1) == 0)
        multiprocessor().fail(FaultKind::divergence,
                              std::string("reads by ") + thread.call + " from lane " + std::to_string(source) +
                                  ", which its mask " + hexadecimal(lanes) + " does not name",
                              thread);
      own.result = static_cast<ShuffleArgument*>(arguments[source])->bits;
    });
  };
  together(mask, kNames[static_cast<int>(kind)], exchange, &argument, site);
  return argument.result;
}

unsigned vote(unsigned mask, const char* name, bool predicate, Site site) {
  VoteArgument argument = {predicate, 0};
  const auto count = [](void* const* arguments, unsigned lanes, unsigned) {
    unsigned result = 0;
    for_lanes(lanes,
              [&](unsigned lane) { result |= static_cast<unsigned>(static_cast<VoteArgument*>(arguments[lane])->bits) << lane; });
    for_lanes(lanes, [&](unsigned lane) { static_cast<VoteArgument*>(arguments[lane])->result = result; });
  };
  together(mask, name, count, &argument, site);
  return argument.result;
}

unsigned match_any(unsigned mask, std::uint64_t bits, Site site) {
  VoteArgument argument = {bits, 0};
  const auto match = [](void* const* arguments, unsigned lanes, unsigned) {
    for_lanes(lanes, [&](unsigned lane) {
      auto& own = *static_cast<VoteArgument*>(arguments[lane]);
      for_lanes(lanes, [&](unsigned other) {
        own.result |= static_cast<unsigned>(static_cast<VoteArgument*>(arguments[other])->bits == own.bits) << other;
      });
    });
  };
  together(mask, "__match_any_sync", match, &argument, site);
  return argument.result;
}

void load_matrices(std::uint32_t* to, unsigned count, const void* row, bool transposed, Site site) {
  MatricesArgument argument = {to, count, row, transposed};
  const auto load = [](void* const* arguments, unsigned, unsigned first) {
    const auto of = [&](unsigned lane) -> const MatricesArgument& {
      return *static_cast<const MatricesArgument*>(arguments[lane]);
    };
    const unsigned matrices = of(0).count;
    for (unsigned lane = 0; lane < 8 * matrices; ++lane)
      check_shared(multiprocessor().thread(first + lane), of(lane).row, 16, false);
    for (unsigned lane = 0; lane < kWarp; ++lane) {
      for (unsigned m = 0; m < matrices; ++m) {
        const auto element = [&](unsigned r, unsigned c) {
          return std::uint32_t{static_cast<const std::uint16_t*>(of(8 * m + r).row)[c]};
        };
        const unsigned one = lane / 4, two = 2 * (lane % 4);
        of(lane).to[m] =
            of(lane).transposed ? element(two, one) | element(two + 1, one) << 16 : element(one, two) | element(one, two + 1) << 16;
      }
    }
  };
  together(kAll, transposed ? "ldmatrix.trans" : "ldmatrix", load, &argument, site);
}

void multiply_matrices(float* d, const std::uint32_t* a, const std::uint32_t* b, Site site) {
  MultiplyArgument argument = {d, a, b};
  const auto multiply = [](void* const* arguments, unsigned, unsigned) {
    float left[16][16], right[16][8];
    for (unsigned lane = 0; lane < kWarp; ++lane) {
      const auto& own = *static_cast<const MultiplyArgument*>(arguments[lane]);
      const unsigned g = lane / 4, t = lane % 4;
      for (unsigned i = 0; i < 8; ++i) left[g + 8 * (i / 2 % 2)][2 * t + i % 2 + 8 * (i / 4)] = half_of(own.a[i / 2], i % 2);
      for (unsigned i = 0; i < 4; ++i) right[2 * t + i % 2 + 8 * (i / 2)][g] = half_of(own.b[i / 2], i % 2);
    }
    for (unsigned lane = 0; lane < kWarp; ++lane) {
      const auto& own = *static_cast<const MultiplyArgument*>(arguments[lane]);
      for (unsigned i = 0; i < 4; ++i) {
        const unsigned r = lane / 4 + 8 * (i / 2), c = 2 * (lane % 4) + i % 2;
        float sum = own.d[i];
        for (unsigned k = 0; k < 16; ++k) sum += left[r][k] * right[k][c];
        own.d[i] = sum;
      }
    }
  };
  together(kAll, "mma.sync", multiply, &argument, site);
}

void* dynamic_shared() { return memory().dynamic_shared(); }

void* static_shared(const void* key, std::size_t bytes) {
  const Inside inside;
  void* const array = memory().static_shared(key, bytes);
  if (array == nullptr)
    multiprocessor().fail(FaultKind::out_of_bounds,
                          "needs more than " + std::to_string(kMostStaticShared) + " bytes of static shared memory",
                          multiprocessor().current());
  return array;
}

// ---- cp.async

void copy_async(void* shared, const void* global, bool valid) {
  const Inside inside;
  Thread& self = multiprocessor().current();
  check_shared(self, shared, 16, true);
  if (reinterpret_cast<std::uintptr_t>(global) % 16 != 0)
    multiprocessor().fail(FaultKind::misaligned, "copies by cp.async from an address that is no multiple of 16", self);
  memory().mark(shared, 16, 0, kWritten);  // until the copy is waited for
  self.copies.push_back({shared, global, valid, self.group});
}

void commit_copies() { ++multiprocessor().current().group; }

void wait_for_copies(unsigned newest_left) {
  const Inside inside;
  Thread& self = multiprocessor().current();
  std::size_t count = 0;
  for (; count < self.copies.size() && self.copies[count].group + newest_left < self.group; ++count) {
    const Copy& copy = self.copies[count];
    if (copy.valid) check_access(self, copy.from, 16, false, true);
    check_shared(self, copy.to, 16, true);
    if (copy.valid) {
      std::memcpy(copy.to, copy.from, 16);
    } else {
      std::memset(copy.to, 0, 16);
    }
  }
  self.copies.erase(self.copies.begin(), self.copies.begin() + static_cast<std::ptrdiff_t>(count));
}

}  // namespace emulation
