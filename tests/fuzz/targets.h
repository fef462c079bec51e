#pragma once
#include <cstddef>
#include <span>

/// Readers of untrusted bytes, each in fuzz_NAME.cc of this folder, with a corpus in corpus/NAME. A target gives the bytes to its
/// reader: graft::Error is the right answer to bad ones, and the target catches it; anything else is a bug. It also uses what was
/// read, so that a wrong offset shows. `./dev fuzz` runs libFuzzer on them; tests/fuzz_test.cc runs each on its corpus and on so many
/// mutations of it.
#define GRAFT_FUZZ_TARGETS(TARGET) \
  TARGET(checkpoint, 2'000)      \
  TARGET(hf_config, 10'000)      \
  TARGET(pattern, 5'000)         \
  TARGET(safetensors, 20'000)    \
  TARGET(token_file, 5'000)      \
  TARGET(tokenizer, 300)

namespace graft::fuzz {
#define GRAFT_DECLARE_TARGET(name, mutations) void fuzz_##name(std::span<const std::byte> input);
GRAFT_FUZZ_TARGETS(GRAFT_DECLARE_TARGET)
#undef GRAFT_DECLARE_TARGET
}  // namespace graft::fuzz
