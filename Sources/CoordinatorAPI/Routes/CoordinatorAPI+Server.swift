import Coordination
import HTTPServing
import HTTPTypes
import WireFormat

extension CoordinatorAPI {
    /// The server as a whole: whether it works, and what it does.
    func addServerRoutes(to routes: inout EndpointRoutes) {
        let healthy = ServerResponse(
            status: 200,
            headers: [.contentType: "application/json"],
            body: .bytes(Array(#"{"status":"ok"}"#.utf8) + [10])
        )
        routes.addKnowingCaller(
            Endpoints.health,
            immediately: { Self.takesJSON($0) ? healthy : nil },
            otherwise: { _, _ in healthy }
        )
        routes.add(Endpoints.readiness) { _ in
            try await coordinator.checkStorage()
            return try Self.json(
                HealthView(status: "ready", ledgerRecord: await coordinator.ledgerRecordState)
            )
        }
        routes.add(Endpoints.metrics) { _ in
            ServerResponse(
                status: 200,
                headers: [.contentType: "text/plain; version=0.0.4; charset=utf-8"],
                body: .bytes(Array(await coordinator.metricsExposition().utf8))
            )
        }
        routes.addKnowingCaller(Endpoints.overview) { _, staff in
            try Self.json(await coordinator.overview(role: staff.role))
        }
    }
}
