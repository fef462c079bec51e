#!/usr/bin/env python3
"""Writes the models and expected numbers that tests/hf_test.cc holds graft against, each in a folder beside this file.

    python3 make_golden.py

Made with PyTorch 2.15.0, transformers 5.23.0 and safetensors 0.8.0, on the CPU. Every folder holds a small model with random weights as
transformers saves it (config.json, model.safetensors or shards), and expected.safetensors, computed in float64 from the stored
weights: `ids` and `labels` [sequences, length], `logits`, `loss`, `grad.NAME` of every parameter, and `losses` of ten steps of AdamW. No value is a
result of graft.
"""
import pathlib
import shutil
import sys

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, MistralConfig, Qwen2Config, set_seed

FOLDER = pathlib.Path(__file__).resolve().parent
SEQUENCES, LENGTH = 2, 24
LR, BETAS, EPS, WEIGHT_DECAY = 1e-2, (0.9, 0.95), 1e-8, 0.1

SMALL = dict(vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, bos_token_id=1, eos_token_id=2)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)
MODELS = {
    "llama2": (LlamaConfig(**SMALL, num_key_value_heads=4, rms_norm_eps=1e-5, max_position_embeddings=64), {}),
    "llama3": (LlamaConfig(**SMALL, num_key_value_heads=2, rms_norm_eps=1e-5, rope_parameters=dict(LLAMA3, rope_theta=500.0)), {}),
    "llama3_tied_biased_bf16": (
        LlamaConfig(**SMALL, num_key_value_heads=1, head_dim=16, attention_bias=True, mlp_bias=True, tie_word_embeddings=True, rope_parameters=dict(LLAMA3, rope_theta=10000.0)),
        dict(dtype=torch.bfloat16),
    ),
    "qwen2": (Qwen2Config(**SMALL, num_key_value_heads=2, tie_word_embeddings=True, rope_parameters=dict(rope_type="default", rope_theta=1000.0)), {}),
    "qwen2_windowed": (Qwen2Config(**SMALL, num_key_value_heads=2, use_sliding_window=True, sliding_window=5, max_window_layers=1), {}),
    "mistral_f16": (MistralConfig(**SMALL, num_key_value_heads=2, head_dim=6, sliding_window=7), dict(dtype=torch.float16)),
    "gpt2": (GPT2Config(vocab_size=96, n_positions=40, n_embd=32, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2), {}),
    "llama_linear_sharded": (LlamaConfig(**SMALL, num_key_value_heads=4, rope_parameters=dict(rope_type="linear", factor=2.5, rope_theta=10000.0)), dict(max_shard_size="40KB")),
}


def randomize(model):
    """Weights at which every part of the model matters: attention that is far from uniform, norms that are not ones."""
    for name, p in model.named_parameters():
        if p.dim() == 2:
            p.data.normal_(0.0, 0.5 if "embed" in name or "wte" in name or "wpe" in name else 1.3 / p.shape[-1] ** 0.5)
        elif "norm" in name or ".ln_" in name:
            p.data.normal_(1.0 if name.endswith("weight") else 0.0, 0.3)
        else:
            p.data.normal_(0.0, 0.4)


def loss_of(model, ids, labels):
    logits = model(input_ids=ids, use_cache=False).logits
    return logits, F.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1))


def make(name, config, options):
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    for key in ("attn_pdrop", "resid_pdrop", "embd_pdrop", "attention_dropout"):
        if hasattr(config, key):
            setattr(config, key, 0.0)
    options = dict(options)
    dtype = options.pop("dtype", torch.float32)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    randomize(model)
    model.to(dtype).save_pretrained(folder, **options)
    (folder / "generation_config.json").unlink(missing_ok=True)

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager").eval()
    ids = torch.randint(0, config.vocab_size, (SEQUENCES, LENGTH + 1))
    ids, labels = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
    logits, loss = loss_of(model, ids, labels)
    loss.backward()
    expected = {"ids": ids.to(torch.int32), "labels": labels.to(torch.int32), "logits": logits.reshape(-1, config.vocab_size), "loss": loss}
    expected |= {f"grad.{key}": p.grad.clone() for key, p in model.named_parameters()}

    groups = [
        {"params": [p for p in model.parameters() if p.dim() >= 2], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=BETAS, eps=EPS)
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        _, loss = loss_of(model, ids, labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    expected["losses"] = torch.stack(losses)
    # What graft is held to is 2e-5 of the norm: float32 is enough to hold it.
    compact = {key: (t.detach().to(torch.float32) if t.is_floating_point() and t.dim() > 0 else t.detach()).contiguous() for key, t in expected.items()}
    save_file(compact, folder / "expected.safetensors")


if __name__ == "__main__":
    for number, (name, (config, options)) in enumerate(MODELS.items()):
        if len(sys.argv) > 1 and name not in sys.argv[1:]:
            continue
        set_seed(number + 1)
        make(name, config, options)
        size = sum(f.stat().st_size for f in (FOLDER / name).iterdir())
        print(f"{name}: {size / 1000:.0f} kB")
