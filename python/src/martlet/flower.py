"""Runs a Flower app as a trainer, unchanged.

    martlet client --trainer-command "python -m martlet.flower package.client_app:app --node-config 'partition-id=0 num-partitions=10'" …

The app is a `ClientApp`, of the Message API or made of a `client_fn`, or a `NumPyClient` (class, object, or a function of the context).
flwr 1.21 to 1.42. `run_config` is `[tool.flwr.app.config]` of the app's pyproject.toml; `model.config` of the run file goes before it.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import importlib
import json
import math
import os
import pathlib
import re
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from . import tensors
from .errors import MartletError
from .trainer.errors import ModelMismatch, TrainerError, Usage
from .trainer.process import run_functions
from .trainer.task import Task
from .trainer.work import Functions

_LOSS = ("loss", "train_loss", "eval_loss", "val_loss")
_ACCURACY = ("accuracy", "acc", "train_acc", "eval_acc", "val_acc", "train_accuracy", "eval_accuracy", "val_accuracy")
_STATE = "flower-context.json"


class App:
    """A Flower app, loaded, with what it is told besides the messages."""

    def __init__(
        self,
        target: str,
        directory: pathlib.Path,
        node_config: Mapping[str, Any],
        arrays: str = "arrays",
        config: str = "config",
        examples: str = "num-examples",
    ) -> None:
        self.directory = directory
        self.node_config = dict(node_config)
        self.arrays, self.config, self.examples = arrays, config, examples
        self.app = _client_app(_loaded(target, directory))
        self.is_legacy = getattr(self.app, "_call", None) is not None
        """Whether the app was made of a `client_fn`: its messages are Flower's older ones, and its model is a list."""

    def fit(self, weights: Mapping[str, np.ndarray], task: Task) -> tuple[dict[str, Any], int, dict[str, float]]:
        reply, names, state = self._send("train", weights, task)
        model, examples = self._model(reply, names, "fitres.parameters" if self.is_legacy else None), self._count(reply)
        _save(state, task.state / _STATE)
        return model, examples, self._measured(reply)

    def evaluate(self, weights: Mapping[str, np.ndarray], task: Task) -> tuple[int, dict[str, float]]:
        reply, _, state = self._send("evaluate", weights, task)
        examples = self._count(reply)
        _save(state, task.state / _STATE)
        return examples, self._measured(reply)

    def initial(self) -> list[np.ndarray]:
        """The first model that a client of the older kind gives, by `get_parameters`."""
        from flwr.app import ConfigRecord, RecordDict

        content = RecordDict({"getparametersins.config": ConfigRecord({})})
        reply = self.app(_message(content, "get_parameters", 0), self._context(None, None))
        _raise_error(reply)
        return list(next(iter(reply.content.array_records.values())).to_numpy_ndarrays())

    # Messages

    def _send(self, kind: str, weights: Mapping[str, np.ndarray], task: Task) -> tuple[Any, list[str], Any]:
        from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

        if task.op == "train":
            # One sign that it has begun; Flower's apps say nothing in between.
            task.progress(0, 1)
        # Files order tensors by name, so that a list's are numbered.
        is_list = all(name.isascii() and name.isdigit() for name in weights)
        if self.is_legacy and not is_list:
            raise ModelMismatch(
                "this app takes its model as a list of arrays, and the run's has names: make the first model with "
                "python -m martlet.flower … --initial FILE"
            )
        names = sorted(weights, key=int) if is_list else list(weights)
        record = ArrayRecord({(str(index) if is_list else name): Array(weights[name]) for index, name in enumerate(names)})
        config: dict[str, Any] = {name: value for name, value in task.config.items() if isinstance(value, (bool, int, float, str))}
        config = {"lr": task.lr, **config, "server-round": task.round}
        if self.is_legacy:
            prefix = "fitins" if kind == "train" else "evaluateins"
            config = {**config, "server_round": task.round}
            content = RecordDict({f"{prefix}.parameters": record, f"{prefix}.config": ConfigRecord(config)})
        else:
            content = RecordDict({self.arrays: record, self.config: ConfigRecord(config)})
        context = self._context(task, config)
        try:
            reply = self.app(_message(content, kind, task.round), context)
        except RuntimeError as error:
            if "loading state_dict" in str(error):
                raise ModelMismatch(" ".join(str(error).split())) from None
            raise
        except ValueError as error:
            if "function registered" in str(error):
                raise Usage(f"the app has no {kind} function, and the run asks to {task.op}") from None
            raise
        _raise_error(reply)
        return reply, names, context.state

    def _context(self, task: Task | None, config: Mapping[str, Any] | None) -> Any:
        from flwr.app import Context

        run_config = _run_config(self.directory)
        run_config.update({name: value for name, value in (config or {}).items() if name not in ("lr", "server-round", "server_round")})
        state = _saved(task.state / _STATE if task else None)
        run_id = _number(task.run if task else "")
        node_id = _number(str(task.state.resolve()) if task else "")
        return Context(run_id=run_id, node_id=node_id, node_config=self.node_config, state=state, run_config=run_config)

    # Replies

    def _model(self, reply: Any, names: list[str], key: str | None) -> dict[str, Any]:
        records = reply.content.array_records
        if key is None and len(records) > 1:
            raise TrainerError(f"the app's reply has {len(records)} ArrayRecords ({', '.join(sorted(records))}); one of them can be sent")
        if not records or (key and key not in records):
            raise TrainerError("the app's reply has no ArrayRecord: return the trained model")
        record = records[key] if key else next(iter(records.values()))
        arrays = {name: array.numpy() for name, array in record.items()}
        if all(name.isdigit() for name in names):
            if len(arrays) != len(names):
                raise TrainerError(f"the app returned {len(arrays)} arrays, and the model has {len(names)}")
            return dict(zip(names, arrays.values()))
        # Counters and other whole numbers do not travel.
        return {name: array for name, array in arrays.items() if name in names or array.dtype.kind == "f"}

    def _count(self, reply: Any) -> int:
        key = "num_examples" if self.is_legacy else self.examples
        for record in reply.content.metric_records.values():
            if key in record:
                return int(record[key])
        raise TrainerError(f"the app's reply has no '{key}' in a MetricRecord, by which the server weighs the update")

    def _measured(self, reply: Any) -> dict[str, float]:
        found: dict[str, float] = {}
        records = [*reply.content.metric_records.items(), *reply.content.config_records.items()]
        for place, record in records:
            if place.endswith((".status", ".num_examples")):
                continue
            for name, value in record.items():
                if name == self.examples or isinstance(value, bool) or not isinstance(value, (int, float)):
                    continue
                plain = re.sub(r"[^a-z0-9_]", "_", name.lower())[:64]
                if plain in _LOSS:
                    plain = "loss"
                elif plain in _ACCURACY and 0 <= value <= 1:
                    plain = "accuracy"
                if math.isfinite(value):
                    found.setdefault(plain, float(value))
        return found


