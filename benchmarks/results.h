#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "benchmarks/row.h"

nlohmann::ordered_json to_json(const Row& row);

/// What was measured on one machine on one day, as benchmarks/results/*.json holds it: "date", "processor", "backend", "compiler", "threads", "results" (a list of rows).
/// Rows in place of those of the same bench and case, the others are kept, if the file is of the same processor, backend and compiler.
void merge_results(nlohmann::ordered_json& into, const nlohmann::ordered_json& measured);

/// The README's table: a training step and what else stands in the file, as Markdown. A figure that was not measured is "not measured".
std::string markdown_table(const nlohmann::ordered_json& results);
/// The README's table of what was measured on a GPU, from a file of graft_gpu_bench; null: all of it is "not measured".
std::string gpu_table(const nlohmann::ordered_json& results);
/// Bars of the speed of a training step, graft beside its peers, as a self-contained SVG; empty when no step was measured beside a peer.
std::string svg_chart(const nlohmann::ordered_json& results);
