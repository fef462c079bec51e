#include "benchmarks/results.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

namespace {

using Json = nlohmann::ordered_json;

const Json* find_row(const Json& results, const std::string& bench, const std::string& name) {
  if (!results.contains("results")) return nullptr;
  for (const Json& row : results["results"])
    if (row["bench"] == bench && row["case"] == name) return &row;
  return nullptr;
}

/// "torch 2.15.0+cpu, compiled" → 2
int major_version(const std::string& peer) {
  const std::size_t at = peer.find(' ');
  return at == std::string::npos ? 0 : std::atoi(peer.c_str() + at + 1);
}

/// Milliseconds of the fastest peer of a row whose major version is that; 0 when there is none.
double fastest(const Json& row, int major) {
  double best = 0;
  if (row.contains("peers"))
    for (const auto& [name, ms] : row["peers"].items())
      if (major_version(name) == major && (best == 0 || ms.get<double>() < best)) best = ms.get<double>();
  return best;
}

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) out += c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : std::string(1, c);
  return out;
}

}  // namespace

Json to_json(const Row& row) {
  Json json = {{"bench", row.bench}, {"case", row.name}};
  if (row.seconds > 0) json["ms"] = row.seconds * 1e3;
  for (const auto& [label, value] : row.more.all) json[label] = value;
  for (const auto& [label, theirs] : row.peers) json["peers"][label] = theirs * 1e3;
  return json;
}

void merge_results(Json& into, const Json& measured) {
  for (const char* key : {"processor", "backend", "compiler", "threads"}) {
    if (!into.contains(key) || into[key] != measured[key]) {
      into = measured;
      return;
    }
  }
  Json rows = into["results"];
  for (const Json& row : measured["results"]) {
    const auto same = std::find_if(rows.begin(), rows.end(),
                                   [&](const Json& old) { return old["bench"] == row["bench"] && old["case"] == row["case"]; });
    if (same == rows.end()) {
      rows.push_back(row);
    } else {
      *same = row;
    }
  }
  into = measured;
  into["results"] = rows;
}

std::string markdown_table(const Json& results) {
  const std::string missing = "not measured";
  std::string text = "Measured " + results["date"].get<std::string>() + " on " + std::to_string(results["threads"].get<int>()) +
                     " cores of an " + results["processor"].get<std::string>() + ", " + results["backend"].get<std::string>() +
                     ", " + results["compiler"].get<std::string>() + ". Medians, both sides alternating in one run.\n\n";
  text +=
      "| a whole training step, f32 | graft | tokens/s | of the GEMM rate | over PyTorch 2.x | over PyTorch 1.13 | in bf16, over "
      "graft's f32 |\n|---|---|---|---|---|---|---|\n";
  for (const auto& [name, what] : {std::pair{"S", "0.8M parameters, 12 × 64 tokens"},
                                   {"M", "9.6M, 8 × 256"},
                                   {"L", "9.6M, 2 × 1024"},
                                   {"W", "27.8M, 8 × 256"}}) {
    text += "| **" + std::string(name) + "**: " + what;
    const Json* row = find_row(results, "step", std::string(name) + " f32");
    const Json* narrow = find_row(results, "step", std::string(name) + " bf16");
    const auto over = [&](int major) {
      const double theirs = row == nullptr ? 0 : fastest(*row, major);
      return theirs == 0 ? missing : times(theirs / (*row)["ms"].get<double>());
    };
    text += " | " + (row == nullptr ? missing : figure((*row)["ms"].get<double>()) + " ms");
    text += " | " + (row == nullptr ? missing : figure((*row)["tokens/s"].get<double>()));
    text += " | " + (row == nullptr ? missing : figure((*row)["% of GEMM"].get<double>()) + " %");
    text += " | " + over(2) + " | " + over(1);
    text += " | " + (narrow == nullptr || !narrow->contains("times f32") ? missing : times((*narrow)["times f32"].get<double>())) +
            " |\n";
  }
  text += "\n| | |\n|---|---|\n";
  const auto line = [&](const std::string& what, const std::string& bench, const std::string& name, auto show) {
    const Json* row = find_row(results, bench, name);
    text += "| " + what + " | " + (row == nullptr ? missing : show(*row)) + " |\n";
  };
  const auto value = [](const Json& row, const std::string& key) {
    return row.contains(key) ? figure(row[key].get<double>()) : std::string("not measured");
  };
  line("attention, forward and backward, head size 64, 4096 tokens, causal", "attention", "D64 T4096 causal", [&](const Json& row) {
    const double theirs = fastest(row, 2);
    return value(row, "% of GEMM") + " % of the GEMM rate" +
           (theirs == 0 ? "" : ", " + times(theirs / row["ms"].get<double>()) + " PyTorch 2.x's `scaled_dot_product_attention`");
  });
  line("one token of a 28M-parameter model against 4096 cached ones", "decode", "28M, 4k cache, f32", [&](const Json& row) {
    return value(row, "tokens/s") + " tokens/s, " + value(row, "% of read") + " % of the memory's bandwidth";
  });
  line("peak memory of a process that trains L", "memory", "L f32", [&](const Json& row) {
    std::string said = value(row, "peak MB") + " MB";
    for (const auto& [key, share] : row.items())
      if (key.starts_with("of torch")) said += ", " + times(share.get<double>()) + " " + key.substr(3) + "'s";
    return said;
  });
  line("from the start of a process to the end of its first step, S", "start", "S f32",
       [&](const Json& row) { return value(row, "ms") + " ms"; });
  line("two threads over one, M", "scaling", "M f32", [&](const Json& row) { return value(row, "2 threads over 1") + "×"; });
  return text;
}

