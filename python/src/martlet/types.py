"""The documents of the server's interface. Made of openapi.yaml by make_types.py; do not edit."""

from __future__ import annotations

from typing import Any, Literal, TypedDict


class _HealthRequired(TypedDict):
    status: str


class Health(_HealthRequired, total=False):
    ledger_record: Literal["kept", "unwritable", "unread", "alarm"]
    """With /readyz: the ledger's second record. `unwritable`, `unread`: private runs wait and go on by themselves."""


class _ReadyRequired(TypedDict):
    status: str


class Ready(_ReadyRequired, total=False):
    ledger_record: Literal["kept", "unwritable", "unread", "alarm"]
    """With /readyz: the ledger's second record. `unwritable`, `unread`: private runs wait and go on by themselves."""


class ProblemError(TypedDict):
    pointer: str
    detail: str


class _ProblemRequired(TypedDict):
    type: str
    title: str
    status: int
    detail: str
    code: str


class Problem(_ProblemRequired, total=False):
    request_id: str
    errors: list[ProblemError]


class OverviewDisk(TypedDict, total=False):
    free_bytes: int
    total_bytes: int


class OverviewClients(TypedDict):
    total: int
    working: int
    """Holding an assignment now."""
    by_state: dict[str, int]
    """`active`, `offline`, `registered`, `quarantined`, `revoked`; while a run draws in secret `enrolled` in place of the first three."""
    by_tier: dict[str, int]


class _PrivacyClaimRequired(TypedDict):
    epsilon: float
    delta: float
    """The delta that is proven: the budget's, or 1.05 times that where mechanisms were mixed in later."""
    unit: str
    relations: list[Literal["add_remove", "replace_one", "zero_out"]]
    amplification: Literal["none", "poisson"]
    accountant: Literal["gaussian", "pld", "rdp", "filter"]
    assumptions: list[Literal["server_adds_noise", "draw_is_secret", "no_client_colludes"]]
    """Empty where the claim holds against the server, too."""


class PrivacyClaim(_PrivacyClaimRequired, total=False):
    ledger_rows: int | None
    """How many rows of the population's own ledger it is about."""


class BudgetStatus(TypedDict, total=False):
    epsilon: float
    delta: float
    unit: str
    relation: str
    """Of everything that was charged; several are joined by commas."""
    claim: PrivacyClaim | None
    accountant: Literal["gaussian", "pld", "rdp", "filter"]
    is_adaptive: bool
    """Whether only filters may enforce."""
    spent_epsilon: float
    reserved_epsilon: float
    remaining_epsilon: float
    rounds_that_fit: dict[str, int | None]
    """By run, by the accountant that enforces; null where the participation cap stops the cost from growing. Of a plan that loss distributions judge, no more than its own rounds."""


class _PopulationRequired(TypedDict):
    id: str
    name: str
    clients: dict[str, int]
    created_at: str


class Population(_PopulationRequired, total=False):
    budget: BudgetStatus


class _OverviewRunRequired(TypedDict):
    id: str
    name: str
    population: str
    state: str
    created_at: str
    rounds: int
    """Wanted."""
    round: int
    committed_rounds: int
    waiting_for: str


class OverviewRun(_OverviewRunRequired, total=False):
    reason: str
    round_kind: Literal["training", "evaluation"]
    best_version: int
    epsilon: float
    metrics: dict[str, dict[str, float]]


class _OverviewProblemRequired(TypedDict):
    code: str
    severity: Literal["error", "warning", "notice"]
    detail: str


class OverviewProblem(_OverviewProblemRequired, total=False):
    run: str
    run_name: str
    population: str
    count: int


class OverviewRecent(TypedDict, total=False):
    run: str
    run_name: str
    round: int
    """0 for a change of the run itself."""
    attempt: int
    at: str
    state: str
    cause: str


class _OverviewRequired(TypedDict):
    role: Literal["viewer", "operator", "admin"]
    """What the caller may do."""
    version: str
    started_at: str
    now: str
    clients: OverviewClients
    populations: list[Population]
    """The first 200."""
    runs: list[OverviewRun]
    """Runs that have not ended, and the newest of the others, oldest first; 200 at most."""
    problems: list[OverviewProblem]
    recent: list[OverviewRecent]
    """The last state changes, newest first."""


