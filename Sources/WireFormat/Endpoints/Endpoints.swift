/// Everything that a server can be asked: the one table of methods, paths, roles and bodies.
///
/// `openapi.yaml` describes the same endpoints; a test holds the two together, and another asks a server for every row with
/// every role.
package enum Endpoints {
    // MARK: - Server

    package static let health = Endpoint<Anybody, NoDocument, HealthView>(.get, "/healthz", .anybody)
    package static let readiness = Endpoint<Anybody, NoDocument, HealthView>(.get, "/readyz", .anybody)
    package static let dashboard = Endpoint<Anybody, NoDocument, Octets>(.get, "/", .anybody)
    package static let reference = Endpoint<Anybody, NoDocument, Octets>(.get, "/docs", .anybody)
    package static let description = Endpoint<Anybody, NoDocument, Octets>(.get, "/openapi.yaml", .anybody)
    package static let metrics = Endpoint<Staff, NoDocument, Octets>(.get, "/metrics", .viewer)
    package static let overview = Endpoint<Staff, NoDocument, OverviewView>(.get, "/v1/overview", .viewer)
    package static let events = Endpoint<Staff, NoDocument, Page<StoredEvent>>(.get, "/v1/events", .viewer)
    package static let audit = Endpoint<Staff, NoDocument, Page<AuditEntry>>(.get, "/v1/audit", .viewer)

    // MARK: - Tokens

    package static let createToken = Endpoint<Staff, TokenRequest, IssuedToken>(.post, "/v1/tokens", .admin)
    package static let tokens = Endpoint<Staff, NoDocument, Page<TokenView>>(.get, "/v1/tokens", .admin)
    package static let token = Endpoint<TokenHolders, NoDocument, TokenView, TokenReference>(
        .get,
        "/v1/tokens/{token}",
        .tokenItself
    )
    package static let rotateToken = Endpoint<TokenHolders, TokenRotationRequest, IssuedToken, TokenReference>(
        .post,
        "/v1/tokens/{token}/rotate",
        .tokenItself
    )
    package static let revokeToken = Endpoint<Staff, NoDocument, NoDocument, TokenReference>(
        .delete,
        "/v1/tokens/{token}",
        .admin
    )

    // MARK: - Populations and their ledger

    package static let createPopulation = Endpoint<Staff, PopulationRequest, PopulationView>(
        .post,
        "/v1/populations",
        .admin
    )
    package static let populations = Endpoint<Staff, NoDocument, Page<PopulationView>>(
        .get,
        "/v1/populations",
        .viewer
    )
    package static let population = Endpoint<Staff, NoDocument, PopulationView, PopulationReference>(
        .get,
        "/v1/populations/{population}",
        .viewer
    )
    package static let changeBudget = Endpoint<Staff, BudgetChangeRequest, PopulationView, PopulationReference>(
        .patch,
        "/v1/populations/{population}/budget",
        .admin
    )
    package static let createEnrollmentToken = Endpoint<
        Staff, EnrollmentTokenRequest, IssuedToken, PopulationReference
    >(
        .post,
        "/v1/populations/{population}/enrollment-tokens",
        .admin
    )
    package static let ledger = Endpoint<Staff, NoDocument, LedgerStateView>(.get, "/v1/ledger", .viewer)
    package static let acknowledgeRollback = Endpoint<Staff, AcknowledgementRequest, LedgerStateView>(
        .post,
        "/v1/ledger/acknowledgement",
        .admin
    )
    package static let populationLedger = Endpoint<Staff, NoDocument, Page<LedgerRowView>, PopulationReference>(
        .get,
        "/v1/populations/{population}/ledger",
        .viewer
    )
    package static let ledgerLinks = Endpoint<TokenHolders, NoDocument, Octets, PopulationReference>(
        .get,
        "/v1/populations/{population}/ledger/links",
        .populationReader
    )
    package static let ledgerAcknowledgements = Endpoint<
        TokenHolders, NoDocument, LedgerAcknowledgements, PopulationReference
    >(
        .get,
        "/v1/populations/{population}/ledger/acknowledgements",
        .populationReader
    )

    // MARK: - Clients

    package static let register = Endpoint<Enrollees, RegistrationRequest, RegistrationResponse>(
        .post,
        "/v1/clients",
        .enrollment
    )
    package static let clients = Endpoint<Staff, NoDocument, Page<ClientView>>(.get, "/v1/clients", .viewer)
    package static let client = Endpoint<TokenHolders, NoDocument, ClientView, ClientReference>(
        .get,
        "/v1/clients/{client}",
        .clientItself(orStaff: .viewer)
    )
    package static let changeClient = Endpoint<TokenHolders, ClientChange, ClientView, ClientReference>(
        .patch,
        "/v1/clients/{client}",
        .clientItself(orStaff: .operator)
    )
    package static let revokeClient = Endpoint<Staff, NoDocument, NoDocument, ClientReference>(
        .delete,
        "/v1/clients/{client}",
        .operator
    )
    package static let clientUpdates = Endpoint<Staff, NoDocument, Page<UpdateScoreView>, ClientReference>(
        .get,
        "/v1/clients/{client}/updates",
        .viewer
    )
    package static let releaseClient = Endpoint<Staff, NoDocument, NoDocument, ClientReference>(
        .delete,
        "/v1/clients/{client}/quarantine",
        .operator
    )

    // MARK: - Runs

    package static let createRun = Endpoint<Staff, Octets, RunView>(.post, "/v1/runs", .operator)
    package static let runs = Endpoint<Staff, NoDocument, Page<RunView>>(.get, "/v1/runs", .viewer)
    package static let run = Endpoint<Staff, NoDocument, RunView, RunReference>(.get, "/v1/runs/{run}", .viewer)
    package static let startRun = Endpoint<Staff, NoDocument, RunView, RunReference>(
        .post,
        "/v1/runs/{run}/start",
        .operator
    )
    package static let pauseRun = Endpoint<Staff, NoDocument, RunView, RunReference>(
        .post,
        "/v1/runs/{run}/pause",
        .operator
    )
    package static let resumeRun = Endpoint<Staff, NoDocument, RunView, RunReference>(
        .post,
        "/v1/runs/{run}/resume",
        .operator
    )
    package static let cancelRun = Endpoint<Staff, NoDocument, RunView, RunReference>(
        .post,
        "/v1/runs/{run}/cancel",
        .operator
    )
    package static let curves = Endpoint<Staff, NoDocument, CurvesView, RunReference>(
        .get,
        "/v1/runs/{run}/curves",
        .viewer
    )
    package static let runMetrics = Endpoint<Staff, NoDocument, Page<RoundView>, RunReference>(
        .get,
        "/v1/runs/{run}/metrics",
        .viewer
    )
    package static let tokenizer = Endpoint<TokenHolders, NoDocument, Octets, RunReference>(
        .get,
        "/v1/runs/{run}/tokenizer",
        .modelReader
    )

    // MARK: - Rounds

    package static let rounds = Endpoint<Staff, NoDocument, Page<RoundView>, RunReference>(
        .get,
        "/v1/runs/{run}/rounds",
        .viewer
    )
    package static let round = Endpoint<Staff, NoDocument, RoundView, RunReference, RoundReference>(
        .get,
        "/v1/runs/{run}/rounds/{round}",
        .viewer
    )
    package static let roundHistory = Endpoint<Staff, NoDocument, Page<HistoryView>, RunReference, RoundReference>(
        .get,
        "/v1/runs/{run}/rounds/{round}/history",
        .viewer
    )
    package static let roundUpdates = Endpoint<
        Staff, NoDocument, Page<UpdateScoreView>, RunReference, RoundReference
    >(
        .get,
        "/v1/runs/{run}/rounds/{round}/updates",
        .viewer
    )
    package static let evaluations = Endpoint<Staff, NoDocument, Page<RoundView>, RunReference>(
        .get,
        "/v1/runs/{run}/evaluations",
        .viewer
    )
    package static let evaluationHistory = Endpoint<
        Staff, NoDocument, Page<HistoryView>, RunReference, RoundReference
    >(
        .get,
        "/v1/runs/{run}/evaluations/{round}/history",
        .viewer
    )

    // MARK: - Models

    package static let putModel = Endpoint<Staff, Octets, ModelVersionView, RunReference>(
        .put,
        "/v1/runs/{run}/model",
        .operator
    )
    package static let models = Endpoint<Staff, NoDocument, Page<ModelVersionView>, RunReference>(
        .get,
        "/v1/runs/{run}/models",
        .viewer
    )
    package static let model = Endpoint<
        TokenHolders, NoDocument, ModelVersionView, RunReference, VersionReference
    >(
        .get,
        "/v1/runs/{run}/models/{version}",
        .modelReader
    )
    package static let reportMetrics = Endpoint<
        Staff, MetricsReport, ModelVersionView, RunReference, VersionReference
    >(
        .post,
        "/v1/runs/{run}/models/{version}/metrics",
        .operator
    )
    package static let weights = Endpoint<TokenHolders, NoDocument, Octets, RunReference, VersionReference>(
        .get,
        "/v1/runs/{run}/models/{version}/weights",
        .modelReader
    )
    package static let optimizerState = Endpoint<Staff, NoDocument, Octets, RunReference, VersionReference>(
        .get,
        "/v1/runs/{run}/models/{version}/optimizer",
        .viewer
    )
    package static let controlVariate = Endpoint<TokenHolders, NoDocument, Octets, RunReference, VersionReference>(
        .get,
        "/v1/runs/{run}/models/{version}/control",
        .modelReader
    )
    package static let archive = Endpoint<TokenHolders, NoDocument, Octets, RunReference, VersionReference>(
        .get,
        "/v1/runs/{run}/models/{version}/archive",
        .modelReader
    )
    package static let words = Endpoint<Staff, NoDocument, VocabularyView, RunReference, VersionReference>(
        .get,
        "/v1/runs/{run}/models/{version}/words",
        .viewer
    )

    // MARK: - Participation

    package static let checkIn = Endpoint<Clients, CheckInRequest, CheckInResponse>(.post, "/v1/checkins", .client)
    package static let assignment = Endpoint<Clients, NoDocument, AssignmentBody, AssignmentReference>(
        .get,
        "/v1/assignments/{assignment}",
        .client
    )
    package static let heartbeat = Endpoint<Clients, HeartbeatRequest, HeartbeatResponse, AssignmentReference>(
        .post,
        "/v1/assignments/{assignment}/heartbeat",
        .client
    )
    package static let failure = Endpoint<Clients, FailureReport, NoDocument, AssignmentReference>(
        .post,
        "/v1/assignments/{assignment}/failure",
        .client
    )
    package static let putUpdate = Endpoint<Clients, Octets, UpdateReceipt, AssignmentReference>(
        .put,
        "/v1/assignments/{assignment}/update",
        .client
    )
    package static let updateState = Endpoint<Clients, NoDocument, NoDocument, AssignmentReference>(
        .head,
        "/v1/assignments/{assignment}/update",
        .client
    )
    package static let appendToUpdate = Endpoint<Clients, Octets, UpdateReceipt, AssignmentReference>(
        .patch,
        "/v1/assignments/{assignment}/update",
        .client
    )

    // MARK: - All

    /// Every endpoint.
    package static let all: [EndpointRow] =
        [
            health.row, readiness.row, dashboard.row, reference.row, description.row, metrics.row, overview.row,
            events.row, audit.row,
        ] + [createToken.row, tokens.row, token.row, rotateToken.row, revokeToken.row]
        + [
            createPopulation.row, populations.row, population.row, changeBudget.row, createEnrollmentToken.row,
            ledger.row, acknowledgeRollback.row, populationLedger.row, ledgerLinks.row, ledgerAcknowledgements.row,
        ]
        + [
            register.row, clients.row, client.row, changeClient.row, revokeClient.row, clientUpdates.row,
            releaseClient.row,
        ]
        + [
            createRun.row, runs.row, run.row, startRun.row, pauseRun.row, resumeRun.row, cancelRun.row, curves.row,
            runMetrics.row, tokenizer.row,
        ]
        + [
            rounds.row, round.row, roundHistory.row, roundUpdates.row, evaluations.row, evaluationHistory.row,
        ]
        + [
            putModel.row, models.row, model.row, reportMetrics.row, weights.row, optimizerState.row,
            controlVariate.row, archive.row, words.row,
        ]
        + [
            checkIn.row, assignment.row, heartbeat.row, failure.row, putUpdate.row, updateState.row,
            appendToUpdate.row,
        ]
}
