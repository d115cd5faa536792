#!/usr/bin/env python3
"""An external trainer in PyTorch: LoRA fine-tuning of a Hugging Face style causal model (Llama layout).

Needs only `torch` and `safetensors`. The run's model are the adapters (`base_model.model.…lora_A.weight`, `lora_B.weight`,
as PEFT names them): they alone travel. The frozen base model, a directory with config.json and model.safetensors, lies on
each device: give it with --base. Data: data/train.txt, bytes are tokens (id = byte + 4), or train.jsonl with "input_ids".

  python trainer.py --make-adapters OUT.safetensors --base DIR [--rank 8]    the run's first model
  python trainer.py --base DIR                                                run by `martlet client --trainer-command`
  python trainer.py --judge TEXT... --base DIR [--adapters FILE]              the loss on texts, in bits a byte
  python trainer.py --make-base TEXT... --base DIR                            a tiny base to try all this with
"""
import argparse, hashlib, json, math, os, signal, sys

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

OK, NO_DATA, NUMERIC, NO_MEMORY, NOT_UNDERSTOOD, USAGE = 0, 10, 11, 12, 14, 64
TARGETS = ("q_proj", "v_proj")


class Model:
    """The forward pass of the Llama layout, over a dictionary of tensors."""

    def __init__(self, directory, weights=None):
        with open(os.path.join(directory, "config.json")) as file:
            self.config = c = json.load(file)
        if c.get("hidden_act", "silu") != "silu" or c.get("rope_scaling"):
            sys.exit(NOT_UNDERSTOOD)
        if weights is None:
            weights = {k: v.float() for k, v in load_file(os.path.join(directory, "model.safetensors")).items()}
        self.weights = weights
        self.heads = c["num_attention_heads"]
        self.kv_heads = c.get("num_key_value_heads", self.heads)
        self.head_dim = c.get("head_dim") or c["hidden_size"] // self.heads

    def lora_shapes(self, rank):
        shapes = {}
        for layer in range(self.config["num_hidden_layers"]):
            for target in TARGETS:
                name = f"model.layers.{layer}.self_attn.{target}"
                out, into = self.weights[name + ".weight"].shape
                shapes[f"base_model.model.{name}.lora_A.weight"] = (rank, into)
                shapes[f"base_model.model.{name}.lora_B.weight"] = (out, rank)
        return shapes

    def linear(self, x, name, adapters, scale):
        y = F.linear(x, self.weights[name + ".weight"], self.weights.get(name + ".bias"))
        a = adapters.get(f"base_model.model.{name}.lora_A.weight")
        if a is not None:
            y = y + scale * F.linear(F.linear(x, a), adapters[f"base_model.model.{name}.lora_B.weight"])
        return y

    def norm(self, x, name):
        variance = x.pow(2).mean(-1, keepdim=True)
        return x * torch.rsqrt(variance + self.config.get("rms_norm_eps", 1e-6)) * self.weights[name]

    def logits(self, ids, adapters, scale):
        rows, steps = ids.shape
        d = self.head_dim
        frequency = self.config.get("rope_theta", 10000.0) ** (-torch.arange(0, d, 2).float() / d)
        angle = torch.outer(torch.arange(steps).float(), frequency)
        cos, sin = angle.cos(), angle.sin()

        def rotate(x):
            low, high = x[..., : d // 2], x[..., d // 2 :]
            return torch.cat((low * cos - high * sin, high * cos + low * sin), -1)

        x = self.weights["model.embed_tokens.weight"][ids]
        for layer in range(self.config["num_hidden_layers"]):
            p = f"model.layers.{layer}."
            h = self.norm(x, p + "input_layernorm.weight")
            q, k, v = (
                self.linear(h, p + f"self_attn.{name}_proj", adapters, scale).view(rows, steps, -1, d).transpose(1, 2)
                for name in "qkv"
            )
            repeat = self.heads // self.kv_heads
            k, v = rotate(k).repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
            mixed = F.scaled_dot_product_attention(rotate(q), k, v, is_causal=True)
            mixed = mixed.transpose(1, 2).reshape(rows, steps, -1)
            x = x + self.linear(mixed, p + "self_attn.o_proj", adapters, scale)
            h = self.norm(x, p + "post_attention_layernorm.weight")
            gate = F.silu(self.linear(h, p + "mlp.gate_proj", adapters, scale))
            x = x + self.linear(gate * self.linear(h, p + "mlp.up_proj", adapters, scale), p + "mlp.down_proj", adapters, scale)
        x = self.norm(x, "model.norm.weight")
        head = self.weights.get("lm_head.weight", self.weights["model.embed_tokens.weight"])
        return F.linear(x, head)


def read_windows(directory, vocabulary, length=64):
    tokens = []
    for name in sorted(os.listdir(directory)):
        path = os.path.join(directory, name)
        if name == "train.jsonl":
            with open(path) as file:
                for line in file:
                    tokens += json.loads(line)["input_ids"]
        elif name.startswith("train."):
            with open(path, "rb") as file:
                tokens += [byte + 4 for byte in file.read()]
    if any(not 0 <= token < vocabulary for token in tokens):
        sys.exit(NOT_UNDERSTOOD)
    return windows_of(tokens, length)


def windows_of(tokens, length=64):
    windows = [tokens[i : i + length + 1] for i in range(0, len(tokens) - 1, length)]
    return [w for w in windows if len(w) > 1]


def loss_of(model, adapters, scale, windows):
    width = max(map(len, windows))
    ids = torch.zeros(len(windows), width - 1, dtype=torch.long)
    targets = torch.full((len(windows), width - 1), -100)
    for row, window in enumerate(windows):
        ids[row, : len(window) - 1] = torch.tensor(window[:-1])
        targets[row, : len(window) - 1] = torch.tensor(window[1:])
    logits = model.logits(ids, adapters, scale)
    nll = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="sum")
    hits = (logits.argmax(-1) == targets).sum().item()
    return nll, (targets != -100).sum().item(), hits


