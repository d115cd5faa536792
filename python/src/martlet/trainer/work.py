"""A task from its model to its files. Nothing here depends on how tasks come: one process may do one, or many in turn."""

from __future__ import annotations

import hashlib
import json
import math
import os
import pathlib
import random
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import tensors
from ..errors import ModelError
from .errors import FAILED, NUMERIC, OK, OUT_OF_MEMORY, ModelMismatch, NoData, NumericTrouble, Stopped, TrainerError, Usage
from .task import Task, Tensors

_NAME = re.compile(r"[a-z0-9_]{1,64}")
_COUNTS = ("nll", "loss_tokens", "tokens", "hit1", "hit3", "top1", "top3", "steps", "seconds", "examples")
_METRIC_LIMIT = 24


@dataclass
class Functions:
    """What a script has registered."""

    fit: Callable[..., Any] | None = None
    evaluate: Callable[..., Any] | None = None
    fit_module: Callable[[], Any] | None = None
    evaluate_module: Callable[[], Any] | None = None


@dataclass(frozen=True)
class Outcome:
    """How a task ended: an exit code of the contract, and a sentence if it failed."""

    code: int
    message: str = ""


def perform(functions: Functions, task: Task) -> Outcome:
    """Do a task and write its files. Every error becomes an outcome; a traceback goes to standard error."""
    try:
        seed(task.seed, task.threads)
        _perform(functions, task)
        return Outcome(OK)
    except TrainerError as error:
        return Outcome(error.exit_code, str(error))
    except ModelError as error:
        return Outcome(FAILED, str(error))
    except MemoryError as error:
        return Outcome(OUT_OF_MEMORY, f"out of memory{f': {error}' if str(error) else ''}")
    except FloatingPointError as error:
        return Outcome(NUMERIC, str(error))
    except Exception as error:
        if type(error).__name__ in ("OutOfMemoryError", "AcceleratorError") and "memory" in str(error):
            return Outcome(OUT_OF_MEMORY, str(error).splitlines()[0])
        import traceback

        traceback.print_exc()
        return Outcome(FAILED, f"{type(error).__name__}: {error}".splitlines()[0])


def seed(value: int, threads: int) -> None:
    """Give every generator that a trainer may use the task's seed, so that a process that did other tasks before gives the same."""
    random.seed(value)
    np.random.seed(value % 2**32)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(value % 2**63)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


def _perform(functions: Functions, task: Task) -> None:
    training = task.op == "train"
    function = functions.fit if training else functions.evaluate
    if function is None:
        missing = "fit" if training else "evaluate"
        raise Usage(f"the script has no @{missing} function, and the run asks to {task.op}")
    # Whatever the function would say: without data there is no work.
    _ = task.files
    path = task.model_dir / "model.safetensors"
    content = path.read_bytes()
    base = hashlib.sha256(content).hexdigest()
    before = tensors.decode(content, "the model")
    make = functions.fit_module if training else functions.evaluate_module
    if make is None:
        given: Any = Tensors({name: array.copy() for name, array in before.items()})
        module = None
    else:
        given = module = _module(make, before)
        # Making a module draws numbers; what follows does not depend on how many.
        seed(task.seed, task.threads)
    if not training and module is not None:
        module.eval()
    answer = function(given, task)
    if task.stopped and not task.partial:
        # The function went to its end, or noticed by itself; the server is told that it was asked to stop.
        task.partial = True
    if not training:
        examples, measured = _counted(answer, "evaluate")
        _write(task.update_dir / "metrics.json", _report(task, examples, measured))
        return
    if module is not None:
        after: Mapping[str, Any] = _state(module, before)
        examples, measured = _counted(answer, "fit")
    else:
        after, examples, measured = _fitted(answer)
    update = _delta(before, after)
    if task.stopped and task.steps == 0 and not any(array.any() for array in update.values()):
        raise Stopped("asked to stop before anything was learnt")
    if task.steps == 0:
        task.steps = 1
    report = _report(task, examples, measured)
    _write(task.update_dir / "model.safetensors", tensors.encode(update, {"kind": "delta", "base": base}))
    _write(task.update_dir / "metrics.json", report)


# What the functions return


def _fitted(answer: Any) -> tuple[Mapping[str, Any], int, Mapping[str, float]]:
    if isinstance(answer, tuple) and len(answer) in (2, 3) and isinstance(answer[0], Mapping):
        examples, measured = _counted(answer[1] if len(answer) == 2 else answer[1:], "fit")
        return answer[0], examples, measured
    raise TrainerError("fit must return (weights, examples) or (weights, examples, {\"loss\": …})")