class Overview(_OverviewRequired, total=False):
    disk: OverviewDisk
    more_runs: int
    """Runs that are not among `runs`."""


class _PopulationPageRequired(TypedDict):
    items: list[Population]


class PopulationPage(_PopulationPageRequired, total=False):
    next_cursor: str | None


class _BudgetRequired(TypedDict):
    epsilon: float
    delta: float


class Budget(_BudgetRequired, total=False):
    unit: Literal["client"]
    accountant: Literal["auto", "rdp"]
    """rdp: filters judge from the first release on, with the whole delta; for populations that will mix mechanisms."""


class _PopulationRequestRequired(TypedDict):
    name: str


class PopulationRequest(_PopulationRequestRequired, total=False):
    budget: Budget | None


class LedgerRow(TypedDict, total=False):
    sequence: int
    population_id: str
    run_id: str
    round: int
    attempt: int
    state: Literal["reserved", "committed", "released"]
    event: str
    """Canonical JSON of the privacy event."""
    epsilon_after: float
    created_at: str
    previous_hash: str
    row_hash: str
    """SHA-256 of previous_hash, sequence, population_id, run_id, round, attempt, state, event and the milliseconds since 1970 of created_at, joined by newlines; the first row's previous_hash is 64 zeros. epsilon_after is informative and not hashed. Of format 2 it is SHA-256 of "martlet-ledger/2", previous_hash, sequence and the population's head after the row, joined by newlines, whose link is SHA-256 of "martlet-ledger-row/2", population_id, population_number, run_id, round, attempt, state, event and the milliseconds."""
    format: Literal[1, 2]
    population_number: int | None
    """Format 2: place among the population's rows, from 1."""
    population_previous_hash: str | None
    """Format 2: the population's head before the row. Of the first such row it holds all rows of format 1."""


class _LedgerPageRequired(TypedDict):
    items: list[LedgerRow]


class LedgerPage(_LedgerPageRequired, total=False):
    next_cursor: str | None


class LedgerHead(TypedDict):
    population: str
    number: int
    """Rows of the population."""
    hash: str
    """64 hexadecimal digits."""


class _LedgerAuditRequired(TypedDict):
    population: str
    rows: list[dict[str, Any]]
    head: str
    """The last row's hash."""


class LedgerAudit(_LedgerAuditRequired, total=False):
    population_head: LedgerHead


class _BudgetChangeRequired(TypedDict):
    epsilon: float


class BudgetChange(_BudgetChangeRequired, total=False):
    reason: str
    """Needed to raise epsilon."""


class LedgerState(TypedDict, total=False):
    rows: int
    head: str
    alarm: str | None
    """Why private rounds are refused."""
    record: Literal["kept", "unwritable", "unread", "alarm"]
    """The second record; while it is `unwritable` or `unread` private runs wait and go on by themselves."""
    record_reason: str | None
    """Why the second record cannot be kept or read."""
    populations: list[LedgerHead]


class _AcknowledgementRequired(TypedDict):
    reason: str


class Acknowledgement(_AcknowledgementRequired, total=False):
    lost_heads: list[str]
    """Heads that devices or auditors hold and the ledger does not lead to, as POPULATION:NUMBER:HASH, beside those of the server's second record. Devices that hold one go on with the restored ledger and tell their owner."""


class LedgerAcknowledgementsItem(TypedDict, total=False):
    number: int
    """Place among the population's rows."""
    round: int
    attempt: int
    state: str
    event: str
    """JSON with `lost`: heads after `after`, up to `number` with `hash`."""
    created_at_ms: int
    previous_hash: str
    """Where the population's ledger stood before the row, 64 hexadecimal digits."""


class LedgerAcknowledgements(TypedDict):
    items: list[LedgerAcknowledgementsItem]


class _EnrollmentTokenRequestRequired(TypedDict):
    max_uses: int


class EnrollmentTokenRequest(_EnrollmentTokenRequestRequired, total=False):
    expires_in_s: float


