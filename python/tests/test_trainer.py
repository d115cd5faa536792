"""Trainers of two functions, started as the client starts them."""

import hashlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from martlet import tensors, trainer
from martlet.trainer import work

LOGISTIC = """
import numpy as np
from martlet import trainer

@trainer.fit
def fit(weights, task):
    x, y = task.table("label")
    for rows in task.batches(len(y)):
        error = 1 / (1 + np.exp(-(x[rows] @ weights["weight"] + weights["bias"]))) - y[rows]
        weights["weight"] -= task.lr * error @ x[rows] / len(rows)
        weights["bias"] -= task.lr * error.mean()
    return weights, len(y)

@trainer.evaluate
def evaluate(weights, task):
    x, y = task.table("label")
    right = (x @ weights["weight"] + weights["bias"] > 0) == (y > 0.5)
    return len(y), {"loss": 0.5, "accuracy": right.mean(), "share": 0.25}

trainer.run()
"""
MODEL = {"weight": np.array([0.1, 0.2], np.float32), "bias": np.zeros(1, np.float32)}
TABLE = "a,b,label\n" + "".join(f"{i % 5 - 2},{i % 3 - 1},{i % 2}\n" for i in range(20))


class Bench:
    """A task's directory, and its trainer's end."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.count = 0

    def task(self, op="train", seed=7, model=MODEL, data=TABLE, **hyper):
        self.count += 1
        place = self.directory / f"task-{self.count}"
        for name in ("model", "data", "state", "update"):
            (place / name).mkdir(parents=True)
        (place / "model" / "model.safetensors").write_bytes(tensors.encode(model, {"format": "pt"}))
        (place / "model" / "config.json").write_text('{"size": 3}')
        if data is not None:
            (place / "data" / "train.csv").write_text(data)
        values = {"lr": 0.1, "batch_size": 4, "epochs": 2, "max_steps": 100, "optimizer": "sgd", **hyper}
        (place / "assignment.json").write_text(json.dumps({
            "schema": 1, "op": op, "run": "run_1", "round": 3, "seed": str(seed), "deadline": 4_000_000_000, "threads": 1,
            "hyper": values, "trainable": ["*"], "output": "delta",
        }))
        return place

    def start(self, script, place):
        path = self.directory / f"trainer-{hashlib.sha256(script.encode()).hexdigest()[:8]}.py"
        path.write_text(textwrap.dedent(script))
        environment = {
            "PATH": os.environ["PATH"], "MARTLET_ASSIGNMENT": str(place / "assignment.json"),
            **{f"MARTLET_{name.upper()}_DIR": str(place / name) for name in ("model", "data", "state", "update")},
        }
        return subprocess.Popen([sys.executable, path], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, script, place=None, **task):
        place = place or self.task(**task)
        process = self.start(script, place)
        output, log = process.communicate(timeout=120)
        return Ended(process.returncode, output, log, place)


class Ended:
    def __init__(self, code, output, log, place):
        self.code, self.output, self.log, self.place = code, output, log, place

    @property
    def metrics(self):
        return json.loads((self.place / "update" / "metrics.json").read_text())

    @property
    def update(self):
        return tensors.read(self.place / "update" / "model.safetensors")

    @property
    def left(self):
        return sorted(path.name for path in (self.place / "update").iterdir())


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def test_a_task_s_files(bench):
    ended = bench.run(LOGISTIC)
    assert ended.code == 0, ended.log
    assert ended.left == ["metrics.json", "model.safetensors"]
    assert ended.metrics == {"schema": 1, "examples": 20, "tokens": 20, "steps": 10, "partial": False}
    content = (ended.place / "update" / "model.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    base = hashlib.sha256((ended.place / "model" / "model.safetensors").read_bytes()).hexdigest()
    assert header["__metadata__"] == {"kind": "delta", "base": base}
    assert {name: (array.dtype, array.shape) for name, array in ended.update.items()} == {
        "bias": (np.float32, (1,)), "weight": (np.float32, (2,))}
    assert any(array.any() for array in ended.update.values())
    events = [json.loads(line) for line in ended.output.splitlines()]
    assert events[-1] == {"event": "progress", "step": 10, "steps": 10} and ended.log == ""


def test_an_evaluation_writes_sums(bench):
    ended = bench.run(LOGISTIC, op="evaluate")
    assert ended.code == 0 and ended.left == ["metrics.json"]
    metrics = ended.metrics
    assert metrics["nll"] == 10 and metrics["loss_tokens"] == 20 and metrics["metrics"] == {"share": 5}
    assert isinstance(metrics["hit1"], int) and 0 <= metrics["hit1"] <= 20


def test_the_client_s_own_check_passes(bench, binary, tmp_path):
    path = tmp_path / "trainer.py"
    path.write_text(LOGISTIC)
    result = subprocess.run(
        [binary, "trainer", "check", "--cmd", f"{sys.executable} {path}", "--json"], capture_output=True, text=True)
    findings = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.returncode == 0 and len(findings) > 20, result.stdout
    assert {one["outcome"] for one in findings} == {"passed"}, result.stdout


def test_stops_when_it_is_asked_to(bench):
    place = bench.task(epochs=10**6, max_steps=10**9, lr=1e-4)
    process = bench.start(LOGISTIC, place)
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    output, log = process.communicate(timeout=10)
    ended = Ended(process.returncode, output, log, place)
    assert ended.code == 0, log
    assert ended.metrics["partial"] is True and ended.metrics["steps"] >= 1 and ended.update["weight"].any()


def test_a_stop_during_the_imports_still_gives_one_step(bench):
    place = bench.task(epochs=10**6, max_steps=10**9, lr=1e-4)
    slow = LOGISTIC.replace("@trainer.fit", "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n\n@trainer.fit", 1)
    ended = bench.run(slow, place=place)
    assert ended.code == 0 and ended.metrics["partial"] is True and ended.metrics["steps"] == 1, ended.log


def test_forked_workers_end_by_a_signal(bench):
    ended = bench.run(script("""import multiprocessing, time
    worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    worker.start()
    worker.terminate()
    worker.join(30)
    assert worker.exitcode == -15, worker.exitcode"""))
    assert ended.code == 0, ended.log


DRAWS = """
import random
import numpy as np
from martlet import trainer

