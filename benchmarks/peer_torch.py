"""The PyTorch side of the benchmarks: reads commands from standard input, answers each with one line, `ok …` or `error …`.

describe                         versions
step {json} | compiled {json}    sets up a training step of a Llama-style model (eager, or torch.compile)
attention {json}                 sets up scaled_dot_product_attention, forward and backward
tokenize {json}                  sets up encoding the text of a file by the tokenizers package; answers its version
run                              runs what was set up for a quarter of a second, once at least: the seconds of one run
memory                           peak resident bytes of this process
"""
import functools
import json
import resource
import sys
import time

try:
    import torch
    import torch.nn as nn
    import torch.nn.functional as F
except ImportError as problem:
    print(f"error {problem}", flush=True)
    sys.exit(1)


def blas():
    """What a distribution's PyTorch multiplies with, as " (OpenBLAS)"; nothing where PyTorch brings its own."""
    if "BLAS_INFO=generic" not in torch.__config__.show():
        return ""
    with open("/proc/self/maps") as maps:
        loaded = maps.read()
    return " (OpenBLAS)" if "openblas" in loaded else " (reference BLAS)" if "libblas.so" in loaded else ""


def attend(q, k, v, causal):
    """scaled_dot_product_attention, or its formula where PyTorch is older than 2.0."""
    if hasattr(F, "scaled_dot_product_attention"):
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    if causal:
        hidden = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(hidden, float("-inf"))
    return scores.softmax(-1) @ v


class RMSNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.weight


def rotate(x, cos, sin):
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        h, d = c["hidden"], c["hidden"] // c["heads"]
        self.heads, self.kv_heads, self.head_dim = c["heads"], c["kv_heads"], d
        self.norm1, self.norm2 = RMSNorm(h), RMSNorm(h)
        self.q = nn.Linear(h, h, bias=False)
        self.k = nn.Linear(h, self.kv_heads * d, bias=False)
        self.v = nn.Linear(h, self.kv_heads * d, bias=False)
        self.o = nn.Linear(h, h, bias=False)
        self.gate = nn.Linear(h, c["intermediate"], bias=False)
        self.up = nn.Linear(h, c["intermediate"], bias=False)
        self.down = nn.Linear(c["intermediate"], h, bias=False)

    def forward(self, x, cos, sin):
        b, t, _ = x.shape
        y = self.norm1(x)
        q = self.q(y).view(b, t, self.heads, self.head_dim).transpose(1, 2)
        k = self.k(y).view(b, t, self.kv_heads, self.head_dim).transpose(1, 2)
        v = self.v(y).view(b, t, self.kv_heads, self.head_dim).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        group = self.heads // self.kv_heads
        if group > 1:
            k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        a = attend(q, k, v, True)
        x = x + self.o(a.transpose(1, 2).reshape(b, t, -1))
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Llama(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embed = nn.Embedding(c["vocab"], c["hidden"])
        self.blocks = nn.ModuleList(Block(c) for _ in range(c["layers"]))
        self.norm = RMSNorm(c["hidden"])
        d = c["hidden"] // c["heads"]
        angle = torch.outer(torch.arange(c["context"]).float(), 10000.0 ** (-torch.arange(0, d, 2).float() / d))
        self.register_buffer("cos", torch.cat((angle, angle), -1).cos())
        self.register_buffer("sin", torch.cat((angle, angle), -1).sin())
        for p in self.parameters():
            if p.dim() == 2:
                nn.init.normal_(p, std=0.02)

    def forward(self, ids):
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        return F.linear(self.norm(x), self.embed.weight)


def training_step(c, compiled):
    torch.manual_seed(0)
    model = Llama(c)
    bf16 = c.get("dtype") == "bf16"

    def loss_of(ids, labels):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            logits = model(ids)
        return F.cross_entropy(logits.view(-1, c["vocab"]).float(), labels.view(-1))

    forward = torch.compile(loss_of) if compiled else loss_of
    try:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.999), weight_decay=0.01, fused=True)
    except (RuntimeError, TypeError):
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.999), weight_decay=0.01)
    ids = torch.randint(c["vocab"], (c["batch"], c["context"]))
    labels = torch.randint(c["vocab"], (c["batch"], c["context"]))

    def run():
        optimizer.zero_grad(set_to_none=True)
        loss = forward(ids, labels)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    return run


def attention(c):
    shape = lambda heads: (1, heads, c["length"], c["head_dim"])
    q = torch.randn(shape(c["heads"]), requires_grad=True)
    k = torch.randn(shape(c["kv_heads"]), requires_grad=True)
    v = torch.randn(shape(c["kv_heads"]), requires_grad=True)
    dout = torch.randn(shape(c["heads"]))
    group = c["heads"] // c["kv_heads"]

    def run():
        q.grad = k.grad = v.grad = None
        kk, vv = (k, v) if group == 1 else (k.repeat_interleave(group, 1), v.repeat_interleave(group, 1))
        attend(q, kk, vv, c["causal"]).backward(dout)

    return run


def main():
    torch.set_num_threads(int(sys.argv[1]))
    run = None
    for line in sys.stdin:
        command, _, rest = line.strip().partition(" ")
        try:
            if command == "describe":
                answer = f"torch {torch.__version__}{blas()}"
            elif command in ("step", "compiled"):
                run = training_step(json.loads(rest), command == "compiled")
                answer = "ready"
            elif command == "attention":
                run = attention(json.loads(rest))
                answer = "ready"
            elif command == "tokenize":
                import tokenizers

                files = json.loads(rest)
                tokenizer = tokenizers.Tokenizer.from_file(files["tokenizer"])
                with open(files["text"], encoding="utf-8", newline="") as file:
                    text = file.read()
                run = functools.partial(tokenizer.encode, text)
                answer = f"tokenizers {tokenizers.__version__}"
            elif command == "run":
                start, count, total = time.perf_counter(), 0, 0.0
                while total < 0.25:
                    run()
                    count, total = count + 1, time.perf_counter() - start
                answer = repr(total / count)
            elif command == "memory":
                answer = str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
            else:
                raise ValueError(f"unknown command {command}")
            print("ok", answer, flush=True)
        except Exception as problem:  # the other side prints it
            print("error", " ".join(str(problem).split()), flush=True)


main()
