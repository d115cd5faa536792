"""What can go wrong, with what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class MartletError(Exception):
    """Everything that this package raises on its own account."""


class Unreachable(MartletError):
    """Nobody answered, or whoever answered could not be trusted."""


class ModelError(MartletError, ValueError):
    """A model, or an update, cannot be sent as it is."""


class RunEnded(MartletError):
    """A run ended without being completed: it failed or was cancelled."""


@dataclass(frozen=True)
class FieldError:
    """One wrong field of what was sent."""

    pointer: str
    """JSON pointer to the field, such as `/cohort/goal`."""
    detail: str


# What to do about a code, where the server's own sentence cannot name the call of this package.
_REMEDIES = {
    "unauthorized": "Give Server(token=…) or Server(token_file=…), or set MARTLET_TOKEN to a token of this server.",
    "forbidden": "Use a token with a higher role: viewers read, operators make runs, administrators make populations and tokens.",
    "token_expired": "Ask an administrator for a new token: Server.create_token.",
    "model_missing": "Give Run.create(…, model=…), or call run.set_model(…) before the start.",
    "model_set": "Create another run: the first model of a run is set once.",
    "budget_exhausted": "Raise the population's budget with population.set_budget(epsilon, reason), or ask run.plan first for a cheaper run.",
    "wrong_state": "Look at run.state: created runs start, running ones pause, paused ones resume.",
    "ledger_rolled_back": "Put the newest database back, or accept the old one with server.acknowledge_rollback(reason).",
    "precondition_failed": "Somebody else changed it: call refresh(), look, and try again.",
    "too_large": "Raise limits.model_bytes in the server's configuration, or send a smaller model.",
}


class ServerError(MartletError):
    """The server's answer to a request that it refused, an RFC 9457 problem document."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        title: str = "",
        errors: Sequence[FieldError] = (),
        request_id: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        self.status = status
        """The HTTP status."""
        self.code = code
        """Stable and machine-readable, such as `budget_exhausted`. Later servers may have codes that this package does not know."""
        self.title = title
        self.detail = detail
        """What was wrong, in a sentence."""
        self.errors = tuple(errors)
        """The wrong fields, each with its JSON pointer."""
        self.request_id = request_id
        """Names the request in the server's log."""
        self.retry_after_s = retry_after_s
        """Seconds after which the server wants to be asked again; `None` where that is of no use."""
        self.remedy = _REMEDIES.get(code)
        """What to do, where that is known."""
        super().__init__(self._text())

    def _text(self) -> str:
        text = f"{self.detail or self.title} ({self.code})"
        shown = [one for one in self.errors if one.detail not in self.detail]
        text += "".join(f"\n  {one.pointer or '/'}: {one.detail}" for one in shown)
        return text + (f"\n{self.remedy}" if self.remedy else "")
