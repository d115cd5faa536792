"""Flower apps, unchanged, as trainers."""

import json
import subprocess
import sys

import numpy as np
import pytest
from test_trainer import Bench

from martlet import tensors

pytest.importorskip("flwr", reason="pip install flwr")
# What the two kinds of apps do is the same: the weights move by run_config's step plus the node's place.
MESSAGES = """
import numpy as np
from flwr.app import ArrayRecord, Context, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

def counting(message, context, call_next):
    calls = context.state["calls"]["n"] if "calls" in context.state else 0
    context.state["calls"] = MetricRecord({"n": calls + 1})
    context.state["last"] = ArrayRecord([np.full(2, calls, np.float32)])
    context.state["words"] = ConfigRecord({"seen": ["a", "b"], "raw": b"\\x00\\xff"})
    return call_next(message, context)

app = ClientApp(mods=[counting])

@app.train()
def train(message: Message, context: Context) -> Message:
    print("what a library prints")
    arrays = message.content["arrays"]
    calls = context.state["calls"]["n"]
    step = context.run_config["train.step"] + context.node_config["partition-id"] + 10 * (calls - 1)
    new = ArrayRecord({name: type(one)(one.numpy() + np.float32(step)) for name, one in arrays.items()})
    metrics = MetricRecord({"train_loss": 0.5, "num-examples": 8, "lr": message.content["config"]["lr"]})
    return Message(RecordDict({"arrays": new, "metrics": metrics}), reply_to=message)

@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    assert "server-round" in message.content["config"]
    metrics = MetricRecord({"eval_loss": 0.25, "eval_acc": 0.75, "num-examples": 4})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)

several = ClientApp()

@several.train()
def two(message: Message, context: Context) -> Message:
    arrays = message.content["arrays"]
    return Message(RecordDict({"a": arrays, "b": arrays, "metrics": MetricRecord({"num-examples": 1})}), reply_to=message)

def first_model():
    return [np.zeros((2, 2), np.float32), np.ones(3, np.float32)]
"""
LEGACY = """
import numpy as np
from flwr.client import NumPyClient
from flwr.clientapp import ClientApp

class Client(NumPyClient):
    def __init__(self, step=1):
        self.step = step

    def get_parameters(self, config):
        return [np.zeros((2, 2), np.float32), np.ones(3, np.float32)] + [np.full(1, i, np.float32) for i in range(10)]

    def fit(self, parameters, config):
        assert config["server_round"] == 3 and config["lr"] == 0.1
        assert [len(p) for p in parameters] == [2, 3] + [1] * 10, "the order of the list"
        return [p + np.float32(self.step) for p in parameters], 8, {"train_loss": 0.5}

    def evaluate(self, parameters, config):
        return 0.25, 4, {"accuracy": 0.75}

def client_fn(context):
    return Client(context.run_config["train.step"] + context.node_config.get("partition-id", 0)).to_client()

app = ClientApp(client_fn=client_fn)
"""
PROJECT = '[tool.flwr.app.config]\nepochs = 1\n[tool.flwr.app.config.train]\nstep = 1\n'
NODE = ["--node-config", "partition-id=1 num-partitions=10"]


@pytest.fixture
def bench(tmp_path):
    (tmp_path / "messages.py").write_text(MESSAGES)
    (tmp_path / "legacy.py").write_text(LEGACY)
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    return Bench(tmp_path)


def flower(bench, *words):
    """The trainer's script: what `python -m martlet.flower` does."""
    return f"from martlet.flower import main\nmain({[*words, '--app-dir', str(bench.directory)]!r})\n"


def list_model(bench):
    path = bench.directory / "first.safetensors"
    words = ["legacy:app", *NODE, "--initial", str(path), "--app-dir", str(bench.directory)]
    result = subprocess.run([sys.executable, "-m", "martlet.flower", *words], capture_output=True, text=True)
    assert result.returncode == 0 and "12 tensors" in result.stdout, result.stdout + result.stderr
    return tensors.read(path)


def test_an_app_of_the_message_api(bench):
    script = flower(bench, "messages:app", *NODE)
    model = {"layer.weight": np.zeros((2, 2), np.float32), "layer.bias": np.ones(2, np.float32)}
    first = bench.run(script, model=model)
    assert first.code == 0, first.log
    assert {name: set(array.ravel()) for name, array in first.update.items()} == {"layer.weight": {2.0}, "layer.bias": {2.0}}
    assert first.metrics["examples"] == 8 and first.metrics["nll"] == 4 and first.metrics["metrics"] == {"lr": 0.8}
    assert "what a library prints" in first.log and [json.loads(line)["event"] for line in first.output.splitlines()] == ["progress"]
    # The next task of the run finds the context's state, and model.config goes before run_config.
    place = bench.task(model=model)
    (place / "model" / "config.json").write_text('{"train.step": 5}')
    for file in (first.place / "state").iterdir():
        (place / "state" / file.name).write_bytes(file.read_bytes())
    second = bench.run(script, place=place)
    assert second.code == 0 and set(second.update["layer.bias"].ravel()) == {16.0}, second.log
    judged = bench.run(script, op="evaluate", model=model)
    assert judged.code == 0 and judged.metrics["nll"] == 1 and judged.metrics["hit1"] == 3 and judged.metrics["examples"] == 4, judged.log


