"""The people whose data one privacy budget covers."""

from __future__ import annotations

from typing import Any, cast

from . import types
from .server import Server


class Population:
    """A population on a server. Its figures are those of the last answer; `refresh()` asks again."""

    def __init__(self, server: Server, view: types.Population) -> None:
        self.server = server
        self.view = view
        """The whole document."""

    def __repr__(self) -> str:
        return f"<Population {self.name} ({self.id}): {sum(self.clients.values())} clients>"

    @property
    def id(self) -> str:
        return self.view["id"]

    @property
    def name(self) -> str:
        return self.view["name"]

    @property
    def clients(self) -> dict[str, int]:
        """Clients by state."""
        return self.view["clients"]

    @property
    def budget(self) -> types.BudgetStatus | None:
        """Epsilon, delta, and what is spent of them; `None` without a budget."""
        return self.view.get("budget")

    def refresh(self) -> Population:
        """Ask the server again; returns the same object."""
        self.view = self.server._json("getPopulation", population=self.id)
        return self

    def set_budget(self, epsilon: float, reason: str | None = None) -> Population:
        """Set epsilon: lower at will, higher with a reason that stays in the ledger. Administrators."""
        body: types.BudgetChange = {"epsilon": epsilon}
        if reason is not None:
            body["reason"] = reason
        self.view = self.server._json("changeBudget", population=self.id, body=body)
        return self

    def enrollment_token(self, uses: int, *, expires_in_s: float | None = None) -> str:
        """The text of a new token with which so many clients may register. It is shown this once. Administrators."""
        return self.issue_enrollment_token(uses, expires_in_s=expires_in_s)["token"]

    def issue_enrollment_token(self, uses: int, *, expires_in_s: float | None = None) -> types.IssuedToken:
        """The same with its id, by which it can be revoked."""
        body: dict[str, Any] = {"max_uses": uses}
        if expires_in_s is not None:
            body["expires_in_s"] = expires_in_s
        return cast(types.IssuedToken, self.server._json("createEnrollmentToken", population=self.id, body=body))

    def ledger(self) -> list[types.LedgerRow]:
        """Every charge on the budget, in order, hash-chained."""
        return list(self.server._pages("getLedger", population=self.id))

    def ledger_audit(self) -> types.LedgerAudit:
        """Everything that an outside accountant needs."""
        return cast(types.LedgerAudit, self.server._json("getLedger", population=self.id, query={"format": "audit"}))

    def ledger_links(self, first: int = 0) -> list[bytes]:
        """The links of the ledger's chain after the first so many rows, 32 bytes each."""
        links: list[bytes] = []
        while True:
            asked = {"from": first + len(links)}
            page = self.server.call("getLedgerLinks", population=self.id, query=asked, accept="application/octet-stream").bytes()
            if not page:
                return links
            links += [page[index : index + 32] for index in range(0, len(page), 32)]

    def ledger_acknowledgements(self) -> types.LedgerAcknowledgements:
        """The rows by which administrators accepted a restored ledger."""
        return cast(types.LedgerAcknowledgements, self.server._json("listLedgerAcknowledgements", population=self.id))
