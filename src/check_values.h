#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "graft/plan.h"

namespace graft {

/// What must hold of the u32 values that a node reads: ids, labels, positions, lengths, offsets. Checked before a step runs.
struct ValueCheck {
  enum class Kind : std::uint8_t {
    id,        ///< each < bound, the rows of the table
    label,     ///< each < bound, the classes, or ignore_index
    position,  ///< + rows ≤ bound, the rows of the cache
    length,    ///< from 1 to bound, the rows of the cache
    slot,      ///< each < bound, the sequences of the cache
    offsets,   ///< first 0, never falling, last bound, the rows they split
  };
  Kind kind;
  std::int32_t node;  ///< that reads them
  const char* what;   ///< "q_offsets"
  std::int64_t bound;
  std::uint32_t ignore_index = kIgnoreIndex;
  std::int64_t rows = 1;    ///< from a position on
  std::int32_t source;      ///< the input, state or constant they come from
  std::uint32_t added = 0;  ///< increments between source and node
};

/// The checks of a plan, each once. Throws Error naming the node when its values come from a computation and so cannot be checked
/// beforehand.
std::vector<ValueCheck> value_checks(const Plan& plan);

/// Throws Error naming the node, the value and the bound.
void check_values(const Graph& graph, const ValueCheck& check, std::span<const std::uint32_t> values);

/// `matmul "mlp.up"`.
std::string label(const Node& node);

}  // namespace graft
