import Coordination
import Foundation
import HTTPServing
import WireFormat

extension CoordinatorAPI {
    /// Tokens of staff, and the token that a request comes with.
    func addTokenRoutes(to routes: inout EndpointRoutes) {
        routes.addKnowingCaller(Endpoints.createToken) { request, staff in
            let body = try TokenRequest.read(await Self.document(request))
            let issued = try await step(request) { try $0.createToken(body, by: staff.id) }
            return try Self.created(issued, at: Endpoints.token(TokenReference(issued.id)))
        }
        routes.add(Endpoints.tokens) { request in
            let (limit, cursor) = try request.page()
            return try await Self.list(coordinator.listTokens(after: cursor ?? 0, limit: limit))
        }
        routes.addKnowingCaller(Endpoints.token) { request, caller, token in
            guard token == .current else { return try Self.tagged(await coordinator.token(token.text), request) }
            guard caller != .open, let text = try Self.bearer(request) else {
                return try Self.json(TokenView(id: "open", role: .admin, createdAt: Date().wireTimestamp))
            }
            return try Self.tagged(await coordinator.token(presented: text), request)
        }
        routes.addKnowingCaller(Endpoints.rotateToken) { request, caller, token in
            if token == .current { return try await rotateOwnToken(request, caller) }
            let body = try TokenRotationRequest.read(await Self.clientDocument(request))
            let issued = try await change(request, of: { try $0.token(token.text) }) {
                try $0.rotateToken(token.text, gracePeriod: body.gracePeriodS)
            }
            return try Self.json(issued, status: 201)
        }
        routes.add(Endpoints.revokeToken) { request, token in
            try await change(request, of: { try $0.token(token.text) }) { try $0.revokeToken(token.text) }
            return ServerResponse(status: 204)
        }
    }

    private func rotateOwnToken(_ request: ServerRequest, _ caller: Principal) async throws -> ServerResponse {
        guard caller != .open, let text = try Self.bearer(request) else {
            throw CoordinationError(.notFound, "not_found", "no token was sent")
        }
        try noteRenewal(caller.key)
        let body = try TokenRotationRequest.read(await Self.clientDocument(request))
        let issued = try await change(
            request,
            of: { try $0.token(presented: text) },
            { try $0.rotateToken(presented: text, gracePeriod: body.gracePeriodS) }
        )
        return try Self.json(issued, status: 201)
    }
}
