import Coordination
import Foundation
import HTTPServing
import WireFormat

extension CoordinatorAPI {
    /// What operators did.
    func addAuditRoutes(to routes: inout EndpointRoutes) {
        routes.add(Endpoints.audit) { request in
            let query = try Self.auditQuery(request)
            let rows = try await coordinator.auditRows(query)
            let next = rows.count == query.limit ? rows.last?.sequence.map(String.init) : nil
            return try Self.json(Page(items: rows.map(AuditEntry.init), nextCursor: next))
        }
    }

    private static func auditQuery(_ request: ServerRequest) throws -> AuditQuery {
        let (limit, before) = try request.page(limit: 100)
        let outcome = try request.query["outcome"].map { text in
            guard let outcome = AuditOutcome(rawValue: text) else {
                throw ParseFailure(status: 400, detail: "outcome must be done or refused")
            }
            return outcome
        }
        let since = try request.query["since"].map { text in
            let plain = try? Date.ISO8601FormatStyle().parse(text)
            guard let date = Date(wireTimestamp: text) ?? plain
            else {
                throw ParseFailure(status: 400, detail: "since must be a time such as 2026-01-31T08:00:00Z")
            }
            return date
        }
        return AuditQuery(
            before: before,
            limit: limit,
            actor: request.query["actor"],
            action: request.query["action"],
            outcome: outcome,
            since: since
        )
    }
}

extension AuditEntry {
    fileprivate init(_ row: AuditRow) {
        self.init(
            sequence: row.sequence ?? 0,
            at: row.at.wireTimestamp,
            actor: row.actor,
            actorName: row.actorName,
            role: row.role,
            address: row.address,
            action: row.action,
            target: row.target,
            outcome: row.outcome,
            code: row.code,
            requestId: row.requestId
        )
    }
}