@trainer.fit
def fit(weights, task):
    weights["weight"] += np.float32(random.random()) + np.random.rand(2).astype("f") + task.rng.random(2).astype("f")
    return weights, 1

trainer.run()
"""


def test_the_seed_decides_what_is_drawn(bench):
    first, again, other = bench.run(DRAWS, seed=2**63 + 5), bench.run(DRAWS, seed=2**63 + 5), bench.run(DRAWS, seed=6)
    assert first.code == again.code == other.code == 0, first.log
    assert first.update["weight"].tobytes() == again.update["weight"].tobytes() != other.update["weight"].tobytes()


def test_tasks_in_one_process_are_those_of_fresh_processes(bench):
    """What a process did before changes nothing: A then B, and B then A, give the bytes of processes of their own."""
    alone = {seed: bench.run(DRAWS, seed=seed).update["weight"].tobytes() for seed in (1, 2)}
    together = DRAWS.replace("trainer.run()", """
import json, pathlib, sys
from martlet.trainer import process, work
for place in map(pathlib.Path, sys.stdin.read().split()):
    task = trainer.Task(json.loads((place / "assignment.json").read_text()), model_dir=place / "model", data_dir=place / "data",
                        state_dir=place / "state", update_dir=place / "update")
    assert work.perform(process._functions, task).code == 0