def make_base(directory, paths, steps=250):
    """Trains a model of 117,000 parameters on public texts, and writes it as Hugging Face does."""
    size, layers, inner, heads = 64, 2, 176, 4
    config = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "vocab_size": 260,
        "hidden_size": size, "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": heads, "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
        "tie_word_embeddings": True,
    }
    torch.manual_seed(42)
    shapes = {"model.embed_tokens.weight": (260, size)}
    for layer in range(layers):
        p = f"model.layers.{layer}."
        shapes |= {p + f"self_attn.{name}_proj.weight": (size, size) for name in "qkvo"}
        shapes |= {p + f"mlp.{name}_proj.weight": (inner, size) for name in ("gate", "up")}
        shapes[p + "mlp.down_proj.weight"] = (size, inner)
    weights = {name: (torch.randn(shape) * 0.02).requires_grad_() for name, shape in shapes.items()}
    norms = [f"model.layers.{layer}.{name}.weight" for layer in range(layers)
             for name in ("input_layernorm", "post_attention_layernorm")]
    weights |= {name: torch.ones(size).requires_grad_() for name in norms + ["model.norm.weight"]}
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, "config.json"), "w") as file:
        json.dump(config, file, indent=1)
    model = Model(directory, weights)
    windows = windows_of([byte + 4 for path in paths for byte in open(path, "rb").read()])
    optimizer = torch.optim.AdamW(weights.values(), lr=3e-3, weight_decay=0.0)
    for _ in range(steps):
        batch = [windows[i] for i in torch.randint(len(windows), (16,)).tolist()]
        nll, count, _ = loss_of(model, {}, 0, batch)
        optimizer.zero_grad()
        (nll / count).backward()
        optimizer.step()
    file = {name: value.detach().contiguous() for name, value in weights.items()}
    save_file(file, os.path.join(directory, "model.safetensors"), metadata={"format": "pt"})
    print(f"base: {sum(v.numel() for v in file.values())} parameters, loss {nll.item() / count / math.log(2):.2f} bits a byte")


def judge(model, adapters, alpha, paths):
    """Bits a byte on texts, with adapters where they are given."""
    rank = next((v.shape[0] for k, v in adapters.items() if k.endswith("lora_A.weight")), 1)
    nll = count = 0
    with torch.no_grad():
        for path in paths:
            with open(path, "rb") as file:
                windows = windows_of([byte + 4 for byte in file.read()])
            sums = loss_of(model, adapters, alpha / rank, windows)
            nll, count = nll + sums[0].item(), count + sums[1]
    return nll / count / math.log(2)


