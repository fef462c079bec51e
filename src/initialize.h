#pragma once
#include <cstdint>
#include <span>
#include <string_view>

#include "graft/ops.h"

namespace graft {

/// Elements [first, first + to.size()) of a tensor as its Init says; `first` is even. The numbers are Philox's (seed, stream, step,
/// index): stream is the FNV-1a hash of the tensor's name and step is 0xffffffff, a count that the step counter of dropout does not
/// reach, so the two never meet. Element i takes number i:
///   uniform  a + (b − a)·u, the largest f32 below b where that would round to b
///   normal   elements 2j and 2j + 1 share Box and Muller's pair: r·cos t and r·sin t, r = √(−2 ln(1 − u(2j))), t = 2π·u(2j + 1)
/// xavier and kaiming: a vector has fan_in = fan_out = its size.
/// The values are doubles; an f32 tensor holds them rounded, so an f32 and an f64 graph start alike.
void initial_values(const Init& init, const Shape& shape, std::string_view name, std::uint64_t seed, std::uint64_t first,
                    std::span<double> to);

}  // namespace graft