""")
    for order in ((1, 2), (2, 1)):
        places = [bench.task(seed=seed) for seed in order]
        subprocess.run([sys.executable, "-c", together], input=" ".join(map(str, places)), text=True, check=True)
        for seed, place in zip(order, places):
            assert tensors.read(place / "update" / "model.safetensors")["weight"].tobytes() == alone[seed]


def script(body, returned="weights, 1"):
    return (
        "from martlet import trainer\nimport numpy as np\n@trainer.fit\ndef fit(weights, task):\n"
        f"    {body}\n    return {returned}\ntrainer.run()\n"
    )


@pytest.mark.parametrize("body, returned, code, words", [
    ("pass", "{'weight': weights['weight']}, 1", 1, "no tensor 'bias'"),
    ("weights['extra'] = weights['bias']", "weights, 1", 1, "returned 'extra', which the model has not"),
    ("weights['weight'] = np.zeros((2, 1))", "weights, 1", 1, r"'weight' with shape [2, 1]; the model's is [2]"),
    ("weights['weight'] = np.zeros(2, int)", "weights, 1", 1, "'weight' as int64; return floating point numbers"),
    ("weights['weight'] = np.array(['x', 'y'])", "weights, 1", 1, "no number"),
    ("weights['weight'][1] = np.nan", "weights, 1", 11, "'weight' is NaN or infinite at [1]"),
    ("weights['weight'] = np.array([1e300, 0])", "weights, 1", 11, "'weight' is NaN or infinite at [0]"),
    ("weights['other']", "weights, 1", 14, "no tensor 'other'; it has 'bias', 'weight'"),
    ("raise trainer.NoData('the table is empty')", "weights, 1", 10, "the table is empty"),
    ("raise MemoryError", "weights, 1", 12, "out of memory"),
    ("raise FloatingPointError('overflow')", "weights, 1", 11, "overflow"),
    ("pass", "weights", 1, "fit must return (weights, examples)"),
    ("pass", "weights, 1.5", 1, "a whole number"),
    ("pass", "weights, 0", 10, "saw 0 examples"),
    ("pass", "weights, 1, {'Loss!': 1}", 1, "no name for a measurement"),
    ("pass", "weights, 1, {'accuracy': 80}", 1, "from 0 to 1"),
    ("task.table('y')", "weights, 1", 1, "no column 'y'; it has a, b, label"),
    ("1 / 0", "weights, 1", 1, "ZeroDivisionError"),
])
def test_what_is_wrong_is_said_and_nothing_is_left(bench, body, returned, code, words):
    place = bench.task()
    task = trainer.Task(
        json.loads((place / "assignment.json").read_text()), model_dir=place / "model", data_dir=place / "data",
        state_dir=place / "state", update_dir=place / "update")
    names = {}
    exec(script(body, returned).replace("trainer.run()", ""), names)
    outcome = work.perform(work.Functions(fit=names["fit"]), task)
    assert (outcome.code, list((place / "update").iterdir())) == (code, []), outcome
    assert words in outcome.message and "\n" not in outcome.message


def test_a_table_s_cells_are_not_told(bench):
    ended = bench.run(script("task.table('label')"), data="a,label\n1,0\nAlice Smith,1\n")
    assert ended.code == 1 and "row 2 of the table has no number in column 'a'" in ended.log and "Alice" not in ended.log


def test_without_data_there_is_no_work(bench):
    assert bench.run(script("raise SystemError"), data=None).code == 10
    assert bench.run(LOGISTIC, data="a,b,label\n").code == 10


def test_a_missing_function_and_a_start_by_hand_are_said(bench):
    ended = bench.run(script("pass"), op="evaluate")
    assert ended.code == 64 and "no @evaluate function" in ended.log
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MARTLET_")}
    code = "from martlet import trainer; trainer.run()"
    by_hand = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert by_hand.returncode == 64 and "--trainer-command" in by_hand.stderr


def test_what_libraries_print_goes_to_the_log(bench):
    noisy = script("print('Alice', flush=True); import os; os.system('echo Bob'); task.log('half done')")
    ended = bench.run(noisy)
    assert ended.code == 0 and "Alice" in ended.log and "Bob" in ended.log
    assert [json.loads(line) for line in ended.output.splitlines()] == [{"event": "log", "level": "info", "message": "half done"}]


def test_measurements_that_are_no_numbers_are_left_out(bench):
    ended = bench.run(script("pass", "weights, 4, {'loss': float('nan'), 'accuracy': 0.75}"))
    assert ended.code == 0 and "nll" not in ended.metrics and ended.metrics["hit1"] == 3


def test_half_precision_is_seen_as_f32(bench, tmp_path):
    place = bench.task()
    header = json.dumps({"w": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    bits = (np.array([1.5, -2.0], np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()
    (place / "model" / "model.safetensors").unlink()
    (place / "model" / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bits)
    ended = bench.run(script("assert weights['w'].dtype == np.float32; weights['w'] += 1"), place=place)
    assert ended.code == 0 and ended.update["w"].tolist() == [1, 1], ended.log


TORCH = """
import torch
from martlet import trainer

def Net():
    return torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3), torch.nn.Dropout(0.5), torch.nn.Linear(3, 1))

@trainer.fit(module=Net)
def fit(net, task):
    x, y = map(torch.from_numpy, task.table("label"))
    optimizer = torch.optim.SGD(net.parameters(), lr=task.lr)
    for rows in task.batches(len(y)):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(net(x[rows])[:, 0], y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return len(y), {"loss": loss.item()}

@trainer.evaluate(module=Net)
def evaluate(net, task):
    assert not net.training
    x, y = map(torch.from_numpy, task.table("label"))
    with torch.no_grad():
        return len(y), {"accuracy": ((net(x)[:, 0] > 0) == (y > 0.5)).float().mean().item()}

trainer.run()
"""


def test_a_module_of_torch(bench):
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3), torch.nn.Dropout(0.5), torch.nn.Linear(3, 1))
    with pytest.warns(UserWarning, match="1.num_batches_tracked"):
        model = tensors.first_model(net)
    assert "1.running_mean" in model and "1.num_batches_tracked" not in model
    first, again = bench.run(TORCH, model=model), bench.run(TORCH, model=model)
    assert first.code == 0, first.log
    assert set(first.update) == set(model) and first.update["1.running_mean"].any() and first.metrics["nll"] > 0
    assert {name: array.tobytes() for name, array in first.update.items()} == {
        name: array.tobytes() for name, array in again.update.items()}
    assert bench.run(TORCH, model=model, op="evaluate").metrics["hit1"] >= 0
    foreign = bench.run(TORCH)
    assert foreign.code == 14 and "has no tensor '0.bias'" in foreign.log
    reshaped = bench.run(TORCH, model={**model, "0.bias": np.zeros(4, np.float32)})
    assert reshaped.code == 14 and "'0.bias' has shape [4]; the module's is [3]" in reshaped.log


def test_bfloat16_of_torch_is_sent_as_f32():
    torch = pytest.importorskip("torch")
    sent = tensors.first_model({"w": torch.tensor([1.5, -2.0], dtype=torch.bfloat16), "d": torch.tensor([0.1], dtype=torch.float64)})
    assert sent["w"].dtype == sent["d"].dtype == np.float32 and sent["w"].tolist() == [1.5, -2.0]
