#pragma once
#include <cstdint>
#include <filesystem>

#include "graft/checkpoint.h"

// Names in a checkpoint file; docs/checkpoints.md describes it.
namespace graft::detail {

inline constexpr const char* kFormat = "graft checkpoint";
inline constexpr const char* kFormatAttribute = "format";
inline constexpr const char* kVersionAttribute = "format_version";
inline constexpr const char* kStepAttribute = "step";
inline constexpr const char* kGraphHashAttribute = "graph_hash";
inline constexpr const char* kMetricAttribute = "metric";
inline constexpr const char* kConfigAttribute = "config";
inline constexpr const char* kCompleteAttribute = "complete";
inline constexpr const char* kScheduleGroup = "schedule";
inline constexpr const char* kScheduleAttribute = "definition";
inline constexpr const char* kScalarAttribute = "scalar";  // on a dataset of one element: the tensor has rank 0

/// Largest chunk of a dataset, in bytes: HDF5's default chunk cache holds one.
inline constexpr std::int64_t kChunkBytes = std::int64_t{1} << 20;

class AtomicFile;
/// Writes the whole file with another metric than the checkpoint's own, up to its commit.
void write_checkpoint(AtomicFile& out, const Checkpoint& checkpoint, double metric);

}  // namespace graft::detail