class _IssuedTokenRequired(TypedDict):
    id: str
    token: str
    """Shown this once."""
    role: Literal["viewer", "operator", "admin", "enrollment", "client"]
    created_at: str


class IssuedToken(_IssuedTokenRequired, total=False):
    name: str
    expires_at: str


class Capabilities(TypedDict, total=False):
    memory_bytes: int
    cpu_count: int
    accelerator: str
    runtime_version: str
    """Dotted numbers, such as 1.4.2."""
    network: str


class _ClientRequired(TypedDict):
    id: str
    population: str
    state: Literal["registered", "active", "revoked"]
    """`active` from its first work on; work of secret draws does not count."""
    registered_at: str
    participations: dict[str, int]


class Client(_ClientRequired, total=False):
    name: str
    last_seen_at: str
    labels: dict[str, str]
    capabilities: Capabilities
    seconds_per_assignment: float
    """From assignment to update, smoothed; in runs that use it."""
    quarantine_reason: str
    """Why the client gets no work any more."""
    quarantined_at: str


class _ClientPageRequired(TypedDict):
    items: list[Client]


class ClientPage(_ClientPageRequired, total=False):
    next_cursor: str | None


class ClientChange(TypedDict, total=False):
    name: str
    labels: dict[str, str]
    capabilities: Capabilities


class _RunSpecificationModelBaseRequired(TypedDict):
    run: str


class RunSpecificationModelBase(_RunSpecificationModelBaseRequired, total=False):
    version: int
    """Default: the latest one."""


class RunSpecificationModelInitialization(TypedDict, total=False):
    seed: str


class _RunSpecificationModelRequired(TypedDict):
    architecture: Literal["cifg-lstm", "decoder", "tabular", "tabular-statistics", "external", "histogram", "votes", "triehh"]


class RunSpecificationModel(_RunSpecificationModelRequired, total=False):
    config: dict[str, Any]
    """What the architecture reads; a wrong field is refused with its pointer. Text models: `tokenizer` (`{type: char, alphabet}`, `{type: word, vocabulary: [...]}` or `{type: bpe, tokenizer: <tokenizer.json>}`), `window`, `stream`, `carry_state`, `unk_target`, `preset`. cifg-lstm: `vocab_size`, `embedding_dim`, `hidden_dim`. decoder: the keys of `LlamaConfig`, and `lora: {r, lora_alpha, target_modules, train: both|b}`. tabular and tabular-statistics: `schema`; tabular also `hidden`, `l2`, `standardization`."""
    base: RunSpecificationModelBase
    """A published version of another run, which every client fetches once - the frozen model of adapters, or the sums for federated standardization."""
    initialization: RunSpecificationModelInitialization


class RunSpecificationProtection(TypedDict, total=False):
    kind: Literal["none", "helper"]
    domain: str
    """The helper's name for the population; required with helper."""
    bits: Literal[16, 32, 64]
    """Bits of a masked coordinate; default 64 with privacy, else 32."""
    norm: int
    """The longest update in steps of the grid; default: no update is longer."""


class _RunSpecificationAnalyticsRequired(TypedDict):
    method: Literal["histogram", "votes", "triehh"]


class RunSpecificationAnalytics(_RunSpecificationAnalyticsRequired, total=False):
    tokens: Literal["word", "character", "record"]
    """What counts as one word of a text."""
    candidates: list[str]
    """histogram: stored as model.config.tokenizer."""
    words_per_client: int
    """histogram: the words of a client that count, its most used ones."""
    minimum_count: float
    """histogram: lower counts are not shown; default: what noise hardly reaches."""
    threshold: int
    """triehh (stored runs): votes that a prefix needs."""
    epsilon: float
    """triehh (stored runs): of all rounds together; sets cohort.sampling_rate."""
    prefix_limit: int
    """votes: prefixes of one length that are kept, those with the largest noised counts."""


