"""One piece of work, as the functions of a trainer see it."""

from __future__ import annotations

import csv
import json
import math
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import numpy as np

from .errors import ModelMismatch, NoData, TrainerError, Usage

# Progress is shown about as often as somebody looks.
_PROGRESS_S = 2.0


class Tensors(dict[str, np.ndarray]):
    """A model's arrays by name; asking for one that is not there ends the task as `ModelMismatch`."""

    def __missing__(self, name: str) -> np.ndarray:
        shown = ", ".join(f"'{one}'" for one in sorted(self)[:8]) + (" …" if len(self) > 8 else "")
        raise ModelMismatch(f"the model has no tensor '{name}'; it has {shown or 'none'}")


class Task:
    """What is to be done, with what. A new one for each task; nothing of it outlives that."""

    def __init__(
        self,
        assignment: Mapping[str, Any],
        *,
        model_dir: pathlib.Path,
        data_dir: pathlib.Path,
        state_dir: pathlib.Path,
        update_dir: pathlib.Path,
        emit: Callable[[dict[str, Any]], None] = lambda _: None,
    ) -> None:
        if assignment.get("schema") != 1:
            raise Usage(f"assignment.json has schema {assignment.get('schema')!r}, and this package reads 1: update it")
        op = assignment["op"]
        if op not in ("train", "evaluate"):
            raise Usage(f"assignment.json asks to {op!r}, and this package can train and evaluate: update it")
        self.op: Literal["train", "evaluate"] = op
        self.run = str(assignment["run"])
        """The run's id."""
        self.round = int(assignment["round"])
        """The round; of an evaluation the version that is judged."""
        self.seed = int(assignment["seed"])
        """A whole number below 2⁶⁴. Python, NumPy and torch are seeded with it before each task."""
        self.rng = np.random.default_rng(self.seed)
        """NumPy's generator of this task."""
        self.hyper: dict[str, Any] = dict(assignment["hyper"])
        """The run's `training.local`: `lr`, `batch_size`, `epochs`, `max_steps`, `optimizer`, `clip`, `proximal_mu`, `weight_decay` …"""
        self.threads = int(assignment.get("threads", 1))
        self.deadline = float(assignment.get("deadline", math.inf))
        """Unix time at which the task is asked to stop."""
        self.model_dir = model_dir
        """The model's directory: `model.safetensors`, `config.json` and files that the client was given. Read-only."""
        self.data = data_dir
        """The directory of the device's data. Read-only."""
        self.state = state_dir
        """A directory of this trainer's own, kept from round to round of a run."""
        self.update_dir = update_dir
        self.steps = 0
        """Steps taken; `batches` counts them."""
        self.stopped = False
        """Whether the task was asked to stop: return what there is, within ten seconds."""
        self.partial = False
        """Whether work was left undone because of that."""
        self._emit = emit

    lr = property(lambda self: float(self.hyper["lr"]), doc="The learning rate.")
    batch_size = property(lambda self: int(self.hyper["batch_size"]), doc="Examples a step.")
    epochs = property(lambda self: int(self.hyper["epochs"]), doc="Passes over the data.")
    max_steps = property(lambda self: int(self.hyper["max_steps"]), doc="Steps at most.")

    @property
    def config(self) -> dict[str, Any]:
        """The run file's `model.config`."""
        path = self.model_dir / "config.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}

    @property
    def files(self) -> list[pathlib.Path]:
        """The data's files, by name. `NoData` without any."""
        found = sorted(self.data.iterdir())
        if not found:
            raise NoData("there are no data")
        return found

    @property
    def file(self) -> pathlib.Path:
        """The data's only file."""
        found = self.files
        if len(found) > 1:
            raise TrainerError(f"the data have {len(found)} files: choose among task.files")
        return found[0]

    def table(self, label: str, path: pathlib.Path | None = None) -> tuple[np.ndarray, np.ndarray]:
        """A CSV file's numbers: features [rows, columns but the label] and labels [rows], both F32.

        The first line names the columns. `NoData` without rows.
        """
        path = path or self.file
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [line for line in csv.reader(file) if line]
        if len(lines) < 2:
            raise NoData("the table has no rows")
        names = [name.strip() for name in lines[0]]
        if label not in names:
            raise TrainerError(f"the table has no column '{label}'; it has {', '.join(names)}")
        place = names.index(label)
        values = np.empty((len(lines) - 1, len(names)), np.float32)
        for row, line in enumerate(lines[1:]):
            if len(line) != len(names):
                raise TrainerError(f"row {row + 1} of the table has {len(line)} cells, and there are {len(names)} columns")
            for column, cell in enumerate(line):
                try:
                    values[row, column] = float(cell)
                except ValueError:
                    # The cell itself is personal data.
                    raise TrainerError(f"row {row + 1} of the table has no number in column '{names[column]}'") from None
        return np.delete(values, place, axis=1), values[:, place].copy()

    def batches(self, count: int) -> Iterator[np.ndarray]:
        """Places of the examples of each step, in a new order each pass.

        Honours `batch_size`, `epochs` and `max_steps`, counts the steps and shows progress. When the task is asked to stop it ends, but not
        before the first step, so that there is something to send.
        """
        if count <= 0:
            raise NoData("there are no examples")
        size = max(1, min(self.batch_size, count))
        per_pass = -(-count // size)
        steps = min(self.max_steps, self.epochs * per_pass)
        shown_at = 0.0
        for step in range(steps):
            if self.stopped and step > 0:
                self.partial = True
                return
            if step % per_pass == 0:
                order = self.rng.permutation(count)
            first = step % per_pass * size
            yield order[first : first + size]
            self.steps += 1
            if step == 0 or step + 1 == steps or time.monotonic() - shown_at >= _PROGRESS_S:
                shown_at = time.monotonic()
                self.progress(step + 1, steps)

    def progress(self, step: int, steps: int, loss: float | None = None) -> None:
        """Show how far the work is, on the device."""
        event: dict[str, Any] = {"event": "progress", "step": int(step), "steps": int(steps)}
        if loss is not None and math.isfinite(loss):
            event["loss"] = float(loss)
        self._emit(event)

    def log(self, message: str, level: str = "info") -> None:
        """Show a message, on the device."""
        self._emit({"event": "log", "level": level, "message": str(message)})
