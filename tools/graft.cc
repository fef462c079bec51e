// The program `graft`. `graft inspect FILE` shows what is in a checkpoint or a safetensors file, `graft inspect FILE FILE2` how two differ.
#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "examples/support/number_checks.h"
#include "graft/error.h"
#include "graft/inspect.h"

namespace {

using namespace graft;
using nlohmann::ordered_json;

/// JSON has no NaN or infinity: null, and the counts say why.
ordered_json number(double value) { return std::isfinite(value) ? ordered_json(value) : ordered_json(); }

ordered_json as_json(const report::TensorFile& file) {
  ordered_json json = {{"path", file.path().string()},
                       {"format", file.format()},
                       {"facts", ordered_json::object()},
                       {"tensors", ordered_json::array()}};
  for (const auto& [name, value] : file.facts()) json["facts"][name] = value;
  for (const hf::StoredTensor& t : file.tensors()) {
    const report::TensorStatistics s = report::statistics(t);
    json["tensors"].push_back({{"name", t.name},
                               {"dtype", t.dtype},
                               {"shape", t.shape},
                               {"elements", s.count},
                               {"bytes", t.bytes.size()},
                               {"min", number(s.min)},
                               {"max", number(s.max)},
                               {"mean", number(s.mean)},
                               {"std", number(s.stddev)},
                               {"zeros", s.zeros},
                               {"nan", s.nan},
                               {"inf", s.infinite}});
  }
  return json;
}

ordered_json as_json(const report::Comparison& comparison) {
  ordered_json json = {{"same", comparison.same}, {"different", ordered_json::array()}};
  for (const report::TensorDifference& d : comparison.different)
    json["different"].push_back({{"name", d.name},
                                 {"first", d.first.empty() ? ordered_json() : ordered_json(d.first)},
                                 {"second", d.second.empty() ? ordered_json() : ordered_json(d.second)},
                                 {"differing", d.differing},
                                 {"largest", number(d.largest)},
                                 {"largest_relative", number(d.largest_relative)}});
  return json;
}

int run(int argc, char** argv) {
  CLI::App app{"Tools of graft."};
  app.require_subcommand(1);
  std::string first, second;
  bool json = false;
  CLI::App* inspect = app.add_subcommand(
      "inspect",
      "Lists the tensors of a checkpoint or safetensors file with their statistics; with a second file, how they differ. "
      "Exit code: 0, or 3 when two files differ; 1: a file cannot be read; 2: wrong options.");
  inspect->add_option("FILE", first, "a checkpoint (.h5), a safetensors file or index, a run's or a Hugging Face folder")
      ->required();
  inspect->add_option("FILE2", second, "compare with this one");
  inspect->add_flag("--json", json, "for programs: JSON");
  if (int exit_code = 0; !parse(app, "graft", argc, argv, exit_code)) return exit_code;

  const report::TensorFile file(first);
  if (second.empty()) {
    std::fputs(json ? (as_json(file).dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n").c_str()
                    : report::describe(file).c_str(),
               stdout);
    return 0;
  }
  const report::TensorFile other(second);
  const report::Comparison comparison = report::compare(file, other);
  std::fputs(json ? (as_json(comparison).dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n").c_str()
                  : report::describe(comparison).c_str(),
             stdout);
  return comparison.different.empty() ? 0 : 3;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "graft: %s\n", error.what());
    return 1;
  }
}