class RunSpecificationCohort(TypedDict, total=False):
    goal: int
    """Updates wanted. There is no default, and the noise of the mean is divided by it."""
    minimum: int
    """Fewer: the attempt is abandoned. Default 80% of the goal, rounded down, and at least 1; with a secret draw (amplification poisson) 0, and nothing else."""
    over_selection: float
    policy: Literal["first_come", "uniform", "poisson", "all"]
    sampling_rate: float
    """Policy poisson: chance of each client in each round."""
    requirements: str
    """A rule such as memory_bytes >= 2e9 && labels.locale == "zh"."""
    minimum_client_version: str
    """Dotted numbers."""
    min_separation_rounds: int
    """Rounds between two participations of one client."""
    lease_s: float
    """Seconds between two signs of life; absent: 60 from the first heartbeat on. A request that brings bytes of an update is a sign of life until it ends."""
    tiers: int
    """Groups by measured speed that share the places alike; over 1 only without privacy."""
    target_seconds: float
    """Training time that steps are given for by measured speed; 0 is off; only without privacy."""
    min_examples: int
    """Examples that an update must stand for; over 1 only without privacy."""
    max_attempts: int
    """Attempts at a round before the run fails; 0 is without limit."""
    retry_backoff_s: float
    """Before the second attempt; doubles each time."""
    selection_timeout_s: float
    report_timeout_s: float
    max_participations: int
    """How often one client takes part in this run; 0 is without limit. With privacy ε grows with it, and it cannot be 0. Default 1 with privacy (mode central or local, and runs of method histogram), the number of rounds with method votes, and 0 without privacy and with `amplification: poisson`."""


class RunSpecificationTrainingData(TypedDict, total=False):
    clean: bool
    language: str
    """Keep records of this language, such as en or zh."""
    minimum_records: int
    minimum_characters: int


class RunSpecificationTrainingLocal(TypedDict, total=False):
    optimizer: Literal["sgd", "momentum", "adam", "adamw"]
    learning_rate: float
    """Default 1; 0.001 with adam and adamw."""
    momentum: float
    """For momentum; default 0.9."""
    beta1: float
    """For adam and adamw; default 0.9."""
    beta2: float
    """For adam and adamw; default 0.999."""
    epsilon: float
    """For adam and adamw; default 1e-8."""
    weight_decay: float
    proximal_mu: float
    """FedProx; pulls each step towards the global model."""
    batch_size: int
    epochs: int
    clip: float
    """Bound on the L2 norm of one step's gradient, for stability only. A step is at most learning_rate times this. Large steps can lose a model in its first rounds; 3 or less was safe for a character model."""


class RunSpecificationTrainingLimits(TypedDict, total=False):
    max_steps: int
    max_examples: int
    max_seconds: float
    """Training that reaches it is sent as it is."""


class RunSpecificationTraining(TypedDict, total=False):
    data: RunSpecificationTrainingData
    """What clients do to their texts before training (not for streams), and what must be left of them."""
    local: RunSpecificationTrainingLocal
    limits: RunSpecificationTrainingLimits
    submit: Literal["delta", "weights", "gradient"]
    """gradient is FedSGD."""
    algorithm: Literal["fedavg", "scaffold"]
    encoding: Literal["f32", "f16", "bf16", "int8", "int4", "topk", "rotated1", "rotated2", "rotated4"]
    """How updates are written; only plain deltas may be compressed."""
    model_encoding: Literal["f32", "f16", "int8"]
    """How clients fetch the model; not with submit weights. Their updates are the difference to what they fetched."""


class RunSpecificationAggregationNormBound2(TypedDict):
    times_median: float


class RunSpecificationAggregationAnomalies(TypedDict, total=False):
    action: Literal["report", "exclude", "quarantine"]
    norm_ratio: float
    """Stands out with a norm over so many times the cohort's median."""
    min_cosine: float
    """Stands out with a cosine below this to the aggregate; under rule mean to the coordinate-wise median."""


class RunSpecificationAggregationOptimizer(TypedDict, total=False):
    name: Literal["sgd", "momentum", "adagrad", "adam", "yogi", "fedavg", "fedavgm", "fedadagrad", "fedadam", "fedyogi"]
    learning_rate: float
    """Default 1; 0.01 with adagrad"""
    momentum: float
    """For momentum; default 0.9."""
    beta1: float
    """Default 0.9; adagrad: 0."""
    beta2: float
    """For adam and yogi; default 0.99."""
    epsilon: float
    """The degree of adaptivity of adagrad"""