std::string gpu_table(const Json& results) {
  const std::string missing = "not measured";
  std::string text = results.is_null() ? "No GPU has run this version of graft yet: the kernels are proven on an emulated device, nothing is known of their speed.\n\n"
                                       : "Measured " + results["date"].get<std::string>() + ", " + results["backend"].get<std::string>() + ", driver " +
                                             results["driver"].get<std::string>() + ". Medians; peers in the same run.\n\n";
  text += "| on a GPU | graft | PyTorch |\n|---|---|---|\n";
  struct Line {
    const char *what, *bench, *name, *key, *unit;
  };
  for (const Line& line : {Line{"attention forward, bf16, head size 128, 8192 tokens, full mask", "attention forward", "D128 T8192 H16/16 full", "TFLOP/s", "TFLOP/s"},
                           {"the same, causal", "attention forward", "D128 T8192 H16/16 causal", "TFLOP/s", "TFLOP/s"},
                           {"attention backward, bf16, head size 128, 8192 tokens, full mask", "attention backward", "D128 T8192 H16/16 full", "TFLOP/s", "TFLOP/s"},
                           {"decode, 64 sequences against 8192 cached tokens each", "decode", "n64 cache 8192 H32/8 D128", "% of copy", "% of the copy rate"},
                           {"RMSNorm, 4096 columns", "rms_norm", "[32768, 4096] f32", "% of copy", "% of the copy rate"},
                           {"its gradient", "rms_norm gradient", "[32768, 4096] f32", "% of copy", "% of the copy rate"},
                           {"cross-entropy and its gradient, 50,304 classes", "cross_entropy, gradient too", "[8192, 50304] f32", "% of copy", "% of the copy rate"},
                           {"AdamW with clipping, 124M parameters", "adamw and norm", "124M parameters", "% of copy", "% of the copy rate"},
                           {"a training step of GPT-2 124M, bf16, 16 × 1024 tokens", "step", "GPT-2 124M, 16 x 1024", "tokens/s", "tokens/s"},
                           {"a training step of a Llama of 0.5B, bf16, 8 × 2048 tokens", "step", "Llama 0.5B, 8 x 2048", "tokens/s", "tokens/s"}}) {
    const Json* row = results.is_null() ? nullptr : find_row(results, line.bench, line.name);
    text += "| " + std::string(line.what) + " | ";
    text += row == nullptr || !row->contains(line.key) ? missing : figure((*row)[line.key].get<double>()) + " " + line.unit;
    if (row != nullptr && row->contains("% MFU of 989")) text += ", " + figure((*row)["% MFU of 989"].get<double>()) + " % MFU";
    std::string theirs;
    if (row != nullptr && row->contains("peers"))
      for (const auto& [name, ms] : (*row)["peers"].items())
        theirs += (theirs.empty() ? "" : "; ") + name + ": graft has " + times(ms.get<double>() / (*row)["ms"].get<double>()) + " its speed";
    text += " | " + (theirs.empty() ? missing : theirs) + " |\n";
  }
  return text;
}

