#include "kernels/cuda/kernels.h"
#include "kernels/cuda/row_copy.cuh"

namespace graft::cuda {
namespace {

/// What kernels/segments.h calls CacheRows, in the device's memory.
struct Places {
  unsigned count, rows;
  std::int64_t max_seq;
  const std::uint32_t* place;
  const std::uint32_t* slots;  ///< null: in order
};

/// Whether a sequence behind number s writes row `at` of the same cache. Called by all threads of a block.
__device__ __forceinline__ bool is_overwritten(const Places& places, unsigned s, std::uint32_t at) {
  bool overwritten = false;
  for (unsigned other = s + 1 + threadIdx.x; other < places.count; other += blockDim.x)
    overwritten |= places.slots[other] == places.slots[s] && at - places.place[other] < places.rows;  // at < place wraps around
  return __syncthreads_or(overwritten);
}

/// A block a new row. Reads count numbers for each where there are slots, which may name a sequence twice.
template <class Unit>
__global__ void cache_write_kernel(Places places, std::int64_t units, const Unit* rows, Unit* cache) {
  const unsigned s = blockIdx.x / places.rows;
  const std::uint32_t at = places.place[s] + blockIdx.x % places.rows;
  std::int64_t slot = s;
  if (places.slots != nullptr) {
    if (is_overwritten(places, s, at)) return;
    slot = places.slots[s];
  }
  copy_row(rows + blockIdx.x * units, cache + (slot * places.max_seq + at) * units, units);
}

}  // namespace

// The output is the cache, in[1]: it is written there, also when nothing reads the output.
void run(const CacheWrite& op, const Step& step, Context& context) {
  const TensorView &rows = step.in[0], &cache = step.in[1], &place = step.in[2];
  const std::int64_t count = place.size();
  const Places places = {static_cast<unsigned>(count), static_cast<unsigned>(rows.rows() / count), cache.rows() / (op.sequences > 0 ? op.sequences : count),
                         place.as<const std::uint32_t>(), op.sequences > 0 ? step.in[3].as<const std::uint32_t>() : nullptr};
  const auto bytes = static_cast<std::int64_t>(rows.type.bytes()) / rows.rows();
  with_copy_unit(bytes, [&]<class Unit>() {
    const std::int64_t units = bytes / static_cast<std::int64_t>(sizeof(Unit));
    launch(cache_write_kernel<Unit>, row_copy_shape(rows.rows(), units), context.stream, places, units, rows.as<const Unit>(), cache.as<Unit>());
  });
}

}  // namespace graft::cuda