class RunSpecificationAggregationExampleCap2(TypedDict):
    times_median: float


class RunSpecificationAggregationBuffered(TypedDict, total=False):
    concurrency: int
    """Clients at work at the same time; twice the goal."""
    buffer: int
    """Updates a version; the cohort's goal."""
    max_staleness: int


class RunSpecificationAggregation(TypedDict, total=False):
    rule: Literal["mean", "median", "trimmed_mean", "krum", "multi_krum", "geometric_median"]
    malicious_fraction: float
    """For trimmed_mean, krum, multi_krum: the share of a cohort to withstand, rounded up."""
    selected_count: int
    """For multi_krum: updates that are averaged; default all but the malicious ones and two."""
    norm_bound: float | Literal["none"] | RunSpecificationAggregationNormBound2
    """Longer updates are scaled down to this L2 norm, or to so many times the median norm of the round's updates (the lower one, of those that are not 0). Default without privacy `{times_median: 10}`; `none` switches it off, and is the default in mode `buffered`, with scaffold and with privacy."""
    anomalies: RunSpecificationAggregationAnomalies
    weighting: Literal["uniform", "examples"]
    """Default examples in runs of kind training without privacy, in mode synchronous, with rule mean and no scaffold; else uniform. With central privacy and examples, example_cap must be given."""
    optimizer: RunSpecificationAggregationOptimizer
    value_bound: float
    example_cap: int | Literal["none"] | RunSpecificationAggregationExampleCap2
    """What one client weighs at most, in `weight_unit`: a number, or so many times the lower median of what the round's clients say, computed when the round closes. Default without privacy `{times_median: 10}`; with privacy and in mode `buffered` a number, by default 1000000. `none` believes every client. Measurements are held in the same way: a client counts for at most ten medians (or `times_median`) of targets or examples, and its loss as at most ten times the median loss."""
    weight_unit: Literal["examples", "tokens"]
    """What weights count: the update's metadata `num_examples`, or `num_tokens`. An update that gives the other one only is refused as `weight_unit_mismatch`."""
    mode: Literal["synchronous", "buffered"]
    buffered: RunSpecificationAggregationBuffered


class RunSpecificationEvaluation(TypedDict, total=False):
    every: int
    """Every so many versions; 0 is never."""
    cohort_goal: int
    minimum: int
    report_timeout_s: float
    noise_multiplier: float
    """z of one evaluation."""
    max_participations: int
    """Evaluations of the run in which one client takes part."""
    metrics: list[str]
    """The rates that are released; each is cut to 0…1, the loss at loss_bound."""
    loss_bound: float
    """Nats a target."""


class _RunSpecificationStopRequired(TypedDict):
    metric: str


class RunSpecificationStop(_RunSpecificationStopRequired, total=False):
    at_least: float
    at_most: float
    patience: int


class RunSpecificationPrivacyClipping(TypedDict, total=False):
    norm: float
    """C, of all layers together; an L1 norm with policy l1."""
    policy: Literal["flat", "per_layer", "l1", "adaptive"]
    """Default flat; l1 goes with mechanism laplace."""
    target_quantile: float
    """Policy adaptive; default 0.5."""
    learning_rate: float
    """Policy adaptive; default 0.2."""
    count_noise: float
    """Policy adaptive: standard deviation of the noise on the count; default a twentieth of the goal."""


class _RunSpecificationPrivacyTargetRequired(TypedDict):
    epsilon: float


class RunSpecificationPrivacyTarget(_RunSpecificationPrivacyTargetRequired, total=False):
    delta: float
    """The population's where absent."""
    calibrated: bool
    """Whether noise_multiplier is the answer."""


