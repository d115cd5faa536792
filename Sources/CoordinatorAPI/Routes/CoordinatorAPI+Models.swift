import Coordination
import Foundation
import HTTPServing
import HTTPTypes
import Tensors
import WireFormat

extension CoordinatorAPI {
    /// Model versions and what was measured of them; their files are in ``addDownloadRoutes(to:)``.
    func addModelRoutes(to routes: inout EndpointRoutes) {
        routes.add(Endpoints.putModel) { try await putModel($0, $1) }
        routes.add(Endpoints.models) { request, run in
            let (limit, cursor) = try request.page()
            return try await Self.list(coordinator.models(run: run.text, from: cursor ?? 0, limit: limit))
        }
        routes.add(Endpoints.model) { request, run, version in
            try Self.tagged(await coordinator.model(run: run.text, version: version.text), request)
        }
        routes.add(Endpoints.reportMetrics) { request, run, version in
            let report = try MetricsReport.read(await Self.document(request))
            let view = try await step(request) {
                try $0.reportMetrics(run: run.text, version: version.text, report)
            }
            return try Self.json(view, status: 201)
        }
    }

    /// Takes a run's first version.
    private func putModel(_ request: ServerRequest, _ run: RunReference) async throws -> ServerResponse {
        _ = try await coordinator.run(run.text)
        try Self.requireBulkType(request)
        let path = coordinator.blobs.spoolPath(Secrets.identifier("model") + ".part")
        defer { coordinator.blobs.removeAtOnce([path]) }
        let received = try await BodySpool.receive(
            request,
            path: path,
            byteLimit: coordinator.configuration.modelByteLimit
        )
        try await DiskQueue.run { try ModelAdmission.check(path) }
        try await SyncQueue.shared.sync(received)
        let sha256 = try received.digest().hexadecimal
        return try Self.json(
            await step(request) { try $0.putInitialModel(run: run.text, spoolFile: path, sha256: sha256) },
            status: 201
        )
    }

    static func requireBulkType(_ request: ServerRequest) throws {
        let type = request.headers[.contentType] ?? "application/octet-stream"
        guard ["application/vnd.safetensors", "application/octet-stream"].contains(type) else {
            throw ParseFailure(status: 415, detail: "send application/vnd.safetensors, not \(type)")
        }
    }
}
