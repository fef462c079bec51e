#pragma once
#include <cstddef>

#include "graft/types.h"

namespace graft {

/// `count` numbers of one dtype as another: floating-point types are rounded to the nearest, u32 goes to f32, f64 and u32 (f64 to u32: whole numbers).
void convert(const void* from, DType from_type, void* to, DType to_type, std::size_t count);

}  // namespace graft
