#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "graft/checkpoint.h"
#include "graft/error.h"
#include "src/io/content_hash.h"
#include "src/io/seal.h"
#include "tests/fuzz/file_in_memory.h"
#include "tests/fuzz/targets.h"

namespace graft::fuzz {
namespace {

using Bytes = std::vector<std::byte>;

void load(std::span<const std::byte> bytes) {
  static const FileInMemory file;
  file.set(bytes);
  try {
    const Checkpoint checkpoint = read_checkpoint(file.name);
    std::size_t held = 0;
    for (const SavedTensor& tensor : checkpoint.tensors) {
      GRAFT_ASSERT(tensor.bytes.size() == tensor.type.bytes() && !tensor.path.empty());
      held += tensor.bytes.size();
    }
    GRAFT_ASSERT(held < bytes.size());
  } catch (const Error&) {
  }
}

void load_sealed(Bytes bytes) {
  detail::ContentHash hash;
  hash.update(std::span(bytes).subspan(detail::kSealSize));
  const detail::Seal seal = detail::make_seal(kCheckpointVersion, bytes.size(), hash.value());
  std::memcpy(bytes.data(), seal.data(), seal.size());
  load(bytes);
}

/// A checkpoint that nothing is wrong with.
const Bytes& sound() {
  static const Bytes bytes = [] {
    Checkpoint checkpoint;
    checkpoint.config = "{}";
    checkpoint.tensors = {{"model/w", {DType::f32, {3, 2}}, Bytes(24)}, {"rng/counter", {DType::u32, {}}, Bytes(4)}};
    const std::filesystem::path file =
        std::filesystem::temp_directory_path() / ("graft_fuzz_checkpoint_" + std::to_string(::getpid()) + ".h5");
    write_checkpoint(file, checkpoint);
    std::FILE* in = std::fopen(file.c_str(), "rb");
    Bytes read(1 << 20);
    read.resize(std::fread(read.data(), 1, read.size(), in));
    std::fclose(in);
    std::filesystem::remove(file);
    return read;
  }();
  return bytes;
}

}  // namespace

/// The input as it is, which the seal refuses; under a seal that fits, so that HDF5 and the checks of the layout see it; and as
/// changes (a place in two bytes, a byte) of a sound checkpoint, again under a seal that fits.
void fuzz_checkpoint(std::span<const std::byte> input) {
  load(input);
  if (input.size() > detail::kSealSize) load_sealed({input.begin(), input.end()});
  Bytes changed = sound();
  const std::size_t body = changed.size() - detail::kSealSize;
  for (std::size_t i = 0; i + 3 <= std::min<std::size_t>(input.size(), 96); i += 3) {
    const std::size_t place = std::to_integer<std::size_t>(input[i]) + 256 * std::to_integer<std::size_t>(input[i + 1]);
    changed[detail::kSealSize + place % body] = input[i + 2];
  }
  load_sealed(std::move(changed));
}

}  // namespace graft::fuzz
