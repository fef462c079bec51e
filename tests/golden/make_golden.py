#!/usr/bin/env python3
"""Writes the golden values that tests/golden_test.cc compares graft with, beside this file.

    python3 make_golden.py

Made with PyTorch 2.15.0 and transformers 5.23.0, on the CPU, in float64. Text, one file a topic; each tensor is a line
`name f64 rows cols` and then its values in row-major order, in the shortest digits that read back, eight a line. No value is a
result of graft.
"""
import pathlib

import torch
import torch.nn.functional as F
from transformers.generation import logits_process
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

torch.set_default_dtype(torch.float64)
FOLDER = pathlib.Path(__file__).resolve().parent


def write(topic, tensors):
    lines = []
    for name, tensor in tensors.items():
        t = tensor.detach().to(torch.float64)
        t = t.reshape(1, -1) if t.dim() < 2 else t
        lines.append(f"{name} f64 {t.shape[0]} {t.shape[1]}")
        values = [repr(float(v)) for v in t.reshape(-1)]
        lines += [" ".join(values[i : i + 8]) for i in range(0, len(values), 8)]
    (FOLDER / f"{topic}.txt").write_text("\n".join(lines) + "\n")


def random(*shape, scale=1.0):
    """Values that are float32 exactly, so that the f32 backend starts from the same numbers."""
    return (torch.randn(*shape) * scale).to(torch.float32).to(torch.float64)


def heads_of(x, heads):
    """[seq, heads * dim] -> [1, heads, seq, dim]"""
    return x.reshape(x.shape[0], heads, -1).transpose(0, 1).unsqueeze(0)


