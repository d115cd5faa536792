"""The operator's requests. Made of openapi.yaml by make_types.py; do not edit."""

from __future__ import annotations

from typing import NamedTuple


class Operation(NamedTuple):
    method: str
    path: str
    query: tuple[str, ...]
    headers: tuple[str, ...]
    summary: str


OPERATIONS: dict[str, Operation] = {
    "health": Operation(
        "GET", "/healthz", (), (),
        "The process answers.",
    ),
    "ready": Operation(
        "GET", "/readyz", (), (),
        "Recovery is done, and disk and database can be written.",
    ),
    "overview": Operation(
        "GET", "/v1/overview", (), (),
        "The whole server at a glance, as the dashboard shows it, with its problems in words.",
    ),
    "metrics": Operation(
        "GET", "/metrics", (), (),
        "Everything that is measured, in Prometheus' text format; a viewer's token.",
    ),
    "listPopulations": Operation(
        "GET", "/v1/populations", ("limit", "cursor"), (),
        "All populations.",
    ),
    "createPopulation": Operation(
        "POST", "/v1/populations", (), (),
        "Create a population; administrators.",
    ),
    "getPopulation": Operation(
        "GET", "/v1/populations/{population}", (), (),
        "Clients by state, and the budget.",
    ),
    "getLedger": Operation(
        "GET", "/v1/populations/{population}/ledger", ("format", "limit", "cursor"), (),
        "Every charge on the budget, in order, hash-chained.",
    ),
    "changeBudget": Operation(
        "PATCH", "/v1/populations/{population}/budget", (), ("If-Match",),
        "Set epsilon; lower at will, higher with a reason that stays in the ledger.",
    ),
    "getLedgerState": Operation(
        "GET", "/v1/ledger", (), (),
        "Where the ledger of all populations stands, and whether it was rolled back.",
    ),
    "acknowledgeRollback": Operation(
        "POST", "/v1/ledger/acknowledgement", (), (),
        "Accept a restored database; charges that it lost are charged again. 409 when nothing was rolled back.",
    ),
    "getLedgerLinks": Operation(
        "GET", "/v1/populations/{population}/ledger/links", ("from",), (),
        "The links of a population's ledger, 32 bytes a row, for clients of the population and for staff.",
    ),
    "listLedgerAcknowledgements": Operation(
        "GET", "/v1/populations/{population}/ledger/acknowledgements", (), (),
        "The rows by which administrators accepted a restored ledger, whole, so that a client can find them in the chain.",
    ),
    "createEnrollmentToken": Operation(
        "POST", "/v1/populations/{population}/enrollment-tokens", (), (),
        "Make a token that enrolls clients; it is shown once.",
    ),
    "listClients": Operation(
        "GET", "/v1/clients", ("limit", "cursor"), (),
        "All clients.",
    ),
    "getClient": Operation(
        "GET", "/v1/clients/{client}", (), (),
        "One client; viewers, operators, administrators and the client itself.",
    ),
    "changeClient": Operation(
        "PATCH", "/v1/clients/{client}", (), ("If-Match",),
        "Change a client's name, labels or capabilities; operators and the client itself.",
    ),
    "revokeClient": Operation(
        "DELETE", "/v1/clients/{client}", (), ("If-Match",),
        "Revoke a client; its open assignment is superseded.",
    ),
    "listRuns": Operation(
        "GET", "/v1/runs", ("limit", "cursor"), (),
        "All runs, oldest first.",
    ),
    "createRun": Operation(
        "POST", "/v1/runs", ("dry_run",), (),
        "Create a run from a specification, JSON or YAML; checked whole before anything is stored.",
    ),
    "getRun": Operation(
        "GET", "/v1/runs/{run}", (), (),
        "State, current round, model version, epsilon spent, and what the run waits for.",
    ),
    "startRun": Operation(
        "POST", "/v1/runs/{run}/start", (), ("If-Match",),
        "Start; 409 budget_exhausted when the first round could overdraw the budget.",
    ),
    "pauseRun": Operation(
        "POST", "/v1/runs/{run}/pause", (), ("If-Match",),
        "Hand out no more work.",
    ),
    "resumeRun": Operation(
        "POST", "/v1/runs/{run}/resume", (), ("If-Match",),
        "Go on.",
    ),
    "cancelRun": Operation(
        "POST", "/v1/runs/{run}/cancel", (), ("If-Match",),
        "End for good; the open round's reservation is given back.",
    ),
    "listRounds": Operation(
        "GET", "/v1/runs/{run}/rounds", ("after", "before", "last", "limit", "cursor"), (),
        "Every attempt of every round.",
    ),
    "getRound": Operation(
        "GET", "/v1/runs/{run}/rounds/{round}", (), (),
        "The latest attempt of a round, and what it waits for.",
    ),
    "getRoundHistory": Operation(
        "GET", "/v1/runs/{run}/rounds/{round}/history", ("assignments",), (),
        "Every state change of a round, with its time and cause; round 0 is the run itself.",
    ),
    "listEvaluations": Operation(
        "GET", "/v1/runs/{run}/evaluations", ("last", "limit", "cursor"), (),
        "Evaluation rounds, oldest first; their `number` is the version that clients measured on held-out data.",
    ),
    "getEvaluationHistory": Operation(
        "GET", "/v1/runs/{run}/evaluations/{round}/history", ("assignments",), (),
        "Every state change of the evaluation of a version.",
    ),
    "getCurves": Operation(
        "GET", "/v1/runs/{run}/curves", ("points",), (),
        "The run's history as curves, thinned so that the answer stays small however long the run is.",
    ),
    "getMetrics": Operation(
        "GET", "/v1/runs/{run}/metrics", (), (),
        "One row for each committed round, as JSON or CSV.",
    ),
    "putModel": Operation(
        "PUT", "/v1/runs/{run}/model", (), (),
        "The initial weights of a run with architecture external, before its start.",
    ),
    "listModels": Operation(
        "GET", "/v1/runs/{run}/models", (), (),
        "Every published version.",
    ),
    "getModel": Operation(
        "GET", "/v1/runs/{run}/models/{version}", (), (),
        "One version; `latest` is the last.",
    ),
    "reportMetrics": Operation(
        "POST", "/v1/runs/{run}/models/{version}/metrics", (), (),
        "Record what was measured of a version, such as accuracy on held-out data; one report a source.",
    ),
    "getWeights": Operation(
        "GET", "/v1/runs/{run}/models/{version}/weights", ("encoding",), (),
        "The safetensors file, immutable; Range, If-Range, If-Match and If-None-Match are honoured.",
    ),
    "getTokenizer": Operation(
        "GET", "/v1/runs/{run}/tokenizer", (), (),
        "The vocabulary of a run, where it is too long to come with every assignment; it never changes.",
    ),
    "getOptimizerState": Operation(
        "GET", "/v1/runs/{run}/models/{version}/optimizer", (), (),
        "What the server's optimiser remembers after a version, as safetensors named MOMENT/TENSOR; 404 when nothing.",
    ),
    "getControlVariate": Operation(
        "GET", "/v1/runs/{run}/models/{version}/control", (), (),
        "SCAFFOLD's control variate of the server at a version; 404 before the first round.",
    ),
    "listWords": Operation(
        "GET", "/v1/runs/{run}/models/{version}/words", ("limit", "cursor", "minimum_count", "format"), (),
        "The words that a run of kind analytics has found up to a version, with noised counts of the clients that hold them.",
    ),
    "listUpdateScores": Operation(
        "GET", "/v1/runs/{run}/rounds/{round}/updates", ("limit", "cursor"), (),
        "How far each update of a round stood out, and whether it counted; empty unless aggregation.anomalies is set.",
    ),
    "listClientUpdateScores": Operation(
        "GET", "/v1/clients/{client}/updates", ("limit", "cursor"), (),
        "How far a client's latest updates stood out.",
    ),
    "releaseClient": Operation(
        "DELETE", "/v1/clients/{client}/quarantine", (), ("If-Match",),
        "Let a quarantined client take part again.",
    ),
    "watchEvents": Operation(
        "GET", "/v1/events", ("after", "run", "limit", "cursor"), ("Last-Event-ID",),
        "What happens, as server-sent events.",
    ),
    "getArchive": Operation(
        "GET", "/v1/runs/{run}/models/{version}/archive", (), (),
        "A tar file of the model directory, with its specification and card.",
    ),
    "listTokens": Operation(
        "GET", "/v1/tokens", ("limit", "cursor"), (),
        "Operators' and enrollment tokens, without their texts; administrators.",
    ),
    "createToken": Operation(
        "POST", "/v1/tokens", (), (),
        "Make a viewer's, operator's or administrator's token; its text is shown once. Administrators.",
    ),
    "getToken": Operation(
        "GET", "/v1/tokens/{token}", (), (),
        "One token; `current`, which every caller may ask for, is the one that was sent.",
    ),
    "revokeToken": Operation(
        "DELETE", "/v1/tokens/{token}", (), ("If-Match",),
        "Revoke a token at once; the last administrator's token stays. Administrators.",
    ),
    "rotateToken": Operation(
        "POST", "/v1/tokens/{token}/rotate", (), ("If-Match",),
        "Give a token a new text; id, role, name and expiry stay. Everyone may rotate `current`.",
    ),
    "listAudit": Operation(
        "GET", "/v1/audit", ("limit", "cursor", "actor", "action", "outcome", "since"), (),
        "What operators did, newest first; the log is append-only, and a row is durable together with its action.",
    ),
}
