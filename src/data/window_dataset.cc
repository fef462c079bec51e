#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <utility>

#include "graft/data.h"
#include "graft/error.h"
#include "graft/philox.h"

namespace graft {
namespace {

constexpr std::uint32_t kStream = 0x64617461;  // keeps these numbers apart from those of parameters and dropout

// Uniform in [0, n), n < 2^32, but for a bias below n / 2^32.
std::uint32_t draw(std::uint64_t seed, std::uint32_t epoch, std::uint64_t index, std::uint64_t n) {
  return static_cast<std::uint32_t>((philox::bits(seed, kStream, epoch, index) * n) >> 32);
}

}  // namespace

TokenView TokenView::subview(std::size_t first, std::size_t count) const {
  return wide_ != nullptr ? TokenView(std::span(wide_ + first, count)) : TokenView(std::span(narrow_ + first, count));
}

void TokenView::copy(std::size_t first, std::span<std::uint32_t> out) const {
  if (wide_ != nullptr)
    std::copy_n(wide_ + first, out.size(), out.begin());
  else
    std::copy_n(narrow_ + first, out.size(), out.begin());
}

WindowDataset::WindowDataset(std::vector<std::uint32_t> tokens, std::int64_t window, double validation_fraction, std::uint64_t seed)
    : held_(std::move(tokens)), window_(window), seed_(seed) {
  split(validation_fraction);
}

WindowDataset::WindowDataset(TokenView tokens, std::int64_t window, double validation_fraction, std::uint64_t seed)
    : viewed_(tokens), window_(window), seed_(seed) {
  split(validation_fraction);
}

void WindowDataset::split(double validation_fraction) {
  const std::int64_t window = window_;
  if (window < 1) throw Error("data: window must be at least 1, got " + std::to_string(window));
  if (!(validation_fraction >= 0 && validation_fraction < 1)) {
    throw Error("data: validation fraction must be in [0, 1), got " + std::to_string(validation_fraction));
  }
  const auto total = static_cast<std::int64_t>(tokens().size());
  const auto validation = static_cast<std::int64_t>(std::floor(static_cast<double>(total) * validation_fraction));
  training_size_ = total - validation;
  const auto check = [&](const std::string& part, std::int64_t tokens) {
    if (tokens > window) return;
    throw Error("data: the text is too short: a window takes " + std::to_string(static_cast<std::uint64_t>(window) + 1) +
                " tokens, the " + part + " part has " + std::to_string(tokens) + " of all " + std::to_string(total));
  };
  check("training", training_size_);
  if (validation_fraction > 0) check("validation", validation);
  const std::int64_t windows = std::max<std::int64_t>(1, (training_size_ - window_) / window_);
  if (windows > std::numeric_limits<std::uint32_t>::max()) {
    throw Error("data: an epoch of " + std::to_string(windows) + " windows is too long, take a longer window than " +
                std::to_string(window));
  }
  order_.resize(static_cast<std::size_t>(windows));
  shuffle();
}

// Fisher-Yates. Windows follow each other from phase_ on; as it moves, each training token has its turn.
void WindowDataset::shuffle() {
  const std::uint64_t windows = order_.size();
  const auto phases = static_cast<std::uint64_t>(training_size_ - window_ * training_windows());
  phase_ = draw(seed_, epoch_, 0, phases);
  std::iota(order_.begin(), order_.end(), 0u);
  for (std::uint64_t i = windows - 1; i > 0; --i) std::swap(order_[i], order_[draw(seed_, epoch_, i, i + 1)]);
}

void WindowDataset::next_batch(std::span<std::uint32_t> inputs, std::span<std::uint32_t> labels) {
  const auto length = static_cast<std::size_t>(window_);
  if (inputs.size() != labels.size() || inputs.empty() || inputs.size() % length != 0) {
    throw Error("data: a batch needs as many inputs as labels, and whole windows of " + std::to_string(window_) + ", got " +
                std::to_string(inputs.size()) + " and " + std::to_string(labels.size()));
  }
  for (std::size_t at = 0; at < inputs.size(); at += length) {
    const std::int64_t first = phase_ + window_ * order_[next_];
    copy_window(static_cast<std::size_t>(first), inputs.subspan(at, length), labels.subspan(at, length));
    if (++next_ == order_.size()) {
      next_ = 0;
      ++epoch_;
      shuffle();
    }
  }
}

void WindowDataset::validation_window(std::int64_t i, std::span<std::uint32_t> inputs, std::span<std::uint32_t> labels) const {
  const auto length = static_cast<std::size_t>(window_);
  if (i < 0 || i >= validation_windows()) {
    throw Error("data: there is no validation window " + std::to_string(i) + ", there are " + std::to_string(validation_windows()));
  }
  if (inputs.size() != length || labels.size() != length) {
    throw Error("data: a validation window has " + std::to_string(window_) + " inputs and labels, got " +
                std::to_string(inputs.size()) + " and " + std::to_string(labels.size()));
  }
  copy_window(static_cast<std::size_t>(training_size_ + i * window_), inputs, labels);
}

std::int64_t WindowDataset::validation_windows() const {
  return std::max<std::int64_t>(0, (static_cast<std::int64_t>(tokens().size()) - training_size_ - 1) / window_);
}

std::int64_t WindowDataset::training_windows() const { return static_cast<std::int64_t>(order_.size()); }

TokenView WindowDataset::training_tokens() const { return tokens().subview(0, static_cast<std::size_t>(training_size_)); }

TokenView WindowDataset::validation_tokens() const {
  const auto training = static_cast<std::size_t>(training_size_);
  return tokens().subview(training, tokens().size() - training);
}

// The T + 1 tokens from `first` on.
void WindowDataset::copy_window(std::size_t first, std::span<std::uint32_t> inputs, std::span<std::uint32_t> labels) const {
  tokens().copy(first, inputs);
  tokens().copy(first + 1, labels);
}

void WindowDataset::seek(std::span<const std::uint32_t> position) {
  if (position.size() != 2)
    throw Error("data: a position is an epoch and a window, got " + std::to_string(position.size()) + " numbers");
  if (position[1] >= order_.size()) {
    throw Error("data: position is window " + std::to_string(position[1]) + ", but an epoch of this text has " +
                std::to_string(order_.size()) + ": it is not the text that the position was saved with");
  }
  epoch_ = position[0];
  next_ = position[1];
  shuffle();
}

}  // namespace graft
