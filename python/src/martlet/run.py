"""The training of one model: a sequence of rounds."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from . import types
from .errors import MartletError, RunEnded
from .server import Server
from .tensors import ModelLike, Weights, decode, encode, first_model

if TYPE_CHECKING:
    import pandas

_ENDED = ("completed", "cancelled", "failed")
# After so many seconds without news `watch` says what a run waits for.
_QUIET_S = 10.0
# Longer than any file that may be a run file.
_FILE_BYTE_LIMIT = 64 << 20


class Run:
    """A run on a server. Its figures are those of the last answer; `refresh()` asks again."""

    def __init__(self, server: Server, view: types.Run) -> None:
        self.server = server
        self.view = view
        """The whole document."""

    @classmethod
    def create(
        cls,
        specification: types.RunSpecification | Mapping[str, Any] | str | os.PathLike[str],
        model: ModelLike | None = None,
        server: Server | None = None,
    ) -> Run:
        """Create a run of a run file (YAML or JSON) or a dictionary; checked whole before anything is stored.

        `model` gives the first weights of a run with `model: {architecture: external}`: a dictionary of NumPy arrays or torch tensors such
        as `module.state_dict()`, a module, a list of arrays, or a safetensors file. It is checked before the run is made. Without `server`
        the environment names one.
        """
        server = server or Server()
        weights = None if model is None else first_model(model)
        body, kind = _body(specification)
        run = cls(server, server._json("createRun", body=body, content_type=kind))
        if weights is not None:
            try:
                run._send_model(weights)
            except Exception:
                # A run without its model cannot start, and nobody would know its id.
                run.cancel()
                raise
        return run

    @staticmethod
    def plan(
        specification: types.RunSpecification | Mapping[str, Any] | str | os.PathLike[str], server: Server | None = None
    ) -> types.RunPlan:
        """What a run would cost in privacy and bytes, and what would be in its way. Nothing is stored."""
        body, kind = _body(specification)
        answer = (server or Server())._json("createRun", query={"dry_run": True}, body=body, content_type=kind)
        return cast(types.RunPlan, answer)

    def __repr__(self) -> str:
        return f"<Run {self.name} ({self.id}): {self.state}, {self.committed_rounds} rounds>"

    @property
    def id(self) -> str:
        return self.view["id"]

    @property
    def name(self) -> str:
        return self.view["name"]

    @property
    def state(self) -> str:
        """`created`, `running`, `paused`, `completed`, `cancelled` or `failed`."""
        return self.view["state"]

    @property
    def committed_rounds(self) -> int:
        return self.view["committed_rounds"]

    @property
    def best_version(self) -> int | None:
        """The version to take, by the run's rule to stop or by what was measured."""
        return self.view.get("best_version")

    @property
    def epsilon(self) -> float | None:
        """What the run has spent of the budget; `None` without privacy."""
        return self.view.get("epsilon")

    def refresh(self) -> Run:
        """Ask the server again; returns the same object."""
        self.view = self.server._json("getRun", run=self.id)
        return self

    # Steering

    def start(self) -> Run:
        """Open the first round."""
        return self._act("startRun")

    def pause(self) -> Run:
        """Hand out no more work."""
        return self._act("pauseRun")

    def resume(self) -> Run:
        """Go on."""
        return self._act("resumeRun")

    def cancel(self) -> Run:
        """End for good."""
        return self._act("cancelRun")

    def _act(self, operation: str) -> Run:
        self.view = self.server._json(operation, run=self.id)
        return self

    def watch(
        self, show: Callable[[str], Any] | None = print, *, timeout_s: float | None = None, poll_s: float = 1.0
    ) -> Run:
        """Wait for the run's end, and show a line for each new round or change of state.

        Raises `RunEnded` if it fails or is cancelled, and `TimeoutError` after `timeout_s`.
        """
        end = None if timeout_s is None else time.monotonic() + timeout_s
        shown, state, words, quiet_since = 0, "", "", time.monotonic()

        def say(line: str) -> None:
            nonlocal quiet_since, words
            quiet_since, words = time.monotonic(), ""
            if show:
                show(line)

        while True:
            self.refresh()
            if self.committed_rounds > shown:
                for row in self._rounds(after=shown):
                    if row["state"] == "committed" and row["number"] > shown:
                        shown = row["number"]
                        say(_line(row, self.view["specification"].get("rounds")))
            if self.state not in (state, *_ENDED):
                say(f"{self.name}: {self.state}")
            state = self.state
            # What it waits for is said once for each wait that is long; behind the colon stands a countdown.
            waits = self.view["waiting_for"]
            if state not in _ENDED and waits.split(":")[0] != words and time.monotonic() - quiet_since > _QUIET_S:
                say(f"{self.name}: waits for {waits}")
                words = waits.split(":")[0]
            if self.state == "completed":
                say(f"{self.name}: completed, {self.committed_rounds} rounds")
                return self
            if self.state in _ENDED:
                raise RunEnded(f"{self.name} ({self.id}) is {self.state}: {self.view.get('reason', 'no reason is known')}")
            if end is not None and time.monotonic() > end:
                raise TimeoutError(f"{self.name} ({self.id}) has not ended after {timeout_s:g} s; it waits for {self.view['waiting_for']}")
            time.sleep(poll_s)

    # Rounds

    def _rounds(self, **asked: Any) -> list[types.Round]:
        return list(self.server._pages("listRounds", query=asked, run=self.id))

    def rounds(self, *, after: int | None = None, before: int | None = None, last: int | None = None) -> list[types.Round]:
        """Every attempt of every round."""
        return self._rounds(after=after, before=before, last=last)

    def round(self, number: int) -> types.Round:
        """The latest attempt of a round, and what it waits for."""
        return cast(types.Round, self.server._json("getRound", run=self.id, round=number))

    def history(self, number: int = 0, *, assignments: bool = False) -> list[types.StateChange]:
        """Every state change of a round, with its time and cause; of round 0, those of the run itself."""
        return list(self.server._pages("getRoundHistory", query={"assignments": assignments}, run=self.id, round=number))

    def evaluations(self, *, last: int | None = None) -> list[types.Round]:
        """Evaluation rounds, oldest first; their `number` is the version that was measured."""
        return list(self.server._pages("listEvaluations", query={"last": last}, run=self.id))

    def evaluation_history(self, version: int, *, assignments: bool = False) -> list[types.StateChange]:
        """Every state change of the evaluation of a version."""
        return list(self.server._pages("getEvaluationHistory", query={"assignments": assignments}, run=self.id, round=version))

    def update_scores(self, number: int) -> list[types.UpdateScore]:
        """How far each update of a round stood out; empty unless `aggregation.anomalies` is set."""
        return list(self.server._pages("listUpdateScores", run=self.id, round=number))

    # Measurements

    def metrics(self) -> list[dict[str, Any]]:
        """A flat row for each committed round: its counts, and `SOURCE.NAME` for what was measured, such as `federated.loss`."""
        rows = []
        for view in self.server._pages("getMetrics", run=self.id, accept="application/json"):
            row: dict[str, Any] = {"round": view["number"]}
            for name in ("accepted", "failed", "rejected", "seconds", "bytes_up", "bytes_down", "epsilon", "closed_at"):
                if name in view:
                    row[name] = view[name]
            for source, values in view.get("metrics", {}).items():
                row.update({f"{source}.{name}": value for name, value in values.items()})
            rows.append(row)
        return rows

    def metrics_frame(self) -> pandas.DataFrame:
        """`metrics()` as a pandas DataFrame with the rounds as its index; needs pandas."""
        try:
            import pandas
        except ImportError:
            raise MartletError("metrics_frame() needs pandas: pip install pandas; metrics() gives the same as dictionaries") from None
        frame = pandas.DataFrame(self.metrics())
        return frame.set_index("round") if len(frame) else frame

    def curves(self, points: int = 500) -> types.Curves:
        """The run's history as curves, thinned to so many points each, with the best versions."""
        return cast(types.Curves, self.server._json("getCurves", query={"points": points}, run=self.id))

    def report_metrics(self, metrics: Mapping[str, float], *, version: int | str = "latest", source: str = "held-out") -> types.ModelVersion:
        """Record what was measured of a version; dashboard and plots show it."""
        if version == "latest":
            version = self.version()["version"]
        body = {"metrics": {name: float(value) for name, value in metrics.items()}, "source": source}
        return cast(types.ModelVersion, self.server._json("reportMetrics", body=body, run=self.id, version=version))

    # Models

    def set_model(self, model: ModelLike) -> types.ModelVersion:
        """The first weights of a run with `model: {architecture: external}`, before its start."""
        return self._send_model(first_model(model))

    def _send_model(self, weights: Weights) -> types.ModelVersion:
        answer = self.server._json(
            "putModel", body=encode(weights, {"format": "pt"}), content_type="application/vnd.safetensors", run=self.id
        )
        return cast(types.ModelVersion, answer)

    def versions(self) -> list[types.ModelVersion]:
        """Every published version."""
        return list(self.server._pages("listModels", run=self.id))

    def version(self, version: int | str = "latest") -> types.ModelVersion:
        """One version."""
        return cast(types.ModelVersion, self.server._json("getModel", run=self.id, version=version))

    def weights(self, version: int | str = "latest") -> Weights:
        """A version's tensors as NumPy arrays by name. For torch: `{k: torch.from_numpy(v) for k, v in weights.items()}`."""
        return decode(self._file("getWeights", version), f"version {version} of {self.id}")

    def download(self, path: str | os.PathLike[str], version: int | str = "latest") -> pathlib.Path:
        """Write a version as a safetensors file, whole or not at all."""
        return self._save(path, self._file("getWeights", version))

    def archive(self, path: str | os.PathLike[str], version: int | str = "latest") -> pathlib.Path:
        """Write a tar file of the model's directory with its specification and card."""
        return self._save(path, self._file("getArchive", version))

    def optimizer_state(self, version: int | str = "latest") -> Weights:
        """What the server's optimiser remembers after a version, by `MOMENT/TENSOR`; 404 when nothing."""
        return decode(self._file("getOptimizerState", version))

    def control_variate(self, version: int | str = "latest") -> Weights:
        """SCAFFOLD's control variate of the server at a version."""
        return decode(self._file("getControlVariate", version))

    def tokenizer(self) -> dict[str, Any]:
        """The run's vocabulary, if it is too long to come with every assignment."""
        return cast("dict[str, Any]", self.server._json("getTokenizer", run=self.id))

    def words(self, version: int | str = "latest", *, minimum_count: float | None = None) -> list[types.VocabularyItem]:
        """The words that a run of kind analytics has found, the most frequent first."""
        asked = {"minimum_count": minimum_count}
        return list(self.server._pages("listWords", query=asked, run=self.id, version=version, accept="application/json"))

    def _file(self, operation: str, version: int | str) -> bytes:
        """A file's bytes, compared with the digest that the server gives."""
        answer = self.server.call(operation, run=self.id, version=version, accept="*/*")
        content = answer.bytes()
        said = answer.headers.get("Repr-Digest") or answer.headers.get("Content-Digest") or ""
        if said.startswith("sha-256=:"):
            own = base64.b64encode(hashlib.sha256(content).digest()).decode()
            if said != f"sha-256=:{own}:":
                raise MartletError(f"the file of version {version} was changed or cut on the way; fetch it again")
        return content

    @staticmethod
    def _save(path: str | os.PathLike[str], content: bytes) -> pathlib.Path:
        target = pathlib.Path(path)
        part = target.with_name(target.name + ".part")
        part.write_bytes(content)
        part.replace(target)
        return target


def _body(specification: Any) -> tuple[bytes, str]:
    """A run file as it is sent, and its type."""
    if isinstance(specification, Mapping):
        return json.dumps(specification, allow_nan=False).encode(), "application/json"
    if not isinstance(specification, (str, os.PathLike)):
        raise TypeError(f"a run is made of a file or a dictionary, not of a {type(specification).__name__}")
    path = pathlib.Path(specification)
    with path.open("rb") as file:
        content = file.read(_FILE_BYTE_LIMIT + 1)
    if len(content) > _FILE_BYTE_LIMIT:
        raise ValueError(f"{path} is too large for a run file")
    return content, "application/json" if path.suffix == ".json" else "application/yaml"


def _line(row: types.Round, wanted: int | None) -> str:
    """A committed round in one line."""
    text = f"round {row['number']}" + (f" of {wanted}" if wanted else "") + f": {row['accepted']} updates, {row['seconds']:.1f} s"
    for source, values in sorted(row.get("metrics", {}).items()):
        shown = [f"{name} {values[name]:.4g}" for name in ("loss", "accuracy", "top1") if name in values]
        if shown:
            text += f"; {source} {', '.join(shown)}"
    return text
