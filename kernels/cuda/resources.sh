#!/usr/bin/env bash
# resources.sh [FILE.cu …]: registers, static shared memory and spills of each kernel as ptxas reports them, as a Markdown table. Of all
# kernels without a FILE. `./dev kernels` calls it.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$here/../..
nvcc=${CUDACXX:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}
(($# > 0)) || set -- "$here"/*.cu

echo "| kernel | registers, sm_80 | registers, sm_90a | shared memory, bytes | spilled, bytes |"
echo "|---|---|---|---|---|"
for file in "$@"; do
  for architecture in sm_80 sm_90a; do
    "$nvcc" -std=c++20 -O3 --expt-relaxed-constexpr -Xptxas -v -gencode "arch=compute_${architecture#sm_},code=$architecture" -I"$root/include" -I"$root" \
      -cubin -o /dev/null "$file" 2>&1 | c++filt
  done | awk -v stem="$(basename "$file" .cu)" '
    function short(name) {
      gsub(/\(anonymous namespace\)::/, "", name)
      gsub(/graft::cuda::|graft::|void |__nv_/, "", name)
      sub(/\(.*$/, "", name)  # the parameters
      gsub(/bfloat16/, "bf16", name)
      return name
    }
    /Compiling entry function/ { split($0, part, "\047"); name = short(part[2]); architecture = part[4]; if (!(name in seen)) { seen[name] = 1; order[++count] = name } next }
    /bytes spill stores/ { for (i = 1; i <= NF; ++i) if ($(i + 1) == "bytes" && $(i + 2) == "spill") spilled[name] += $i; next }
    /Used [0-9]+ registers/ {
      for (i = 1; i <= NF; ++i) if ($i == "Used") registers[name, architecture] = $(i + 1)
      if (match($0, /[0-9]+ bytes smem/)) { shared = substr($0, RSTART, RLENGTH) + 0; if (shared > most[name]) most[name] = shared }
    }
    END {
      for (i = 1; i <= count; ++i) {
        name = order[i]
        printf "| %s: `%s` | %s | %s | %d | %d |\n", stem, name, registers[name, "sm_80"], registers[name, "sm_90a"], most[name], spilled[name]
      }
    }'
done
