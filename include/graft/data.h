#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace graft {

/// A file mapped into memory, read-only. Throws Error naming the file when it cannot be opened or is empty.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& file);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  std::string_view text() const { return {data_, size_}; }

 private:
  const char* data_ = nullptr;
  std::size_t size_ = 0;
};

/// One token a byte value that occurs in a text, in order of value.
class ByteVocabulary {
 public:
  /// The bytes of a text; throws Error when it is empty.
  static ByteVocabulary of(std::string_view text);
  /// From bytes(), as kept in a checkpoint.
  explicit ByteVocabulary(std::string bytes);
  std::int64_t size() const { return static_cast<std::int64_t>(bytes_.size()); }
  const std::string& bytes() const { return bytes_; }
  /// Throws Error naming the byte and its position when it is not in the vocabulary.
  std::vector<std::uint32_t> encode(std::string_view text) const;
  std::string decode(std::span<const std::uint32_t> ids) const;

 private:
  std::string bytes_;
  std::vector<std::int32_t> id_of_;
};

/// A view of tokens that are held as u16 or as u32.
class TokenView {
 public:
  TokenView() = default;
  TokenView(std::span<const std::uint16_t> tokens) : narrow_(tokens.data()), size_(tokens.size()) {}  // NOLINT(google-explicit-constructor)
  TokenView(std::span<const std::uint32_t> tokens) : wide_(tokens.data()), size_(tokens.size()) {}    // NOLINT(google-explicit-constructor)

  std::size_t size() const { return size_; }
  std::uint32_t operator[](std::size_t i) const { return wide_ != nullptr ? wide_[i] : narrow_[i]; }
  std::uint32_t front() const { return (*this)[0]; }
  std::uint32_t back() const { return (*this)[size_ - 1]; }
  TokenView subview(std::size_t first, std::size_t count) const;
  /// The out.size() tokens from `first` on.
  void copy(std::size_t first, std::span<std::uint32_t> out) const;

 private:
  const std::uint16_t* narrow_ = nullptr;
  const std::uint32_t* wide_ = nullptr;
  std::size_t size_ = 0;
};

/// Windows of T + 1 tokens of a training part, in shuffled order, and of a validation part, in fixed order. Every epoch starts the
/// windows at another offset and visits them in another order, both from Philox, so that (epoch, next) is all there is to save.
class WindowDataset {
 public:
  /// The last `validation_fraction` of the tokens validate; with 0 there is no validation part. Throws Error with the lengths when a
  /// part holds no window.
  WindowDataset(std::vector<std::uint32_t> tokens, std::int64_t window, double validation_fraction = 0.1, std::uint64_t seed = 0);
  /// The same on tokens that lie elsewhere, as in a TokenFile, and must outlive it: nothing is read but the windows asked for.
  WindowDataset(TokenView tokens, std::int64_t window, double validation_fraction = 0.1, std::uint64_t seed = 0);

  /// The next labels.size() / T training windows: labels[i] is the token after inputs[i]. Sizes are multiples of T, and equal.
  void next_batch(std::span<std::uint32_t> inputs, std::span<std::uint32_t> labels);
  /// Window i of the validation part, 0 ≤ i < validation_windows().
  void validation_window(std::int64_t i, std::span<std::uint32_t> inputs, std::span<std::uint32_t> labels) const;
  std::int64_t validation_windows() const;
  std::int64_t training_windows() const;  ///< of one epoch, the same in each
  TokenView training_tokens() const;
  TokenView validation_tokens() const;

  /// Epoch and number of the next window: what a checkpoint keeps.
  std::vector<std::uint32_t> position() const { return {epoch_, next_}; }
  /// Throws Error when it does not fit this data.
  void seek(std::span<const std::uint32_t> position);
  std::uint32_t epoch() const { return epoch_; }

 private:
  void split(double validation_fraction);
  void shuffle();
  /// Those it holds or those that it looks at.
  TokenView tokens() const { return held_.empty() ? viewed_ : TokenView(std::span(held_)); }
  void copy_window(std::size_t first, std::span<std::uint32_t> inputs, std::span<std::uint32_t> labels) const;
  std::vector<std::uint32_t> held_;
  TokenView viewed_;
  std::int64_t window_ = 0, training_size_ = 0;
  std::uint64_t seed_ = 0;
  std::uint32_t epoch_ = 0, next_ = 0;
  std::vector<std::uint32_t> order_;
  std::int64_t phase_ = 0;
};

}  // namespace graft