def _raise_error(reply: Any) -> None:
    if reply.has_error():
        raise TrainerError(f"the app answered with error {reply.error.code}: {reply.error.reason}")
    for place, record in reply.content.config_records.items():
        if place.endswith(".status") and record.get("code"):
            raise TrainerError(f"the app's status is {record['code']}: {record.get('message') or 'no message'}")


def _message(content: Any, kind: str, number: int) -> Any:
    from flwr.app import Message
    from flwr.app.metadata import Metadata

    # With metadata of its own a message needs no running node.
    metadata = Metadata(
        run_id=0, message_id="", src_node_id=1, dst_node_id=0, reply_to_message_id="", group_id=str(number), created_at=time.time(),
        ttl=43_200.0, message_type=kind,
    )
    return Message(content=content, metadata=metadata)


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


# Loading


def _loaded(target: str, directory: pathlib.Path) -> Any:
    module, _, name = target.partition(":")
    if not name:
        raise Usage(f"'{target}' names no app: write package.module:name, as in pyproject.toml's [tool.flwr.app.components]")
    if str(directory) not in sys.path:
        sys.path.insert(0, str(directory))
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        if not hasattr(found, part):
            raise Usage(f"{module} has no '{name}'")
        found = getattr(found, part)
    return found


def _client_app(found: Any) -> Any:
    from flwr.client import Client, NumPyClient
    from flwr.clientapp import ClientApp

    if isinstance(found, ClientApp):
        return found
    if isinstance(found, type) and issubclass(found, (Client, NumPyClient)):
        found = found()
    if isinstance(found, NumPyClient):
        found = found.to_client()
    if isinstance(found, Client):
        return ClientApp(client_fn=lambda context: found)
    if callable(found):
        return ClientApp(client_fn=found)
    raise Usage(f"a {type(found).__name__} is no Flower app: name a ClientApp, a NumPyClient, or a client_fn")


def _run_config(directory: pathlib.Path) -> dict[str, Any]:
    """`[tool.flwr.app.config]`, nested names joined by dots as Flower does."""
    path = directory / "pyproject.toml"
    if not path.exists():
        return {}
    # Python 3.10 has no tomllib; flwr brings tomli.
    tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    document = tomllib.loads(path.read_text())
    config = document.get("tool", {}).get("flwr", {}).get("app", {}).get("config", {})

    def flat(table: Mapping[str, Any], before: str = "") -> dict[str, Any]:
        pairs: dict[str, Any] = {}
        for name, value in table.items():
            pairs.update(flat(value, f"{before}{name}.") if isinstance(value, dict) else {before + name: value})
        return pairs

    return flat(config)