class RunSpecificationPrivacy(TypedDict, total=False):
    mode: Literal["none", "central", "local"]
    mechanism: Literal["gaussian", "laplace", "discrete_gaussian", "banded_matrix", "gaussian_sparse_histogram", "sample_and_threshold"]
    """laplace and discrete_gaussian are for small vectors; banded_matrix correlates the noise of central rounds and needs cohort.min_separation_rounds. gaussian_sparse_histogram is that of votes: noise on counts that are not zero, of which those from `threshold` on are published. sample_and_threshold was that of triehh."""
    threshold: float
    """Of votes: the noised count from which on a prefix is published. Default: the least with which all votes of a client together fail with the part of delta that is set aside for it."""
    clipping: RunSpecificationPrivacyClipping
    noise_multiplier: float
    """Scale of the noise over the sensitivity: C in mode central, 2C in mode local. At least 0.1; 0 in the answer of a run without noise. No default: with privacy give it or target."""
    noise_scale: int
    """Of discrete_gaussian: its standard deviation in units of its grid; default 1000."""
    band: int
    """Of banded_matrix: coefficients; default cohort.min_separation_rounds."""
    amplification: Literal["none", "poisson"]
    """poisson: the cost counts on the server's own secret coins (cohort.policy poisson)."""
    target: RunSpecificationPrivacyTarget
    """In place of noise_multiplier, which is the least one that meets it with all rounds."""


class _RunSpecificationRequired(TypedDict):
    population: str
    """Id or name."""


class RunSpecification(_RunSpecificationRequired, total=False):
    name: str
    kind: Literal["training", "analytics"]
    model: RunSpecificationModel
    protection: RunSpecificationProtection
    """How single updates are kept from the server. helper: devices mask their updates, and a second party, the helper that the server's settings name, sums the masks; see docs/helper.md. `norm` goes with privacy mode none only."""
    rounds: int
    """Required to train; default 1 of a histogram, 10 of votes."""
    analytics: RunSpecificationAnalytics
    """What a run of kind analytics finds out without collecting text; `model` and `aggregation` follow from it. histogram: how many clients hold each of `candidates`; an update has a one for each word that a client holds, `words_per_client` of them at most, so privacy.clipping.norm is its square root. votes: words that many clients hold, found character by character; an update is one vote, the tensor `vote` [2] with the place of a prefix in the level before and the Unicode scalar that follows (0: the word ends), or -1 and 0. Votes have noise and a threshold in `privacy`. triehh is read in runs that earlier versions stored, and refused in new ones."""
    cohort: RunSpecificationCohort
    training: RunSpecificationTraining
    aggregation: RunSpecificationAggregation
    evaluation: RunSpecificationEvaluation
    """Versions measured on clients' held-out data. With central privacy each evaluation is a noised release that is charged to the population's budget, and noise_multiplier is required; with local privacy there is none."""
    metrics: list[str]
    """Sums that clients may send with updates and evaluations beside the built-in ones (`tokens`, `loss_tokens`, `steps`, `seconds`, `nll`, `hit1`, `hit3`, `loss`, `top1`, `top3`, `accuracy`) and those that `evaluation.metrics` and `stop.metric` name; others are dropped."""
    stop: RunSpecificationStop
    privacy: RunSpecificationPrivacy


class _RunRequired(TypedDict):
    id: str
    name: str
    population: str
    state: Literal["created", "running", "paused", "completed", "cancelled", "failed"]
    created_at: str
    round: int
    committed_rounds: int
    waiting_for: str
    specification: RunSpecification


class Run(_RunRequired, total=False):
    reason: str
    model_version: int
    model_sha256: str
    epsilon: float
    best_version: int
    """The version to take: the best by the rule to stop, or by what operators or clients measured."""


class _RunPageRequired(TypedDict):
    items: list[Run]


class RunPage(_RunPageRequired, total=False):
    next_cursor: str | None


class RunPlanProtection(TypedDict, total=False):
    kind: str
    domain: str
    bits: int
    update_bytes: int
    step: float
    largest_value: float
    largest_share: float
    """Of the clipping norm."""
    minimum: int
    maximum: int
    noise_multiplier: float
    epsilon_of_each_party: float
    epsilon_of_readers: float
    claim: str


class _RunPlanRequired(TypedDict):
    specification: RunSpecification
    clients: int
    """Clients of the population that may take part now."""
    client_limits: list[str]
    """What one client counts for at most, in words; empty with privacy."""
    warnings: list[str]
    """What would keep the run from its end."""


