#include "src/initialize.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "graft/error.h"
#include "graft/philox.h"

namespace graft {
namespace {

constexpr std::uint32_t kInitStep = 0xffffffffu;

std::uint32_t fnv1a(std::string_view text) {
  std::uint32_t hash = 2166136261u;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
  return hash;
}

/// The numbers of one tensor, made in Philox's blocks of four.
class Numbers {
 public:
  Numbers(std::uint64_t seed, std::string_view name) : seed_(seed), stream_(fnv1a(name)) {}
  double operator[](std::uint64_t index) {
    if (index / 4 != group_) {
      group_ = index / 4;
      block_ =
          philox::block({static_cast<std::uint32_t>(group_), static_cast<std::uint32_t>(group_ >> 32), stream_, kInitStep}, seed_);
    }
    return philox::uniform(block_[index % 4]);
  }

 private:
  std::uint64_t seed_;
  std::uint32_t stream_;
  std::uint64_t group_ = ~std::uint64_t{0};
  philox::Block block_{};
};

void uniform(double low, double high, Numbers numbers, std::uint64_t first, std::span<double> to) {
  const float f_low = static_cast<float>(low), f_high = static_cast<float>(high);
  for (std::size_t i = 0; i < to.size(); ++i) {
    to[i] = low + (high - low) * numbers[first + i];
    if (f_low < f_high && static_cast<float>(to[i]) >= f_high) to[i] = std::nextafter(f_high, f_low);
  }
}

void normal(double mean, double stddev, Numbers numbers, std::uint64_t first, std::span<double> to) {
  GRAFT_ASSERT(first % 2 == 0);
  for (std::size_t i = 0; i < to.size(); i += 2) {
    const double radius = stddev * std::sqrt(-2.0 * std::log(1.0 - numbers[first + i]));
    const double angle = 2.0 * std::numbers::pi * numbers[first + i + 1];
    to[i] = mean + radius * std::cos(angle);
    if (i + 1 < to.size()) to[i + 1] = mean + radius * std::sin(angle);
  }
}

}  // namespace

void initial_values(const Init& init, const Shape& shape, std::string_view name, std::uint64_t seed, std::uint64_t first,
                    std::span<double> to) {
  const bool matrix = shape.rank() == 2;
  const auto fan_in = static_cast<double>(matrix ? shape.rows() : shape.size());
  const auto fan_out = static_cast<double>(matrix ? shape.cols() : shape.size());
  const Numbers numbers(seed, name);
  switch (init.kind) {
    case Init::Kind::constant: std::fill(to.begin(), to.end(), init.a); return;
    case Init::Kind::normal: normal(init.a, init.b, numbers, first, to); return;
    case Init::Kind::uniform: uniform(init.a, init.b, numbers, first, to); return;
    case Init::Kind::xavier: {
      const double limit = std::sqrt(6.0 / (fan_in + fan_out));
      uniform(-limit, limit, numbers, first, to);
      return;
    }
    case Init::Kind::kaiming: normal(0.0, std::sqrt(2.0 / fan_in), numbers, first, to); return;
  }
}

}  // namespace graft