def run(model, alpha):
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    with open(os.environ["MARTLET_ASSIGNMENT"]) as file:
        assignment = json.load(file)
    torch.set_num_threads(assignment["threads"])
    torch.manual_seed(int(assignment["seed"]) % 2**63)
    path = os.path.join(os.environ["MARTLET_MODEL_DIR"], "model.safetensors")
    with open(path, "rb") as file:
        base = hashlib.sha256(file.read()).hexdigest()
    before = load_file(path)
    ranks = {v.shape[0] for k, v in before.items() if k.endswith("lora_A.weight")}
    if len(ranks) != 1 or {k: tuple(v.shape) for k, v in before.items()} != model.lora_shapes(rank := ranks.pop()):
        return NOT_UNDERSTOOD
    scale = alpha / rank
    windows = read_windows(os.environ["MARTLET_DATA_DIR"], model.config["vocab_size"])
    if not windows:
        return NO_DATA
    hyper, training = assignment["hyper"], assignment["op"] == "train"
    adapters = {name: value.clone().requires_grad_(training) for name, value in before.items()}
    size = hyper["batch_size"]
    steps = min(hyper["max_steps"], hyper["epochs"] * math.ceil(len(windows) / size)) if training else 0
    optimizer = (
        torch.optim.AdamW(
            adapters.values(), lr=hyper["lr"], betas=(hyper.get("beta1", 0.9), hyper.get("beta2", 0.999)),
            eps=hyper.get("epsilon", 1e-8), weight_decay=hyper.get("weight_decay", 0.0),
        )
        if hyper.get("optimizer", "sgd").startswith("adam")
        else torch.optim.SGD(adapters.values(), lr=hyper["lr"])
    )
    totals, step, order = [0.0, 0, 0], 0, []
    while step < steps and not stopped:
        order = order or torch.randperm(len(windows)).tolist()
        batch, order = [windows[i] for i in order[:size]], order[size:]
        nll, count, hits = loss_of(model, adapters, scale, batch)
        optimizer.zero_grad()
        (nll / count).backward()
        torch.nn.utils.clip_grad_norm_(adapters.values(), hyper.get("clip", 1.0))
        optimizer.step()
        step += 1
        totals = [totals[0] + nll.item(), totals[1] + count, totals[2] + hits]
        if step == 1 or step % max(1, steps // 10) == 0:
            print(json.dumps({"event": "progress", "step": step, "steps": steps, "loss": nll.item() / count}), flush=True)
    if not training:
        with torch.no_grad():
            for start in range(0, len(windows), size):
                nll, count, hits = loss_of(model, adapters, scale, windows[start : start + size])
                totals = [totals[0] + nll.item(), totals[1] + count, totals[2] + hits]
    update = os.environ["MARTLET_UPDATE_DIR"]
    if training:
        delta = {name: (adapters[name].detach() - before[name]).contiguous() for name in before}
        if not all(torch.isfinite(value).all() for value in delta.values()):
            return NUMERIC
        part = os.path.join(update, "model.safetensors.part")
        save_file(delta, part, metadata={"kind": "delta", "base": base})
        os.rename(part, os.path.join(update, "model.safetensors"))
    metrics = {
        "schema": 1, "examples": len(windows), "tokens": totals[1], "loss_tokens": totals[1], "steps": step,
        "nll": totals[0], "hit1": totals[2], "partial": bool(stopped),
    }
    with open(os.path.join(update, "metrics.json.part"), "w") as file:
        json.dump(metrics, file)
    os.rename(os.path.join(update, "metrics.json.part"), os.path.join(update, "metrics.json"))
    return OK


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True)
    parser.add_argument("--make-adapters")
    parser.add_argument("--make-base", nargs="+", metavar="TEXT")
    parser.add_argument("--judge", nargs="+", metavar="TEXT")
    parser.add_argument("--adapters")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--alpha", type=float, default=16)
    options = parser.parse_args()
    if options.make_base:
        make_base(options.base, options.make_base)
        return OK
    model = Model(options.base)
    if options.judge:
        adapters = load_file(options.adapters) if options.adapters else {}
        print(f"{judge(model, adapters, options.alpha, options.judge):.4f}")
        return OK
    if options.make_adapters:
        torch.manual_seed(42)
        adapters = {}
        for name, shape in model.lora_shapes(options.rank).items():
            bound = shape[1] ** -0.5
            adapters[name] = torch.zeros(shape) if "lora_B" in name else torch.empty(shape).uniform_(-bound, bound)
        save_file(adapters, options.make_adapters)
        return OK
    if "MARTLET_ASSIGNMENT" not in os.environ:
        print("run by `martlet client --trainer-command`", file=sys.stderr)
        return USAGE
    try:
        return run(model, options.alpha)
    except torch.OutOfMemoryError if hasattr(torch, "OutOfMemoryError") else MemoryError:
        return NO_MEMORY


if __name__ == "__main__":
    sys.exit(main())
