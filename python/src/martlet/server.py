"""A Martlet server as its operator sees it."""

from __future__ import annotations

import json
import os
import pathlib
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from . import types
from .errors import MartletError, ServerError, Unreachable
from .operations import OPERATIONS
from .transport import Answer, Transport

if TYPE_CHECKING:
    from .population import Population
    from .run import Run
    from .tensors import ModelLike


class Server:
    """A server, asked with one token.

    What is not given comes from the environment: `MARTLET_URL`, `MARTLET_TOKEN` and `MARTLET_CA_FILE`, as for the program `martlet`.
    Answers 429 and 503 that name a time are waited for, and requests that may be repeated are, for `patience_s` seconds.

    Errors: `ServerError` with the server's code and what to do, `Unreachable` if nobody answers.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        token_file: str | os.PathLike[str] | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        timeout_s: float = 60,
        patience_s: float = 60,
    ) -> None:
        url = url or os.environ.get("MARTLET_URL")
        if not url:
            raise MartletError(
                'no server is named: give Server("https://HOST:PORT"), or set MARTLET_URL. In a shell on the server\'s machine '
                '`eval "$(martlet env --data-dir DIR)"` sets it.'
            )
        if token is None and token_file is None:
            token = os.environ.get("MARTLET_TOKEN")
        if token is None and token_file is not None:
            token = _token(pathlib.Path(token_file))
        if token is not None and not (token.isascii() and token.isprintable() and " " not in token.strip()):
            raise MartletError("the token has characters that no token has: is it the text of a file's name?")
        if ca_file is None:
            ca_file = os.environ.get("MARTLET_CA_FILE") or None
            if ca_file is None and os.environ.get("MARTLET_PINNED_KEY") and url.startswith("https:"):
                raise MartletError("MARTLET_PINNED_KEY is not read here: set MARTLET_CA_FILE to the PEM file of the authority to trust.")
        self._transport = Transport(url, token.strip() if token else None, ca_file, timeout_s, patience_s)

    @classmethod
    def of_directory(cls, data_dir: str | os.PathLike[str], *, wait_s: float = 30, **options: Any) -> Server:
        """The server of this machine that uses a data directory, with the administrator's token that it wrote there.

        Waits up to `wait_s` seconds until it is ready. Options are those of `Server`.
        """
        directory = pathlib.Path(data_dir)
        end = time.monotonic() + wait_s
        while True:
            try:
                address = (directory / "address").read_text().strip()
                server = cls(address, _token(directory / "admin-token"), **{"patience_s": 0, **options})
                server.ready()
                server._transport.patience_s = options.get("patience_s", 60)
                return server
            except (FileNotFoundError, Unreachable, ServerError, MartletError) as error:
                if isinstance(error, ServerError) and error.status != 503:
                    raise
                if time.monotonic() > end:
                    raise Unreachable(f"no server is ready in {directory} after {wait_s:g} s: {error}") from None
                time.sleep(0.1)

    @property
    def url(self) -> str:
        """The server's address."""
        return self._transport.url

    def __repr__(self) -> str:
        return f"Server({self.url!r})"

    # Every operation

    def call(
        self,
        operation: str,
        *,
        body: Any = None,
        content_type: str = "application/json",
        accept: str | None = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        **path: Any,
    ) -> Answer:
        """Any request of `openapi.yaml` that is an operator's, by its `operationId`: for what the methods have no option for.

        A body of type bytes or path is sent as it is, everything else as JSON.
        """
        try:
            known = OPERATIONS[operation]
        except KeyError:
            raise ValueError(f"{operation!r} is no operation of an operator; martlet.operations.OPERATIONS lists them") from None
        given = dict(headers or {})
        if accept:
            given["Accept"] = accept
        if body is not None:
            given["Content-Type"] = content_type
            if not isinstance(body, (bytes, pathlib.Path)):
                body = json.dumps(body, allow_nan=False).encode()
        target = known.path.format(**{name: urllib.parse.quote(str(value), safe="") for name, value in path.items()})
        return self._transport.send(known.method, target, query=query, headers=given, body=body)

    def _json(self, operation: str, **arguments: Any) -> Any:
        return self.call(operation, **arguments).json()

    def _pages(self, operation: str, query: Mapping[str, Any] | None = None, **arguments: Any) -> Iterator[Any]:
        asked = dict(query or {})
        while True:
            page = self._json(operation, query=asked, **arguments)
            yield from page["items"]
            if not page.get("next_cursor"):
                return
            asked["cursor"] = page["next_cursor"]

    # The server

    def health(self) -> types.Health:
        """Whether the process answers; needs no token."""
        return cast(types.Health, self._json("health"))

    def ready(self) -> types.Ready:
        """Whether the server has recovered and can write; needs no token. `ServerError` 503 while it is not."""
        return cast(types.Ready, self._json("ready"))

    def overview(self) -> types.Overview:
        """Everything at a glance, with its problems in words, as the dashboard shows it."""
        return cast(types.Overview, self._json("overview"))

    def prometheus(self) -> str:
        """What Prometheus reads."""
        return self.call("metrics", accept="text/plain").bytes().decode()

    def events(self, after: int | None = None, run: str | None = None) -> Iterator[types.Event]:
        """The stored events, about 20,000 at most, oldest first; with `after` those that follow the event of that id."""
        asked = {"after": 0 if after is None else after, "run": run}
        return cast("Iterator[types.Event]", self._pages("watchEvents", query=asked, accept="application/json"))

    # Populations

    def populations(self) -> list[Population]:
        """All populations."""
        from .population import Population

        return [Population(self, view) for view in self._pages("listPopulations")]

    def population(self, name: str) -> Population:
        """One population, by its name or id."""
        from .population import Population

        return Population(self, self._json("getPopulation", population=name))

    def create_population(self, name: str, *, epsilon: float | None = None, delta: float | None = None) -> Population:
        """Create a population: those whose data one privacy budget covers. Without epsilon and delta it has no budget. Administrators."""
        from .population import Population

        if (epsilon is None) != (delta is None):
            raise ValueError("a budget has an epsilon and a delta: give both or none")
        body: types.PopulationRequest = {"name": name}
        if epsilon is not None and delta is not None:
            body["budget"] = {"epsilon": epsilon, "delta": delta}
        return Population(self, self._json("createPopulation", body=body))

    def ledger_state(self) -> types.LedgerState:
        """Where the ledger of all populations stands, and whether it was rolled back."""
        return cast(types.LedgerState, self._json("getLedgerState"))

    def acknowledge_rollback(self, reason: str, lost_heads: list[str] | None = None) -> types.LedgerState:
        """Accept a restored database; charges that it lost are charged again. Administrators."""
        body: types.Acknowledgement = {"reason": reason}
        if lost_heads:
            body["lost_heads"] = lost_heads
        return cast(types.LedgerState, self._json("acknowledgeRollback", body=body))

    # Runs

    def runs(self) -> list[Run]:
        """All runs, oldest first."""
        from .run import Run

        return [Run(self, view) for view in self._pages("listRuns")]

    def run(self, run_id: str) -> Run:
        """One run, by its id; or by its name, if one run alone has it."""
        from .run import Run

        try:
            return Run(self, self._json("getRun", run=run_id))
        except ServerError as error:
            named = [run for run in self.runs() if run.name == run_id] if error.status in (400, 404) else []
            if len(named) != 1:
                raise
            return named[0]

    def create_run(
        self, specification: types.RunSpecification | Mapping[str, Any] | str | os.PathLike[str], model: ModelLike | None = None
    ) -> Run:
        """The same as `Run.create` with this server."""
        from .run import Run

        return Run.create(specification, model=model, server=self)

    # Clients

    def clients(self) -> list[types.Client]:
        """All clients."""
        return list(self._pages("listClients"))

    def client(self, client_id: str) -> types.Client:
        """One client."""
        return cast(types.Client, self._json("getClient", client=client_id))

    def change_client(
        self,
        client_id: str,
        *,
        name: str | None = None,
        labels: dict[str, str] | None = None,
        capabilities: types.Capabilities | None = None,
    ) -> types.Client:
        """Change what is given; labels and capabilities are replaced as a whole."""
        given = {"name": name, "labels": labels, "capabilities": capabilities}
        body = {key: value for key, value in given.items() if value is not None}
        return cast(types.Client, self._json("changeClient", client=client_id, body=body))

    def revoke_client(self, client_id: str) -> None:
        """Revoke a client; its open work is superseded."""
        self._json("revokeClient", client=client_id)

    def release_client(self, client_id: str) -> None:
        """Let a quarantined client take part again."""
        self._json("releaseClient", client=client_id)

    def client_update_scores(self, client_id: str) -> list[types.UpdateScore]:
        """How far a client's latest updates stood out, the latest first."""
        return list(self._pages("listClientUpdateScores", client=client_id))

    # Access

    def tokens(self) -> list[types.OperatorToken]:
        """Operators' and enrollment tokens, without their texts. Administrators."""
        return list(self._pages("listTokens"))

    def token(self, token_id: str = "current") -> types.OperatorToken:
        """One token; without an id the one that this object asks with."""
        return cast(types.OperatorToken, self._json("getToken", token=token_id))

    def create_token(self, role: str, name: str, *, expires_in_s: float | None = None) -> types.IssuedToken:
        """A new token of a viewer, operator or admin; its text is in the answer and shown this once. Administrators."""
        body: dict[str, Any] = {"role": role, "name": name}
        if expires_in_s is not None:
            body["expires_in_s"] = expires_in_s
        return cast(types.IssuedToken, self._json("createToken", body=body))

    def rotate_token(self, token_id: str = "current", *, grace_period_s: float = 0) -> types.IssuedToken:
        """Give a token a new text. If it is this object's own, further requests use the new one."""
        answer = cast(types.IssuedToken, self._json("rotateToken", token=token_id, body={"grace_period_s": grace_period_s}))
        if token_id == "current":
            self._transport._token = answer["token"]
        return answer

    def revoke_token(self, token_id: str) -> None:
        """Revoke a token at once. Administrators."""
        self._json("revokeToken", token=token_id)

    def audit(
        self,
        *,
        actor: str | None = None,
        action: str | None = None,
        outcome: str | None = None,
        since: str | None = None,
        limit: int = 1000,
    ) -> list[types.AuditAction]:
        """What operators did, newest first: at most `limit` rows."""
        asked = {"actor": actor, "action": action, "outcome": outcome, "since": since, "limit": min(limit, 1000)}
        rows: list[types.AuditAction] = []
        for row in self._pages("listAudit", query=asked):
            rows.append(row)
            if len(rows) >= limit:
                break
        return rows


def _token(path: pathlib.Path) -> str:
    """The token of a file: its first line."""
    text = path.read_text().strip()
    if not text:
        raise MartletError(f"{path} is empty: it should hold a token")
    return text.splitlines()[0].strip()