@pytest.mark.parametrize("target, moved", [("legacy:app", 2), ("legacy:client_fn", 2), ("legacy:Client", 1)])
def test_an_app_of_the_older_kind(bench, target, moved):
    model = list_model(bench)
    assert list(model) == [f"{index:05}" for index in range(12)]
    script = flower(bench, target, *NODE)
    ended = bench.run(script, model=model)
    assert ended.code == 0, ended.log
    assert {float(value) for array in ended.update.values() for value in array.ravel()} == {float(moved)}
    assert ended.metrics["examples"] == 8 and ended.metrics["nll"] == 4
    if target == "legacy:app":
        judged = bench.run(script, model=model, op="evaluate")
        assert judged.code == 0 and judged.metrics["nll"] == 1 and judged.metrics["hit1"] == 3, judged.log


@pytest.mark.parametrize("words, task, code, said", [
    (["legacy:app", *NODE], {}, 14, "takes its model as a list of arrays"),
    (["messages:several"], {}, 1, "2 ArrayRecords (a, b); one of them can be sent"),
    (["messages:several"], {"op": "evaluate"}, 64, "no evaluate function"),
    (["messages:absent"], {}, 64, "messages has no 'absent'"),
    (["messages"], {}, 64, "names no app"),
    (["messages:app", "--weight-key", "n", *NODE], {}, 1, "no 'n' in a MetricRecord"),
    (["messages:app", *NODE], {"data": None}, 10, "no data"),
])
def test_what_cannot_be_done_is_said(bench, words, task, code, said):
    ended = bench.run(flower(bench, *words), **task)
    assert (ended.code, ended.left) == (code, []) and said in ended.log.splitlines()[-1], ended.log


def test_the_first_model_of_the_message_api(bench):
    path = bench.directory / "first.safetensors"
    common = [sys.executable, "-m", "martlet.flower", "messages:app", "--app-dir", bench.directory, "--initial", path]
    refused = subprocess.run(common, capture_output=True, text=True)
    assert refused.returncode == 1 and "--model package.module:Net" in refused.stderr
    assert subprocess.run([*common, "--model", "messages:first_model"], capture_output=True).returncode == 0
    assert list(tensors.read(path)) == ["00000", "00001"]


def test_two_devices_train_with_an_app(bench, service):
    import martlet

    server = martlet.Server(service.address, service.admin)
    people = server.create_population("flowers")
    specification = {
        "population": "flowers", "rounds": 2, "model": {"architecture": "external", "config": {"train.step": 3}},
        "cohort": {"goal": 2, "minimum": 2, "over_selection": 1}, "evaluation": {"every": 2, "cohort_goal": 2, "minimum": 2},
    }
    run = server.create_run(specification, model={"b": np.zeros(2), "a": np.ones((1, 2))}).start()
    token = people.enrollment_token(2)
    (bench.directory / "data.txt").write_text("one line\n")
    clients = []
    for number in range(2):
        command = f"{sys.executable} -m martlet.flower messages:app --app-dir {bench.directory} --node-config partition-id={number}"
        clients.append(subprocess.Popen(
            [service.binary, "client", "--server", service.address, "--trainer-command", command, "--data", "data.txt",
             "--enrollment-token", token, "--state-dir", f"device-{number}"],
            cwd=bench.directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    try:
        run.watch(None, timeout_s=300, poll_s=0.2)
    finally:
        for client in clients:
            client.terminate()
            client.wait()
    # First 3 and 4, then 13 and 14, as the context's state counts the calls.
    assert run.weights()["b"].tolist() == pytest.approx([17, 17]) and run.weights()["a"].tolist()[0] == pytest.approx([18, 18])
    row = run.metrics()[-1]
    assert row["federated.loss"] == pytest.approx(0.25) and row["federated.top1"] == pytest.approx(0.75)


def test_node_config():
    from martlet.flower import node_config

    assert node_config("partition-id=0 rate=0.5 name='a b' on=true") == {"partition-id": 0, "rate": 0.5, "name": "a b", "on": True}


def test_the_client_s_own_check(bench, binary, tmp_path):
    """All rules but those on the model of another, which an app that takes every model cannot know, and on steps."""
    command = f"{sys.executable} -m martlet.flower messages:app --app-dir {tmp_path} --node-config partition-id=0"
    result = subprocess.run([binary, "trainer", "check", "--cmd", command, "--json"], capture_output=True, text=True)
    findings = {one["rule"]: one for one in map(json.loads, result.stdout.splitlines())}
    broken = {rule for rule, one in findings.items() if one["outcome"] != "passed"}
    # This app counts its calls, so that the second differs by design.
    assert broken == {"foreign_model", "repeatable"}, result.stdout
