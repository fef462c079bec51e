#include <string_view>

#include "graft/error.h"
#include "graft/hf.h"
#include "tests/fuzz/targets.h"

namespace graft::fuzz {

void fuzz_hf_config(std::span<const std::byte> input) {
  try {
    const hf::Config config = hf::Config::parse({reinterpret_cast<const char*>(input.data()), input.size()});
    GRAFT_ASSERT(hf::Config::parse(config.json()).json() == config.json());
  } catch (const Error&) {}
}

}  // namespace graft::fuzz
