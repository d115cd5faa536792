import Coordination
import HTTPServing
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
            return try Self.json(await coordinator.acknowledgeRollback(reason: body.reason))
        }
    }
}