class RunPlan(_RunPlanRequired, total=False):
    parameter_count: int
    """Absent where the weights are still to be uploaded."""
    model_bytes: int
    bytes_up: int
    """Over all rounds when each has the updates it wants."""
    bytes_down: int
    privacy: dict[str, Any]
    """The cost on the budget: `epsilon`, `population_epsilon`, `rounds_that_fit`, `noise_to_signal` and more; an epsilon that no accountant bounds is the text `Infinity`; absent without privacy."""
    protection: RunPlanProtection
    """What the protection comes to: the ring's bits, the grid's step, the largest coordinate, how many updates a sum has, and epsilon by who looks."""


class RoundTier(TypedDict, total=False):
    tier: int
    assigned: int
    accepted: int


class _RoundRequired(TypedDict):
    run: str
    number: int
    """For an evaluation the version that is measured."""
    attempt: int
    state: Literal["selecting", "reporting", "aggregating", "committed", "abandoned"]
    goal: int
    minimum: int
    assigned: int
    accepted: int
    rejected: int
    failed: int
    expired: int
    excluded: int
    """Accepted updates that stood out and did not count."""
    opened_at: str
    seconds: float
    waiting_for: str


class Round(_RoundRequired, total=False):
    kind: Literal["training", "analytics", "evaluation"]
    reason: str
    capped_weights: int
    """Clients that said more than one may weigh, or whose measurements were held; absent where there is no limit, and with privacy."""
    weight_cap: int
    """What one client weighed at most."""
    capped_norms: int
    """Updates that were scaled down; absent where there is no limit"""
    norm_bound: float
    """The L2 norm that they were scaled down to."""
    bytes_up: int
    """Bytes of accepted updates; of a private run their planned size times their number. Absent where the number of clients is secret."""
    bytes_down: int
    """Bytes of models that were sent while the attempt was open."""
    deadline: str
    closed_at: str
    phase_seconds: dict[str, float]
    """By phase: `selecting`, `reporting`, `aggregating`."""
    model_sha256: str
    epsilon: float
    refusals: dict[str, int]
    """Updates refused and clients failed, by code."""
    metrics: dict[str, dict[str, float]]
    live: dict[str, int]
    """The open attempt's assignments that may still deliver by state."""
    is_secret: bool
    """Whether the cost counts on that nobody learns who was drawn, or how many: counts and bytes are then for the server's staff alone."""
    tiers: list[RoundTier]
    """Shares of the tiers of speed, slowest first."""


class _RoundPageRequired(TypedDict):
    items: list[Round]


class RoundPage(_RoundPageRequired, total=False):
    next_cursor: str | None


class StateChange(TypedDict, total=False):
    attempt: int
    at: str
    state: str
    cause: str
    assignment: str


class _HistoryPageRequired(TypedDict):
    items: list[StateChange]


class HistoryPage(_HistoryPageRequired, total=False):
    next_cursor: str | None


class _CurvesSerieRequired(TypedDict):
    name: str
    """`epsilon`, `bytes_up`, `bytes_down`, `seconds`, or the name of a measurement."""
    points: list[list[float]]
    """Pairs of round and value."""


class CurvesSerie(_CurvesSerieRequired, total=False):
    source: str
    """Who measured."""


class CurvesBest(TypedDict, total=False):
    name: str
    source: str
    version: int
    value: float


class CurvesTotals(TypedDict, total=False):
    bytes_up: int
    bytes_down: int
    attempts: int
    abandoned: int


class _CurvesRequired(TypedDict):
    run: str
    through_round: int
    """The last committed round in the curves."""
    series: list[CurvesSerie]
    best: list[CurvesBest]
    """The best version by each measurement, the one that counts most first."""
    totals: CurvesTotals
    """Over all attempts of the rounds up to `through_round`."""


class Curves(_CurvesRequired, total=False):
    median_seconds: float


class _ModelVersionRequired(TypedDict):
    run: str
    version: int
    sha256: str
    bytes: int
    created_at: str
    url: str


