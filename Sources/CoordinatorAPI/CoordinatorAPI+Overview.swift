import Coordination
import HTTPServing
import HTTPTypes
import WireFormat

extension CoordinatorAPI {
    /// What the dashboard reads: the whole server at a glance, and measurements of models.
    func addOverviewRoutes(to router: inout Router) {
        router.add("GET", "/v1/overview") { request in
            guard let role = try await principal(request).staffRole else { throw Self.forbidden }
            return try Self.json(await coordinator.overview(role: role))
        }
        router.add("POST", "/v1/runs/{run}/models/{version}/metrics") { request in
            try await requireOperator(request)
            let report = try MetricsReport.read(await Self.document(request))
            let view = try await coordinator.reportMetrics(
                run: request.parameters["run"] ?? "",
                version: request.parameters["version"] ?? "",
                report
            )
            return try Self.json(view, status: 201)
        }
    }
}
