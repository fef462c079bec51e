#pragma once
// Names for reports.
#include <string>

namespace emulation {

/// Of a function of this program, local ones too: "graft::cuda::norm_kernel<float>(…)".
std::string function_name(const void* function);
/// Where the code before the return address `code` comes from: a line a frame, inlined ones first, by addr2line.
std::string source_lines(const void* code);
std::string short_file(const std::string& path);
std::string hexadecimal(unsigned long number);

/// Whether [data, data + bytes) lies in what this program may only read: constants.
bool is_constant(const void* data, std::size_t bytes);

}  // namespace emulation