class ModelVersion(_ModelVersionRequired, total=False):
    optimizer_sha256: str
    optimizer_url: str
    control_sha256: str
    clipping_norm: float
    """C of the round that starts from it, where it follows a quantile."""
    control_url: str
    metrics: dict[str, dict[str, float]]
    is_best: bool


class _ModelVersionPageRequired(TypedDict):
    items: list[ModelVersion]


class ModelVersionPage(_ModelVersionPageRequired, total=False):
    next_cursor: str | None


class _MetricsReportRequired(TypedDict):
    metrics: dict[str, float]


class MetricsReport(_MetricsReportRequired, total=False):
    source: str


class _VocabularyItemRequired(TypedDict):
    word: str


class VocabularyItem(_VocabularyItemRequired, total=False):
    count: float
    """Clients that hold the word, noised where the run is private; absent of votes."""


class _VocabularyRequired(TypedDict):
    run: str
    version: int
    method: Literal["histogram", "votes", "triehh"]
    """triehh of runs of earlier versions."""
    hidden: int
    """Candidates that are not shown."""
    unfinished: list[str]
    """Beginnings of words that are longer than the run's rounds (votes)."""
    items: list[VocabularyItem]


class Vocabulary(_VocabularyRequired, total=False):
    count_error: float
    """Standard deviation of the noise on a count; absent of votes."""
    minimum_count: float
    """Lower counts are not shown; absent of votes."""
    threshold: float
    """The noised count that each word had at least (votes)."""
    next_cursor: str | None


class _UpdateScoreRequired(TypedDict):
    run: str
    round: int
    attempt: int
    assignment: str
    client: str
    num_examples: int
    norm: float
    """L2 norm in parameter units."""
    norm_ratio: float
    """The norm over the cohort's median norm."""
    counted: bool


class UpdateScore(_UpdateScoreRequired, total=False):
    cosine: float
    """Cosine to the cohort's aggregate."""
    reason: str
    """Why the update stood out."""


class _UpdateScorePageRequired(TypedDict):
    items: list[UpdateScore]


class UpdateScorePage(_UpdateScorePageRequired, total=False):
    next_cursor: str | None


class _EventRequired(TypedDict):
    id: int
    at: str
    type: Literal["run", "round", "model", "metrics", "budget", "clients"]
    data: dict[str, Any]


class Event(_EventRequired, total=False):
    run: str
    population: str


class _EventPageRequired(TypedDict):
    items: list[Event]


class EventPage(_EventPageRequired, total=False):
    next_cursor: str | None


class _OperatorTokenRequired(TypedDict):
    id: str
    role: Literal["viewer", "operator", "admin", "enrollment", "client"]
    created_at: str


class OperatorToken(_OperatorTokenRequired, total=False):
    name: str
    population: str
    """Of an enrollment token."""
    client: str
    """Of a client's own token."""
    uses_left: int
    created_by: str
    """The id of the token that made it."""
    expires_at: str
    last_used_at: str
    """Since the server started."""


class _OperatorTokenPageRequired(TypedDict):
    items: list[OperatorToken]


class OperatorTokenPage(_OperatorTokenPageRequired, total=False):
    next_cursor: str | None


class _TokenRequestRequired(TypedDict):
    role: Literal["viewer", "operator", "admin"]
    name: str


class TokenRequest(_TokenRequestRequired, total=False):
    expires_in_s: float


class TokenRotationRequest(TypedDict, total=False):
    grace_period_s: float
    """How long the old text goes on working."""


class _AuditActionRequired(TypedDict):
    sequence: int
    at: str
    actor: str
    """The id of the token that was used; `open` on a server without authentication."""
    role: Literal["viewer", "operator", "admin"]
    address: str
    """The network address the request came from."""
    action: str
    """Method and route. `refused requests without a row` counts, in `target`, those of a token that had too many."""
    target: str
    """The path."""
    outcome: Literal["done", "refused"]
    """After a row `done` of the same request, `refused` says that only a part of it was done."""
    request_id: str


class AuditAction(_AuditActionRequired, total=False):
    actor_name: str
    code: str
    """Why it was refused."""


class _AuditPageRequired(TypedDict):
    items: list[AuditAction]


class AuditPage(_AuditPageRequired, total=False):
    next_cursor: str | None
