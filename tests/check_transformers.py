#!/usr/bin/env python3
"""Checks that transformers loads folders that graft::hf::save wrote, and computes the same logits.

    python3 check_transformers.py FOLDER …

Each folder also holds graft.logits, a safetensors file of `ids` [sequences, length] and graft's `logits`. tests/hf_test.cc runs this where
Python has torch and transformers.
"""
import json
import pathlib
import sys

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

failed = 0
for folder in map(pathlib.Path, sys.argv[1:]):
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager", output_loading_info=True)
    problems = [f"{key}: {value}" for key, value in info.items() if value]
    graft = load_file(folder / "graft.logits")
    with torch.no_grad():
        logits = model.eval()(input_ids=graft["ids"].to(torch.int64), use_cache=False).logits
    error = ((logits - graft["logits"]).norm() / logits.norm()).item()
    if error > 2e-5:
        problems.append(f"logits differ by {error:.1e}")
    stored = AutoModelForCausalLM.from_pretrained(folder).dtype
    if str(stored) != "torch." + json.loads((folder / "config.json").read_text())["dtype"]:
        problems.append(f"loads as {stored}")
    print(f"{folder.name}: {type(model).__name__}, {'; '.join(problems) or f'logits differ by {error:.1e}'}")
    failed += bool(problems)
sys.exit(failed > 0)
