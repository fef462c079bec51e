#pragma once
#include <cstddef>

#include "graft/types.h"

namespace graft {

/// `count` numbers of one dtype as another, rounded to the nearest, ties to even. To u32: whole numbers in its range only.
void convert(const void* from, DType from_type, void* to, DType to_type, std::size_t count);

}  // namespace graft
