import Coordination
import HTTPServing
import HTTPTypes
import WireFormat

extension CoordinatorAPI {
    /// Budgets and the ledger's state.
    func addPrivacyRoutes(to router: inout Router) {
        router.add("PATCH", "/v1/populations/{population}/budget") { request in
            try await requireAdmin(request)
            let body = try BudgetChangeRequest.read(await Self.document(request))
            let id = request.parameters["population"] ?? ""
            return try Self.json(
                await change(request, of: { try $0.population(id) }) { try $0.changeBudget(population: id, body) }
            )
        }
        router.add("GET", "/v1/ledger") { request in
            try await requireViewer(request)
            return try Self.json(await coordinator.ledgerState())
        }
        router.add("POST", "/v1/ledger/acknowledgement") { request in
            try await requireAdmin(request)
            let body = try AcknowledgementRequest.read(await Self.document(request))
            return try Self.json(
                await coordinator.acknowledgeRollback(reason: body.reason, lostHeads: body.lostHeads)
            )
        }
        router.add("GET", "/v1/populations/{population}/ledger/links") { request in
            let bytes = try await coordinator.ledgerLinks(
                population: request.parameters["population"] ?? "",
                after: try request.integer("from", default: 0, in: 0...ServerRequest.greatestNumber),
                client: try await ledgerReader(request)
            )
            return ServerResponse(
                status: 200,
                headers: [.contentType: "application/octet-stream"],
                body: .bytes(bytes)
            )
        }
        router.add("GET", "/v1/populations/{population}/ledger/acknowledgements") { request in
            try Self.json(
                await coordinator.ledgerAcknowledgements(
                    population: request.parameters["population"] ?? "",
                    client: try await ledgerReader(request)
                )
            )
        }
    }

    /// The client that asks, whose population it has to be; `nil` for staff.
    private func ledgerReader(_ request: ServerRequest) async throws -> String? {
        switch try await principal(request) {
        case .staff: nil
        case .client(let id): id
        default: throw Self.forbidden
        }
    }
}