def attention(name, q_seq, kv_seq, heads, kv_heads, dim, mask):
    q, k, v = random(q_seq, heads * dim), random(kv_seq, kv_heads * dim), random(kv_seq, kv_heads * dim)
    dout = random(q_seq, heads * dim)
    for t in (q, k, v):
        t.requires_grad_()
    # causal with unequal lengths is aligned bottom-right
    allowed = torch.ones(q_seq, kv_seq, dtype=torch.bool)
    if mask == "causal":
        allowed = allowed.tril(kv_seq - q_seq)
    out = F.scaled_dot_product_attention(heads_of(q, heads), heads_of(k, kv_heads), heads_of(v, kv_heads), attn_mask=allowed, enable_gqa=True)
    out = out.squeeze(0).transpose(0, 1).reshape(q_seq, heads * dim)
    scores = heads_of(q, heads) @ heads_of(k, kv_heads).repeat_interleave(heads // kv_heads, dim=1).transpose(-1, -2) / dim**0.5
    lse = torch.logsumexp(scores.masked_fill(~allowed, -torch.inf), dim=-1).squeeze(0).transpose(0, 1)
    dq, dk, dv = torch.autograd.grad(out, (q, k, v), dout)
    values = {"q": q, "k": k, "v": v, "dout": dout, "out": out, "lse": lse, "dq": dq, "dk": dk, "dv": dv}
    return {f"{name}.{key}": value for key, value in values.items()}


def make_attention():
    tensors = {}
    tensors |= attention("causal", 7, 7, 2, 2, 8, "causal")
    tensors |= attention("full", 6, 6, 2, 2, 8, "full")
    tensors |= attention("cross", 4, 7, 2, 2, 8, "full")
    tensors |= attention("causal_gqa", 6, 6, 4, 2, 5, "causal")
    tensors |= attention("causal_mqa", 6, 6, 4, 1, 16, "causal")
    tensors |= attention("causal_bottom_right", 4, 9, 4, 2, 6, "causal")
    tensors |= attention("cross_gqa", 5, 8, 8, 2, 4, "full")
    write("attention", tensors)


def make_rope():
    tensors = {}
    for name, theta, dim, heads, first in (("theta_10000", 10000.0, 8, 3, 0), ("theta_500000", 500000.0, 64, 2, 0), ("offset", 10000.0, 16, 2, 37)):
        seq = 5
        x, dout = random(seq, heads * dim), random(seq, heads * dim)
        x.requires_grad_()
        inverse_frequency = 1.0 / (theta ** (torch.arange(0, dim, 2, dtype=torch.float64) / dim))
        angles = torch.outer(torch.arange(first, first + seq, dtype=torch.float64), inverse_frequency)
        angles = torch.cat((angles, angles), dim=-1).unsqueeze(0)
        out, _ = apply_rotary_pos_emb(heads_of(x, heads), heads_of(x, heads), angles.cos(), angles.sin())
        out = out.squeeze(0).transpose(0, 1).reshape(seq, heads * dim)
        (dx,) = torch.autograd.grad(out, x, dout)
        values = {"x": x, "dout": dout, "out": out, "dx": dx, "settings": torch.tensor([theta, dim, first], dtype=torch.float64)}
        tensors |= {f"{name}.{key}": value for key, value in values.items()}
    write("rope", tensors)


def make_cross_entropy():
    tensors = {}
    for reduction in ("mean", "sum"):
        for smoothing in (0.0, 0.1):
            for ignore in (None, 3):
                name = f"{reduction}_{'smoothed' if smoothing else 'plain'}_{'ignoring' if ignore is not None else 'all'}"
                logits = random(6, 9, scale=3.0).requires_grad_()
                labels = torch.tensor([1, 3, 8, 3, 0, 5])
                loss = F.cross_entropy(logits, labels, reduction=reduction, label_smoothing=smoothing, ignore_index=-100 if ignore is None else ignore)
                (dlogits,) = torch.autograd.grad(loss, logits)
                values = {"logits": logits, "labels": labels, "loss": loss, "dlogits": dlogits}
                tensors |= {f"{name}.{key}": value for key, value in values.items()}
    write("cross_entropy", tensors)


def make_functions():
    tensors = {}
    x = torch.cat((random(24, scale=2.0), torch.tensor([0.0, -0.5, 0.5, -4.0, 4.0, -9.0, 9.0, 1.0])))
    functions = {
        "gelu": F.gelu,
        "gelu_tanh": lambda t: F.gelu(t, approximate="tanh"),
        "silu": F.silu,
        "softplus": F.softplus,
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "relu": F.relu,
    }
    tensors["x"], tensors["dout"] = x, random(32)
    for name, function in functions.items():
        t = x.clone().requires_grad_()
        out = function(t)
        (dx,) = torch.autograd.grad(out, t, tensors["dout"])
        tensors |= {f"{name}.out": out, f"{name}.dx": dx}
    t, target = random(3, 4, scale=2.0).requires_grad_(), torch.rand(3, 4).to(torch.float32).to(torch.float64)
    loss = F.binary_cross_entropy_with_logits(t, target)
    (dx,) = torch.autograd.grad(loss, t)
    tensors |= {"bce.x": t, "bce.target": target, "bce.loss": loss, "bce.dx": dx}
    write("functions", tensors)


def make_norms():
    x, weight, bias, dout = random(5, 12), random(12), random(12), random(5, 12)
    for t in (x, weight, bias):
        t.requires_grad_()
    out = F.layer_norm(x, (12,), weight, bias, eps=1e-5)
    dx, dweight, dbias = torch.autograd.grad(out, (x, weight, bias), dout)
    tensors = {"x": x, "weight": weight, "bias": bias, "dout": dout}
    tensors |= {"layer_norm.out": out, "layer_norm.dx": dx, "layer_norm.dweight": dweight, "layer_norm.dbias": dbias}
    out = F.rms_norm(x, (12,), weight, eps=1e-5)
    dx, dweight = torch.autograd.grad(out, (x, weight), dout)
    tensors |= {"rms_norm.out": out, "rms_norm.dx": dx, "rms_norm.dweight": dweight}
    write("norms", tensors)


def make_adamw():
    """Twenty steps of loss = mean((x·w + b - target)²), decay on w alone, gradients clipped to a global norm of 0.5.

    clip_grad_norm_ divides by norm + 1e-6, which would show at 1e-10; gradients are scaled by 0.5 / norm here, as graft does.
    """
    x, target = random(8, 4), random(8, 3)
    w, b = random(4, 3).requires_grad_(), random(3).requires_grad_()
    tensors = {"x": x, "target": target, "w.start": w.clone(), "b.start": b.clone()}
    optimizer = torch.optim.AdamW([{"params": [w], "weight_decay": 0.1}, {"params": [b], "weight_decay": 0.0}], lr=0.05, betas=(0.9, 0.95), eps=1e-8)
    losses, norms, weights, biases = [], [], [], []
    for _ in range(20):
        optimizer.zero_grad()
        loss = ((x @ w + b - target) ** 2).mean()
        loss.backward()
        norm = torch.sqrt(sum((p.grad**2).sum() for p in (w, b)))
        exact = [p.grad * min(1.0, 0.5 / norm) for p in (w, b)]
        assert torch.isclose(torch.nn.utils.clip_grad_norm_([w, b], 0.5), norm)
        for p, grad in zip((w, b), exact):
            assert torch.allclose(p.grad, grad, rtol=1e-5)
            p.grad = grad
        optimizer.step()
        losses.append(loss.detach())
        norms.append(norm)
        weights.append(w.detach().clone().reshape(-1))
        biases.append(b.detach().clone())
    tensors |= {"losses": torch.stack(losses), "norms": torch.stack(norms), "w": torch.stack(weights), "b": torch.stack(biases)}
    tensors |= {"exp_avg": optimizer.state[w]["exp_avg"], "exp_avg_sq": optimizer.state[w]["exp_avg_sq"]}
    write("adamw", tensors)


def sampling(name, logits, seen=(), temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, penalty=1.0):
    """The probabilities after Hugging Face's processors, in the order of its generate; 0 for tokens that are not kept."""
    ids, scores = torch.tensor([list(seen)], dtype=torch.long), logits.reshape(1, -1)
    if penalty != 1.0:
        scores = logits_process.RepetitionPenaltyLogitsProcessor(penalty)(ids, scores)
    if temperature != 1.0:
        scores = logits_process.TemperatureLogitsWarper(temperature)(ids, scores)
    if top_k:
        scores = logits_process.TopKLogitsWarper(top_k)(ids, scores)
    if top_p < 1.0:
        scores = logits_process.TopPLogitsWarper(top_p)(ids, scores)
    if min_p > 0.0:
        scores = logits_process.MinPLogitsWarper(min_p)(ids, scores)
    options = torch.tensor([temperature, top_k, top_p, min_p, penalty])
    values = {"logits": logits, "seen": torch.tensor(list(seen), dtype=torch.float64), "options": options, "probabilities": scores.softmax(-1)}
    return {f"{name}.{key}": value for key, value in values.items()}


def make_sampling():
    logits, tied = random(24, scale=2.0), torch.tensor([1.0, 3.0, 2.0, 3.0, 2.0, 0.5, 2.0, -1.0])
    text = [3, 7, 3, 11, 20, 7, 3]
    tensors = {}
    tensors |= sampling("plain", logits)
    tensors |= sampling("temperature", logits, temperature=0.6)
    tensors |= sampling("hot", logits, temperature=2.5)
    tensors |= sampling("top_k", logits, top_k=5)
    tensors |= sampling("top_k_1", logits, top_k=1)
    tensors |= sampling("top_k_of_all", logits, top_k=24)
    tensors |= sampling("top_k_tied", tied, top_k=3)
    tensors |= sampling("top_p", logits, top_p=0.7)
    tensors |= sampling("top_p_of_one", logits, top_p=0.05)
    tensors |= sampling("top_p_nearly_all", logits, top_p=0.999)
    tensors |= sampling("top_p_tied", tied, top_p=0.8)
    tensors |= sampling("min_p", logits, min_p=0.1)
    tensors |= sampling("min_p_high", logits, min_p=0.9)
    tensors |= sampling("penalty", logits, seen=text, penalty=1.3)
    tensors |= sampling("reward", logits, seen=text, penalty=0.7)
    tensors |= sampling("temperature_then_top_p", logits, temperature=1.7, top_p=0.6)
    tensors |= sampling("temperature_then_min_p", logits, temperature=0.5, min_p=0.2)
    tensors |= sampling("top_k_then_top_p", logits, top_k=6, top_p=0.75)
    tensors |= sampling("top_p_then_min_p", logits, top_p=0.9, min_p=0.15)
    tensors |= sampling("penalty_then_top_k", logits, seen=text, penalty=1.8, top_k=4)
    tensors |= sampling("all", logits, seen=text, temperature=1.4, top_k=9, top_p=0.85, min_p=0.08, penalty=1.2)
    write("sampling", tensors)


if __name__ == "__main__":
    torch.manual_seed(1)
    for make in (make_attention, make_rope, make_cross_entropy, make_functions, make_norms, make_adamw, make_sampling):
        make()
