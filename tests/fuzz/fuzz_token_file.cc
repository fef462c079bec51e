#include <cstring>
#include <vector>

#include "graft/error.h"
#include "graft/token_file.h"
#include "src/io/content_hash.h"
#include "tests/fuzz/file_in_memory.h"
#include "tests/fuzz/targets.h"

namespace graft::fuzz {
namespace {

void load(std::span<const std::byte> bytes) {
  static const FileInMemory file;
  file.set(bytes);
  try {
    const TokenFile tokens(file.name);
    GRAFT_ASSERT(tokens.tokenizer_json().size() + 2 * tokens.tokens().size() < bytes.size());
    for (std::size_t i = 0; i < tokens.tokens().size(); ++i) GRAFT_ASSERT(tokens.tokens()[i] < tokens.vocab_size());
  } catch (const Error&) {}
}

std::uint64_t hash_of(std::span<const std::byte> bytes) {
  detail::ContentHash hash;
  hash.update(bytes);
  return hash.value();
}

}  // namespace

/// The input as it is, and with checksums that fit, where what they are of lies in the file (docs/tokenizers.md has the layout).
void fuzz_token_file(std::span<const std::byte> input) {
  load(input);
  constexpr std::size_t kHeader = 64, kTrailer = 16;
  if (input.size() < kHeader + kTrailer) return;
  std::vector<std::byte> bytes(input.begin(), input.end());
  std::uint64_t json = 0;
  std::memcpy(&json, &bytes[32], sizeof json);
  const std::size_t room = bytes.size() - kHeader - kTrailer;
  if (json > room || (json + 63) / 64 * 64 > room) return;
  const std::span all(bytes);
  const std::size_t first = kHeader + (json + 63) / 64 * 64;
  const std::uint64_t of_json = hash_of(all.subspan(kHeader, json)),
                      of_tokens = hash_of(all.subspan(first, bytes.size() - kTrailer - first));
  std::memcpy(&bytes[24], &of_json, sizeof of_json);
  std::memcpy(&bytes[bytes.size() - 8], &of_tokens, sizeof of_tokens);
  load(bytes);
}

}  // namespace graft::fuzz
