"""One process for one task, as `martlet client --trainer-command` starts it.

A process that does many tasks in turn will read them from a socket (`MARTLET_TRAINER_FD`) and give each to `work.perform`, which keeps
nothing from one task to the next. Clients do not open such a socket yet.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import pathlib
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar, overload

from . import work
from .errors import OK, USAGE
from .task import Task
from .work import Functions, Outcome

_functions = Functions()
Function = TypeVar("Function", bound=Callable[..., Any])


@overload
def fit(function: Function) -> Function: ...
@overload
def fit(*, module: Callable[[], Any]) -> Callable[[Function], Function]: ...
def fit(function: Any = None, *, module: Callable[[], Any] | None = None) -> Any:
    """Registers the function that trains: `(weights, task)` to `(weights, examples)`, or `(weights, examples, measurements)`.

    With `module` it gets the torch module that `module()` makes, with the weights in it, and returns `examples` or `(examples,
    measurements)`.
    """
    return _registered("fit", function, module)


@overload
def evaluate(function: Function) -> Function: ...
@overload
def evaluate(*, module: Callable[[], Any]) -> Callable[[Function], Function]: ...
def evaluate(function: Any = None, *, module: Callable[[], Any] | None = None) -> Any:
    """Registers the function that judges a model: `(weights, task)` to `(examples, measurements)`; with `module` as for `fit`."""
    return _registered("evaluate", function, module)


def _registered(name: str, function: Any, module: Callable[[], Any] | None) -> Any:
    def keep(function: Any) -> Any:
        if not callable(function):
            raise TypeError(f"@trainer.{name} stands before a function")
        setattr(_functions, name, function)
        setattr(_functions, name + "_module", module)
        return function

    return keep if function is None else keep(function)


def run() -> None:
    """Do the task that the client has started this process for, and end the process with its exit code."""
    run_functions(_functions)


def run_functions(functions: Functions) -> None:
    """The same with functions that no decorator has registered."""
    if multiprocessing.parent_process() is not None:
        # A worker of the trainer's own that has imported the script again.
        return
    outcome = _run(functions)
    sys.stdout.flush()
    if outcome.message:
        # The log's last line is what the device's owner is shown.
        print(f"{pathlib.Path(sys.argv[0]).name}: {outcome.message}", file=sys.stderr, flush=True)
    if outcome.code != OK:
        sys.exit(outcome.code)


def _run(functions: Functions) -> Outcome:
    path = os.environ.get("MARTLET_ASSIGNMENT")
    if not path:
        return Outcome(
            USAGE,
            f"`martlet client --trainer-command \"python {sys.argv[0]}\"` runs this script; "
            f"`martlet trainer check --cmd \"python {sys.argv[0]}\"` tries it.",
        )
    events = _events()
    directories = {name: pathlib.Path(os.environ[f"MARTLET_{name.upper()}"]) for name in ("model_dir", "data_dir", "state_dir", "update_dir")}
    task = Task(json.loads(pathlib.Path(path).read_text()), emit=events, **directories)
    _stop.task = task
    task.stopped = _stop.is_asked
    return work.perform(functions, task)


class _Stop:
    """SIGTERM, which asks the task to stop. It may come while the script still imports its libraries."""

    def __init__(self) -> None:
        self.is_asked = False
        self.task: Task | None = None
        signal.signal(signal.SIGTERM, self.ask)
        # A forked worker ends by SIGTERM as it would without this. Held back meanwhile: a new process forgets signals that Python
        # has seen and not handled yet.
        hold = [signal.SIGTERM]
        os.register_at_fork(
            before=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, hold),
            after_in_parent=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, hold),
            after_in_child=self._as_without,
        )

    @staticmethod
    def _as_without() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])

    def ask(self, *_: Any) -> None:
        self.is_asked = True
        if self.task is not None:
            self.task.stopped = True


def _events() -> Callable[[dict[str, Any]], None]:
    """Where progress goes: standard output, which from now on is the log's for everybody else, in this process and its children."""
    sys.stdout.flush()
    output = os.dup(1)
    os.dup2(2, 1)

    def emit(event: dict[str, Any]) -> None:
        line = (json.dumps(event) + "\n").encode()
        try:
            while line:
                line = line[os.write(output, line) :]
        except OSError:
            # Nobody reads any more; the work goes on.
            pass

    return emit


def _is_started_by_the_client() -> bool:
    return "MARTLET_ASSIGNMENT" in os.environ and multiprocessing.parent_process() is None


if _is_started_by_the_client() and threading.current_thread() is threading.main_thread():
    _stop = _Stop()
