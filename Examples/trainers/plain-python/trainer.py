#!/usr/bin/env python3
"""An external trainer in plain Python: logistic regression on CSV rows, standard library only.

It reads and writes safetensors by hand, so that a trainer in any language can be written from it. Model: `weight` [n] and
`bias` [1]. Data: data/train.csv, a header line, numbers, the label (0 or 1) in the last column.
"""
import array, csv, hashlib, json, math, os, random, signal, struct, sys

OK, NO_DATA, NUMERIC, NOT_UNDERSTOOD, USAGE = 0, 10, 11, 14, 64


def read_safetensors(path):
    with open(path, "rb") as file:
        content = file.read()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        if entry["dtype"] != "F32":
            sys.exit(NOT_UNDERSTOOD)
        values = array.array("f")
        values.frombytes(content[8 + length + begin : 8 + length + end])
        tensors[name] = (entry["shape"], list(values))
    return tensors, hashlib.sha256(content).hexdigest()


def write_safetensors(path, tensors, metadata):
    header, data = {"__metadata__": metadata}, b""
    for name, (shape, values) in sorted(tensors.items()):
        block = array.array("f", values).tobytes()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(block)]}
        data += block
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path + ".part", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)
    os.rename(path + ".part", path)


def main():
    if "MARTLET_ASSIGNMENT" not in os.environ:
        print("usage: run by `martlet client --trainer-command`", file=sys.stderr)
        return USAGE
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    with open(os.environ["MARTLET_ASSIGNMENT"]) as file:
        assignment = json.load(file)
    model, base = read_safetensors(os.path.join(os.environ["MARTLET_MODEL_DIR"], "model.safetensors"))
    if set(model) != {"weight", "bias"}:
        return NOT_UNDERSTOOD
    weight, bias = model["weight"][1][:], model["bias"][1][0]
    rows = []
    path = os.path.join(os.environ["MARTLET_DATA_DIR"], "train.csv")
    if os.path.exists(path):
        with open(path, newline="") as file:
            for row in list(csv.reader(file))[1:]:
                rows.append(([float(x) for x in row[:-1]], float(row[-1])))
    if not rows:
        return NO_DATA
    if any(len(x) != len(weight) for x, _ in rows):
        return NOT_UNDERSTOOD
    hyper = assignment["hyper"]
    generator = random.Random(int(assignment["seed"]))
    size = hyper["batch_size"]
    steps = min(hyper["max_steps"], hyper["epochs"] * math.ceil(len(rows) / size))
    training = assignment["op"] == "train"
    step, order = 0, []
    while training and step < steps and not stopped:
        if not order:
            order = rows[:]
            generator.shuffle(order)
        batch, order = order[:size], order[size:]
        gradient, shift, loss = [0.0] * len(weight), 0.0, 0.0
        for x, y in batch:
            z = max(-60.0, min(60.0, bias + sum(w * v for w, v in zip(weight, x))))
            error = 1 / (1 + math.exp(-z)) - y
            loss += math.log1p(math.exp(-z)) if y else math.log1p(math.exp(z))
            shift += error / len(batch)
            for index, value in enumerate(x):
                gradient[index] += error * value / len(batch)
        weight = [w - hyper["lr"] * g for w, g in zip(weight, gradient)]
        bias -= hyper["lr"] * shift
        step += 1
        if step % max(1, steps // 10) == 0 or step == 1:
            print(json.dumps({"event": "progress", "step": step, "steps": steps, "loss": loss / len(batch)}), flush=True)
    if not all(map(math.isfinite, weight + [bias])):
        return NUMERIC
    nll, hits = 0.0, 0
    for x, y in rows:
        z = max(-60.0, min(60.0, bias + sum(w * v for w, v in zip(weight, x))))
        nll += math.log1p(math.exp(-z)) if y else math.log1p(math.exp(z))
        hits += (z > 0) == (y > 0.5)
    update = os.environ["MARTLET_UPDATE_DIR"]
    if training:
        old = model["weight"][1], model["bias"][1][0]
        write_safetensors(
            os.path.join(update, "model.safetensors"),
            {
                "weight": (model["weight"][0], [new - before for new, before in zip(weight, old[0])]),
                "bias": (model["bias"][0], [bias - old[1]]),
            },
            {"kind": "delta", "base": base},
        )
    metrics = {
        "schema": 1, "examples": len(rows), "tokens": len(rows), "loss_tokens": len(rows), "steps": step, "nll": nll,
        "hit1": hits, "partial": bool(stopped),
    }
    with open(os.path.join(update, "metrics.json.part"), "w") as file:
        json.dump(metrics, file)
    os.rename(os.path.join(update, "metrics.json.part"), os.path.join(update, "metrics.json"))
    return OK


if __name__ == "__main__":
    sys.exit(main())
