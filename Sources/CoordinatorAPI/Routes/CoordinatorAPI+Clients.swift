import Coordination
import HTTPServing
import HTTPTypes
import WireFormat

extension CoordinatorAPI {
    /// Clients: how they come, what is known about them, and how they go.
    func addClientRoutes(to routes: inout EndpointRoutes) {
        routes.addKnowingCaller(Endpoints.register) { request, enrollmentTokenHash in
            let key = HTTPField.Name("Idempotency-Key").flatMap { request.headers[$0] }
            guard (key?.utf8.count ?? 1) <= 200 else {
                throw ParseFailure(status: 400, detail: "Idempotency-Key may have at most 200 bytes")
            }
            if let key { try noteRenewal("registration " + enrollmentTokenHash + key) }
            let body = try RegistrationRequest.read(await Self.clientDocument(request))
            let registered = try await step(request) {
                try $0.register(
                    enrollmentTokenHash: enrollmentTokenHash,
                    body,
                    idempotencyKey: key,
                    certificateKey: request.peerKey
                )
            }
            return try Self.created(registered, at: Endpoints.client(ClientReference(registered.clientId)))
        }
        routes.add(Endpoints.clients) { request in
            let (limit, cursor) = try request.page()
            return try await Self.list(coordinator.listClients(from: cursor ?? 0, limit: limit))
        }
        routes.add(Endpoints.client) { request, client in
            try Self.tagged(await coordinator.clientView(client.text), request)
        }
        routes.addKnowingCaller(Endpoints.changeClient) { request, caller, client in
            let id = client.text
            if caller == .client(id: id) { try noteRenewal("client " + id) }
            let body = try ClientChange.read(await Self.clientDocument(request))
            return try Self.json(
                await change(request, of: { try $0.client(id) }) { try $0.changeClient(id, body) }
            )
        }
        routes.add(Endpoints.revokeClient) { request, client in
            let id = client.text
            try await change(request, of: { try $0.client(id) }) { try $0.revokeClient(id) }
            return ServerResponse(status: 204)
        }
        routes.add(Endpoints.clientUpdates) { request, client in
            try await Self.list(coordinator.updateScores(client: client.text), request)
        }
        routes.add(Endpoints.releaseClient) { request, client in
            let id = client.text
            try await change(request, of: { try $0.client(id) }) { try $0.releaseClient(id) }
            return ServerResponse(status: 204)
        }
    }
}