std::string svg_chart(const Json& results) {
  // A group of bars a configuration: training speed, PyTorch 2.x eager (or the first peer there is) being 1.
  struct Bar {
    std::string label;
    double speed;
    bool ours;
  };
  std::vector<std::pair<std::string, std::vector<Bar>>> groups;
  double most = 0;
  for (const char* name : {"S", "M", "L", "W"}) {
    const Json* row = find_row(results, "step", std::string(name) + " f32");
    if (row == nullptr || !row->contains("peers")) continue;
    double base = 0;
    for (const auto& [label, ms] : (*row)["peers"].items())
      if (base == 0 || (major_version(label) >= 2 && label.ends_with("eager"))) base = ms.get<double>();
    std::vector<Bar> bars;
    for (const auto& [label, ms] : (*row)["peers"].items()) bars.push_back({label, base / ms.get<double>(), false});
    std::stable_sort(bars.begin(), bars.end(), [](const Bar& a, const Bar& b) { return a.speed < b.speed; });
    bars.push_back({"graft f32", base / (*row)["ms"].get<double>(), true});
    if (const Json* narrow = find_row(results, "step", std::string(name) + " bf16"))
      bars.push_back({"graft bf16", (*narrow)["times f32"].get<double>() * base / (*row)["ms"].get<double>(), true});
    for (const Bar& bar : bars) most = std::max(most, bar.speed);
    groups.emplace_back(name, bars);
  }
  if (groups.empty()) return "";
  constexpr double kWidth = 800, kLeft = 250, kRight = 64, kBar = 18, kGap = 18, kTop = 58;
  double height = kTop + 16;
  for (const auto& [name, bars] : groups) height += static_cast<double>(bars.size()) * kBar + kGap;
  const auto at = [](double v) {
    char text[32];
    std::snprintf(text, sizeof text, "%.1f", v);
    return std::string(text);
  };
  std::string svg = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" + at(kWidth) + "\" height=\"" + at(height) +
                    "\" viewBox=\"0 0 " + at(kWidth) + " " + at(height) +
                    "\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n";
  const auto text = [&](double x, double y, const std::string& what, const std::string& attributes) {
    svg += "<text x=\"" + at(x) + "\" y=\"" + at(y) + "\" " + attributes + ">" + escaped(what) + "</text>\n";
  };
  text(16, 24, "Speed of a training step, PyTorch 2.x eager = 1 (longer is faster)",
       "font-size=\"15\" font-weight=\"bold\" fill=\"#222\"");
  text(16, 42,
       results["processor"].get<std::string>() + ", " + std::to_string(results["threads"].get<int>()) + " threads, " +
           results["date"].get<std::string>(),
       "fill=\"#666\"");
  double y = kTop;
  const double unit = (kWidth - kLeft - kRight) / most;
  svg += "<line x1=\"" + at(kLeft + unit) + "\" y1=\"" + at(kTop - 4) + "\" x2=\"" + at(kLeft + unit) + "\" y2=\"" +
         at(height - kGap - 12) + "\" stroke=\"#888\" stroke-dasharray=\"3 3\"/>\n";
  for (const auto& [name, bars] : groups) {
    text(16, y + static_cast<double>(bars.size()) * kBar / 2 + 5, name, "font-size=\"16\" font-weight=\"bold\" fill=\"#222\"");
    for (const Bar& bar : bars) {
      text(kLeft - 8, y + 13, bar.label, "text-anchor=\"end\" fill=\"#222\"");
      svg += "<rect x=\"" + at(kLeft) + "\" y=\"" + at(y + 2) + "\" width=\"" + at(bar.speed * unit) + "\" height=\"" +
             at(kBar - 4) + "\" fill=\"" + (bar.ours ? "#1f77b4" : "#c7c7c7") + "\"/>\n";
      text(kLeft + bar.speed * unit + 6, y + 13, times(bar.speed), "fill=\"#222\" stroke=\"white\" stroke-width=\"4\" paint-order=\"stroke\"");
      y += kBar;
    }
    y += kGap;
  }
  return svg + "</svg>\n";
}
