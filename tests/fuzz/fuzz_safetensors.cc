#include <string_view>
#include <vector>

#include "graft/error.h"
#include "src/hf/safetensors_format.h"
#include "tests/fuzz/targets.h"

namespace graft::fuzz {

void fuzz_safetensors(std::span<const std::byte> input) {
  try {
    std::size_t bytes = 0;
    for (const hf::StoredTensor& tensor : hf::detail::parse_safetensors(input, "x").tensors) {
      bytes += tensor.bytes.size();
      std::byte all{0};
      for (const std::byte byte : tensor.bytes) all |= byte;
      GRAFT_ASSERT(tensor.bytes.empty() || (tensor.bytes.data() >= input.data() && all <= std::byte{255}));
      double last = 0.0;
      try {
        if (tensor.elements() > 0) read_values(tensor, tensor.elements() - 1, std::span(&last, 1));
      } catch (const Error&) {  // a dtype that is no number
      }
    }
    GRAFT_ASSERT(bytes < input.size());
  } catch (const Error&) {}
  try {
    const std::string_view text(reinterpret_cast<const char*>(input.data()), input.size());
    for (const auto& [tensor, file] : hf::detail::parse_index(text, "x")) GRAFT_ASSERT(file.find('/') == std::string::npos);
  } catch (const Error&) {}
}

}  // namespace graft::fuzz