def node_config(text: str) -> dict[str, Any]:
    """`partition-id=0 num-partitions=10` as values; quotes hold spaces together."""
    import shlex

    values: dict[str, Any] = {}
    for pair in shlex.split(text):
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise Usage(f"--node-config has '{pair}', which is no NAME=VALUE")
        if re.fullmatch(r"-?\d+", value):
            values[name] = int(value)
        elif value in ("true", "false"):
            values[name] = value == "true"
        else:
            try:
                values[name] = float(value)
            except ValueError:
                values[name] = value
    return values


# The context's state, as JSON: it stays on the device from round to round


def _save(state: Any, path: pathlib.Path) -> None:
    document: dict[str, Any] = {"arrays": {}, "metrics": {}, "config": {}}
    for place, record in state.array_records.items():
        document["arrays"][place] = {
            name: [array.dtype, list(array.shape), array.stype, base64.b64encode(array.data).decode()] for name, array in record.items()
        }
    for place, record in state.metric_records.items():
        document["metrics"][place] = dict(record)
    for place, record in state.config_records.items():
        document["config"][place] = {name: _kept(value) for name, value in record.items()}
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(document))
    os.replace(part, path)


def _kept(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    return [_kept(one) for one in value] if isinstance(value, list) else value


def _given(value: Any) -> Any:
    if isinstance(value, dict):
        return base64.b64decode(value["bytes"])
    return [_given(one) for one in value] if isinstance(value, list) else value


def _saved(path: pathlib.Path | None) -> Any:
    from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

    state = RecordDict()
    if path is None or not path.exists():
        return state
    document = json.loads(path.read_text())
    for place, arrays in document["arrays"].items():
        state[place] = ArrayRecord({
            name: Array(dtype=dtype, shape=tuple(shape), stype=stype, data=base64.b64decode(data))
            for name, (dtype, shape, stype, data) in arrays.items()
        })
    for place, values in document["metrics"].items():
        state[place] = MetricRecord(values)
    for place, values in document["config"].items():
        state[place] = ConfigRecord({name: _given(value) for name, value in values.items()})
    return state


def _make_initial(path: pathlib.Path, model: str | None, load: Callable[[], App], directory: pathlib.Path) -> None:
    if model is not None:
        made = _loaded(model, directory)
        weights = tensors.first_model(made() if callable(made) and not hasattr(made, "state_dict") or isinstance(made, type) else made)
    else:
        app = load()
        if not app.is_legacy:
            raise Usage("an app of the Message API gives no first model: name what makes it, --model package.module:Net")
        weights = tensors.first_model(app.initial())
    path.write_bytes(tensors.encode(weights, {"format": "pt"}))
    print(f"{path}: {len(weights)} tensors, {sum(array.size for array in weights.values())} parameters")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m martlet.flower", description="Run a Flower app as Martlet's trainer.")
    parser.add_argument("app", help="package.module:name of a ClientApp, a NumPyClient, or a client_fn")
    parser.add_argument("--app-dir", type=pathlib.Path, default=pathlib.Path.cwd(), help="where the package and pyproject.toml are (default: here)")
    parser.add_argument("--node-config", default="", metavar="'NAME=VALUE …'", help="context.node_config, such as 'partition-id=0 num-partitions=10'")
    parser.add_argument("--arrays", default="arrays", help="name of the message's ArrayRecord (default: arrays)")
    parser.add_argument("--config", default="config", help="name of the message's ConfigRecord (default: config)")
    parser.add_argument("--weight-key", default="num-examples", help="what counts the examples in the reply's metrics (default: num-examples)")
    parser.add_argument("--initial", type=pathlib.Path, metavar="FILE", help="write the run's first model instead of training")
    parser.add_argument("--model", metavar="package.module:Net", help="with --initial: what makes the model, a torch module or a list of arrays")
    given = parser.parse_args(arguments)
    directory = given.app_dir.resolve()

    def load() -> App:
        return App(given.app, directory, node_config(given.node_config), given.arrays, given.config, given.weight_key)

    if given.initial:
        try:
            _make_initial(given.initial, given.model, load, directory)
        except MartletError as error:
            sys.exit(f"martlet.flower: {error}")
        return
    # Loaded for the task, so that what its imports print goes to the log too.
    apps: list[App] = []

    def app() -> App:
        if not apps:
            apps.append(load())
        return apps[0]

    run_functions(Functions(
        fit=lambda weights, task: app().fit(weights, task), evaluate=lambda weights, task: app().evaluate(weights, task)
    ))


if __name__ == "__main__":
    main()
