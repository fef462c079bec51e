"""PyTorch on a GPU, beside graft: reads commands from standard input, answers each with one line, `ok …` or `error …`.

describe              versions
attention {json}      sets up scaled_dot_product_attention, forward or backward, by one kernel: flash or cudnn; bf16
step {json}           sets up a compiled training step of a GPT-2 or a Llama: autocast to bf16, clipping, fused AdamW
run                   seconds of one run of what was set up, many being enqueued at once
"""
import json
import sys
import time

try:
    import torch
    import torch.nn as nn
    import torch.nn.functional as F

    if not torch.cuda.is_available():
        raise ImportError("PyTorch sees no GPU")
except ImportError as problem:
    print(f"error {problem}", flush=True)
    sys.exit(1)


def attention(c):
    from torch.nn.attention import SDPBackend, sdpa_kernel

    kernel = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}[c["kernel"]]
    shape = lambda heads: (c["batch"], heads, c["length"], c["head_dim"])
    q, k, v = (torch.randn(shape(c[h]), device="cuda", dtype=torch.bfloat16, requires_grad=c["backward"]) for h in ("heads", "kv_heads", "kv_heads"))
    attend = lambda: F.scaled_dot_product_attention(q, k, v, is_causal=c["causal"], enable_gqa=c["heads"] != c["kv_heads"])
    with sdpa_kernel(kernel):
        out = attend()
    if c["backward"]:
        dout = torch.randn_like(out)
        return lambda: torch.autograd.grad(out, (q, k, v), dout, retain_graph=True)

    def run():
        with sdpa_kernel(kernel):
            attend()

    return run


class Attention(nn.Module):
    def __init__(self, c, bias):
        super().__init__()
        self.heads, self.kv_heads, self.dim = c["heads"], c.get("kv_heads", c["heads"]), c["hidden"] // c["heads"]
        self.qkv = nn.Linear(c["hidden"], (self.heads + 2 * self.kv_heads) * self.dim, bias=bias)
        self.out = nn.Linear(c["hidden"], c["hidden"], bias=bias)

    def forward(self, x, rotate=None):
        b, t, _ = x.shape
        q, k, v = self.qkv(x).split([self.heads * self.dim, self.kv_heads * self.dim, self.kv_heads * self.dim], -1)
        split = lambda y, heads: y.view(b, t, heads, self.dim).transpose(1, 2)
        q, k, v = split(q, self.heads), split(k, self.kv_heads), split(v, self.kv_heads)
        if rotate is not None:
            q, k = rotate(q), rotate(k)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.heads != self.kv_heads)
        return self.out(y.transpose(1, 2).reshape(b, t, -1))


class Gpt2Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        h = c["hidden"]
        self.ln1, self.ln2, self.attention = nn.LayerNorm(h), nn.LayerNorm(h), Attention(c, True)
        self.up, self.down = nn.Linear(h, 4 * h), nn.Linear(4 * h, h)

    def forward(self, x):
        x = x + self.attention(self.ln1(x))
        return x + self.down(F.gelu(self.up(self.ln2(x)), approximate="tanh"))


class Gpt2(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.tokens, self.places = nn.Embedding(c["vocab"], c["hidden"]), nn.Embedding(c["context"], c["hidden"])
        self.blocks = nn.ModuleList(Gpt2Block(c) for _ in range(c["layers"]))
        self.norm = nn.LayerNorm(c["hidden"])

    def forward(self, ids):
        x = self.tokens(ids) + self.places.weight[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return F.linear(self.norm(x), self.tokens.weight)


class LlamaBlock(nn.Module):
    def __init__(self, c):
        super().__init__()
        h = c["hidden"]
        self.norm1, self.norm2, self.attention = nn.RMSNorm(h, eps=1e-5), nn.RMSNorm(h, eps=1e-5), Attention(c, False)
        self.gate, self.up, self.down = (nn.Linear(*shape, bias=False) for shape in ((h, c["intermediate"]), (h, c["intermediate"]), (c["intermediate"], h)))

    def forward(self, x, rotate):
        x = x + self.attention(self.norm1(x), rotate)
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Llama(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.tokens = nn.Embedding(c["vocab"], c["hidden"])
        self.blocks = nn.ModuleList(LlamaBlock(c) for _ in range(c["layers"]))
        self.norm = nn.RMSNorm(c["hidden"], eps=1e-5)
        d = c["hidden"] // c["heads"]
        angle = torch.outer(torch.arange(c["context"]).float(), 10000.0 ** (-torch.arange(0, d, 2).float() / d))
        self.register_buffer("cos", torch.cat((angle, angle), -1).cos())
        self.register_buffer("sin", torch.cat((angle, angle), -1).sin())

    def forward(self, ids):
        def rotate(x):
            half = x.shape[-1] // 2
            return (x * self.cos + torch.cat((-x[..., half:], x[..., :half]), -1) * self.sin).to(x.dtype)

        x = self.tokens(ids)
        for block in self.blocks:
            x = block(x, rotate)
        return F.linear(self.norm(x), self.tokens.weight)


def training_step(c):
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = {"gpt2": Gpt2, "llama": Llama}[c["family"]](c)
        ids, labels = (torch.randint(c["vocab"], (c["batch"], c["context"])) for _ in range(2))

    @torch.compile
    def loss_of():
        with torch.autocast("cuda", dtype=torch.bfloat16):
            logits = model(ids)
            return F.cross_entropy(logits.view(-1, c["vocab"]), labels.view(-1))

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, fused=True)

    def run():
        optimizer.zero_grad(set_to_none=True)
        loss_of().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return run


def timed(run, count):
    run()  # finds the GPU as the other side left it
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(count):
        run()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / count


def main():
    run, count = None, 1
    for line in sys.stdin:
        command, _, rest = line.strip().partition(" ")
        try:
            if command == "describe":
                answer = f"torch {torch.__version__}"
            elif command in ("attention", "step"):
                run = None
                torch.cuda.empty_cache()
                run = (attention if command == "attention" else training_step)(json.loads(rest))
                timed(run, 3)
                count = max(1, min(2000, int(0.02 / timed(run, 1))))
                answer = "ready"
            elif command == "run":
                answer = repr(timed(run, count))
            else:
                raise ValueError(f"unknown command {command}")
            print("ok", answer, flush=True)
        except Exception as problem:  # the other side prints it
            print("error", " ".join(str(problem).split())[:400], flush=True)


main()
