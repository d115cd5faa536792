import Coordination
import Foundation
import HTTPServing
import WireFormat

extension CoordinatorAPI {
    /// What stands for the id of the token that a request comes with.
    private static let currentToken = "current"

    func addTokenRoutes(to router: inout Router) {
        router.add("POST", "/v1/tokens") { request in
            let creator = try await require(.admin, request)
            let body = try TokenRequest.read(await Self.document(request))
            let issued = try await coordinator.createToken(body, by: creator)
            return try Self.created(issued, at: "/v1/tokens/\(issued.id)")
        }
        router.add("GET", "/v1/tokens") { request in
            try await requireAdmin(request)
            let (limit, cursor) = try request.page()
            return try Self.list(await coordinator.listTokens(after: cursor ?? 0, limit: limit))
        }
        router.add("GET", "/v1/tokens/{token}") { request in
            let id = request.parameters["token"] ?? ""
            guard id == Self.currentToken else {
                try await requireAdmin(request)
                return try Self.tagged(await coordinator.token(id), request)
            }
            guard try await principal(request) != .open, let token = try Self.bearer(request) else {
                return try Self.json(TokenView(id: "open", role: .admin, createdAt: Date().wireTimestamp))
            }
            return try Self.tagged(await coordinator.token(presented: token), request)
        }
        router.add("POST", "/v1/tokens/{token}/rotate") { request in
            let id = request.parameters["token"] ?? ""
            let caller = try await principal(request)
            if id == Self.currentToken {
                guard caller != .open, let token = try Self.bearer(request) else {
                    throw CoordinationError(.notFound, "not_found", "no token was sent")
                }
                try noteRenewal(caller.key)
                let body = try TokenRotationRequest.read(await Self.clientDocument(request))
                let issued = try await change(request, of: { try $0.token(presented: token) }) {
                    try $0.rotateToken(presented: token, gracePeriod: body.gracePeriodS)
                }
                return try Self.json(issued, status: 201)
            }
            try await requireAdmin(request)
            let body = try TokenRotationRequest.read(await Self.clientDocument(request))
            let issued = try await change(request, of: { try $0.token(id) }) {
                try $0.rotateToken(id, gracePeriod: body.gracePeriodS)
            }
            return try Self.json(issued, status: 201)
        }
        router.add("DELETE", "/v1/tokens/{token}") { request in
            try await requireAdmin(request)
            let id = request.parameters["token"] ?? ""
            try await change(request, of: { try $0.token(id) }) { try $0.revokeToken(id) }
            return ServerResponse(status: 204)
        }
        router.add("GET", "/v1/audit") { request in
            try await requireViewer(request)
            let query = try Self.auditQuery(request)
            let rows = try await coordinator.auditRows(query)
            let next = rows.count == query.limit ? rows.last?.sequence.map(String.init) : nil
            return try Self.json(AuditPage(items: rows.map(AuditRowView.init), nextCursor: next))
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

private struct AuditPage: Encodable {
    var items: [AuditRowView]
    var nextCursor: String?
}

/// An audit row as it is shown.
private struct AuditRowView: Encodable {
    var sequence: Int
    var at: String
    var actor: String
    var actorName: String?
    var role: StaffRole
    var address: String
    var action: String
    var target: String
    var outcome: AuditOutcome
    var code: String?
    var requestId: String

    init(_ row: AuditRow) {
        sequence = row.sequence ?? 0
        at = row.at.wireTimestamp
        actor = row.actor
        actorName = row.actorName
        role = row.role
        address = row.address
        action = row.action
        target = row.target
        outcome = row.outcome
        code = row.code
        requestId = row.requestId
    }
}
