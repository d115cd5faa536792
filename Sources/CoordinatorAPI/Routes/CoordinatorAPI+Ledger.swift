import Coordination
import HTTPServing
import HTTPTypes
import WireFormat

extension CoordinatorAPI {
    /// The ledger of all populations, and that of one.
    func addLedgerRoutes(to routes: inout EndpointRoutes) {
        routes.add(Endpoints.ledger) { _ in try Self.json(await coordinator.ledgerState()) }
        routes.add(Endpoints.acknowledgeRollback) { request in
            let body = try AcknowledgementRequest.read(await Self.document(request))
            return try Self.json(
                await step(request) { try $0.acknowledgeRollback(reason: body.reason, lostHeads: body.lostHeads) }
            )
        }
        routes.add(Endpoints.populationLedger) { request, population in
            switch try request.choice("format", default: LedgerFormat.json) {
            case .audit: return try Self.json(await coordinator.ledgerAudit(population: population.text))
            case .json:
                let (limit, cursor) = try request.page()
                let rows = try await coordinator.ledgerRows(
                    population: population.text,
                    from: cursor ?? 0,
                    limit: limit
                )
                return try await Self.list(Listing(items: rows.map(LedgerRowView.init), next: rows.next))
            case .jsonl: return try await ledgerLines(request, population)
            }
        }
        routes.addKnowingCaller(Endpoints.ledgerLinks) { request, caller, population in
            let bytes = try await coordinator.ledgerLinks(
                population: population.text,
                after: try request.integer("from", default: 0, in: 0...ServerRequest.greatestNumber),
                client: caller.clientID
            )
            return ServerResponse(
                status: 200,
                headers: [.contentType: "application/octet-stream"],
                body: .bytes(bytes)
            )
        }
        routes.addKnowingCaller(Endpoints.ledgerAcknowledgements) { _, caller, population in
            try Self.json(
                await coordinator.ledgerAcknowledgements(population: population.text, client: caller.clientID)
            )
        }
    }

    /// How a population's ledger is shown.
    private enum LedgerFormat: String, CaseIterable {
        case json, jsonl, audit
    }

    /// The whole ledger, a row a line.
    private func ledgerLines(
        _ request: ServerRequest,
        _ population: PopulationReference
    ) async throws -> ServerResponse {
        let first = try await coordinator.ledgerRows(population: population.text, limit: 1000)
        return ServerResponse(
            status: 200,
            headers: [.contentType: "application/jsonl"],
            body: .stream { send in
                var part = first
                while true {
                    for row in part { try await send(Array(try WireCoding.encode(LedgerRowView(row))) + [10]) }
                    guard let next = part.next else { return }
                    // A caller that reads slowly has the rest no longer than its token.
                    part = try await step(request) {
                        try $0.ledgerRows(population: population.text, from: next, limit: 1000)
                    }
                }
            }
        )
    }
}

extension Principal {
    /// The client that asks, whose population it has to be; `nil` for staff.
    fileprivate var clientID: String? {
        if case .client(let id) = self { return id }
        return nil
    }
}

extension LedgerRowView {
    fileprivate init(_ row: LedgerRow) {
        self.init(
            sequence: row.sequence,
            populationId: row.populationId,
            runId: row.runId,
            round: row.round,
            attempt: row.attempt,
            state: row.state,
            event: row.event,
            epsilonAfter: row.epsilonAfter,
            createdAt: row.createdAt.wireTimestamp,
            previousHash: row.previousHash,
            rowHash: row.rowHash,
            format: row.format,
            populationNumber: row.populationNumber,
            populationPreviousHash: row.populationPreviousHash
        )
    }
}
