#pragma once
#include <filesystem>
#include <string>

#include "graft/error.h"

namespace graft::detail {

/// Throws Error `checkpoint "file": what`.
[[noreturn]] void fail(const std::filesystem::path& file, const std::string& what);
/// Throws Error `checkpoint "file": what: strerror(error)`.
[[noreturn]] void fail(const std::filesystem::path& file, const std::string& what, int error);

}  // namespace graft::detail
