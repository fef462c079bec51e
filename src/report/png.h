#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace graft::report::detail {

using Rgb = std::array<std::uint8_t, 3>;

/// A PNG of 8-bit palette indices, row-major (PNG specification, second edition). Runs and rows that repeat are packed (RFC 1951, fixed codes).
std::string png(std::int64_t width, std::int64_t height, const std::vector<std::uint8_t>& pixels, const std::vector<Rgb>& palette);

/// The scale of heat maps, f from 0 to 1: white, blues, nearly black.
Rgb heat(double f);
std::string hex(const Rgb& rgb);  ///< "#rrggbb"

}  // namespace graft::report::detail
