#pragma once
// What gradient_check and backend_check share.
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "graft/gradient_check.h"
#include "graft/session.h"

namespace graft::detail {

using InputValues = std::map<std::string, std::vector<double>>;

/// Standard normal numbers from Philox; `stream` and `name` give independent ones.
std::vector<double> normal_values(std::uint64_t seed, std::string_view name, std::uint32_t stream, std::int64_t count);

/// Throws Error on a name in `given` that is no input of the graph; `who` starts the message.
void require_inputs_exist(const Graph& graph, const InputValues& given, std::string_view who);

/// Writes every input of the graph: as given, or standard normal values. Throws Error when a u32 input is not given.
void write_inputs(Session& session, const Graph& graph, const InputValues& given, std::uint64_t seed, std::string_view who);

/// "[2, 3]" for row 2 and column 3 of a matrix.
std::string element_name(const Shape& shape, std::int64_t index);

}  // namespace graft::detail
