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


if __name__ == "__main__":
    torch.manual_seed(1)
    for make in (make_attention, make_rope, make_cross_entropy, make_functions, make_norms, make_adamw):
        make()
