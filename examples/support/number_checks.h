#pragma once
// Checks of numbers on the command line, with messages for people. Nothing that is counted or measured here reaches 1e15.
#include <CLI/CLI.hpp>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <string>

namespace detail {

template <class Holds>
CLI::Validator number(std::string must_be, Holds holds) {
  const auto check = [must_be, holds](const std::string& text) -> std::string {
    double value = 0.0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    const bool fine = error == std::errc() && end == text.data() + text.size() && std::abs(value) < 1e15 && holds(value);
    return fine ? "" : "must be a number " + must_be + ", got " + text;
  };
  return CLI::Validator(check, "");
}

}  // namespace detail

inline CLI::Validator positive() {
  return detail::number("above 0", [](double value) { return value > 0.0; });
}
inline CLI::Validator not_negative() {
  return detail::number("not below 0", [](double value) { return value >= 0.0; });
}
inline CLI::Validator between(double low, double high) {
  char text[64];
  std::snprintf(text, sizeof text, "from %g to %.9g", low, high);
  return detail::number(text, [=](double value) { return value >= low && value <= high; });
}

/// Parses the command line; a bad one gets one line on stderr. Whether to go on; if not, `exit_code` is what to exit with.
inline bool parse(CLI::App& app, const char* program, int argc, char** argv, int& exit_code) {
  app.failure_message([program](const CLI::App*, const CLI::Error& error) {
    return std::string(program) + ": " + error.what() + " (" + program + " --help lists the options)\n";
  });
  try {
    app.parse(argc, argv);
    return true;
  } catch (const CLI::ParseError& error) {
    exit_code = app.exit(error) == 0 ? 0 : 2;
    return false;
  }
}