def _counted(answer: Any, name: str) -> tuple[int, Mapping[str, float]]:
    measured: Any = {}
    if isinstance(answer, tuple) and len(answer) == 2:
        answer, measured = answer
    if isinstance(answer, bool) or not hasattr(answer, "__index__") or not isinstance(measured, Mapping):
        ways = "examples or (examples, {\"loss\": …})"
        raise TrainerError(f"{name} must return {ways}, where examples is a whole number")
    examples = int(answer.__index__())
    if examples <= 0:
        raise NoData(f"{name} says that it saw {examples} examples")
    return examples, measured


def _delta(before: Mapping[str, np.ndarray], after: Mapping[str, Any]) -> tensors.Weights:
    """New minus old, in F64 where the new one is, checked whole."""
    missing, foreign = sorted(set(before) - set(after)), sorted(set(map(str, after)) - set(before))
    if missing:
        raise TrainerError(f"fit returned no tensor '{missing[0]}'" + (f", and {len(missing) - 1} more are missing" * (len(missing) > 1)))
    if foreign:
        raise TrainerError(f"fit returned '{foreign[0]}', which the model has not")
    update: tensors.Weights = {}
    for name, old in before.items():
        new = tensors.array_of(name, after[name])
        if new.shape != old.shape:
            raise TrainerError(f"fit returned tensor '{name}' with shape {list(new.shape)}; the model's is {list(old.shape)}")
        if new.dtype.kind != "f":
            raise TrainerError(f"fit returned tensor '{name}' as {new.dtype}; return floating point numbers")
        with np.errstate(all="ignore"):
            difference = (new.astype(np.float64) - old).astype(np.float32)
        if not np.isfinite(difference).all():
            place = [int(index) for index in np.argwhere(~np.isfinite(difference))[0]]
            raise NumericTrouble(f"tensor '{name}' is NaN or infinite at {place} after the training: a lower learning rate may help")
        update[name] = difference
    return update


# Modules of torch


def _module(make: Callable[[], Any], weights: Mapping[str, np.ndarray]) -> Any:
    """A module with the weights in it. Integer and boolean buffers, which do not travel, stay as the module makes them."""
    import torch

    module = make()
    own = module.state_dict()
    wanted = {name: tensor for name, tensor in own.items() if tensor.is_floating_point()}
    missing, foreign = sorted(set(wanted) - set(weights)), sorted(set(weights) - set(wanted))
    if missing or foreign:
        what = f"has no tensor '{missing[0]}', which the module has" if missing else f"has '{foreign[0]}', which the module has not"
        raise ModelMismatch(f"the model {what}")
    for name, tensor in wanted.items():
        if tuple(tensor.shape) != weights[name].shape:
            raise ModelMismatch(f"tensor '{name}' has shape {list(weights[name].shape)}; the module's is {list(tensor.shape)}")
    with torch.no_grad():
        for name, tensor in wanted.items():
            # In place, so that tied tensors stay tied.
            tensor.copy_(torch.from_numpy(weights[name].copy()))
    return module


def _state(module: Any, before: Mapping[str, np.ndarray]) -> Mapping[str, Any]:
    return {name: tensor for name, tensor in module.state_dict().items() if name in before or tensor.is_floating_point()}


# Files


def _report(task: Task, examples: int, measured: Mapping[str, float]) -> bytes:
    """`metrics.json`: counts, and means as sums over the examples."""
    document: dict[str, Any] = {"schema": 1, "examples": examples, "tokens": examples, "steps": task.steps, "partial": task.partial}
    own: dict[str, float] = {}
    for name, value in measured.items():
        number = float(value)
        if not math.isfinite(number):
            task.log(f"'{name}' is {number} and is left out", "warning")
        elif name == "loss":
            document.update(nll=number * examples, loss_tokens=examples)
        elif name == "accuracy":
            if not 0 <= number <= 1:
                raise TrainerError("accuracy is the share of right answers, from 0 to 1")
            document.update(hit1=round(number * examples), loss_tokens=examples)
        elif not isinstance(name, str) or not _NAME.fullmatch(name) or name in _COUNTS:
            raise TrainerError(f"'{name}' is no name for a measurement: use lower-case letters, digits and _, and none of {', '.join(_COUNTS)}")
        else:
            own[name] = number * examples
    if len(own) > _METRIC_LIMIT:
        raise TrainerError(f"{len(own)} measurements beside loss and accuracy; at most {_METRIC_LIMIT} are sent")
    if own:
        document["metrics"] = own
    return json.dumps(document, allow_nan=False).encode()


def _write(path: pathlib.Path, content: bytes) -> None:
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    os.replace(part, path)
