#include "src/io/errors.h"

#include <system_error>

namespace graft::detail {

void fail(const std::filesystem::path& file, const std::string& what) {
  throw Error("checkpoint \"" + file.string() + "\": " + what);
}

void fail(const std::filesystem::path& file, const std::string& what, int error) {
  fail(file, what + ": " + std::generic_category().message(error));
}

}  // namespace graft::detail
