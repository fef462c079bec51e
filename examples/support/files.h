#pragma once
#include <filesystem>
#include <string>

/// The text of a file; of a folder, all its .md, .txt, .h, .cc, .cu, .cuh and .py files in order of path, hidden, build and run folders left out.
/// Throws graft::Error naming the path when there is nothing to read.
std::string gather_text(const std::filesystem::path& path);

/// runs/001, runs/002, …: the first that is not there, and the last that holds a checkpoint ("" if none).
std::filesystem::path next_run(const std::filesystem::path& runs);
std::filesystem::path newest_run(const std::filesystem::path& runs);

/// 1234567 as "1,234,567".
std::string grouped(long long number);
/// Seconds as "2:05" or "1:02:03".
std::string clock_text(double seconds);
