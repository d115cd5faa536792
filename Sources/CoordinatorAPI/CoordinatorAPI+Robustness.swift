import Coordination
import Foundation
import HTTPServing
import WireFormat

/// What belongs to a version beside its weights, and what is known of single updates.
extension CoordinatorAPI {
    func addRobustnessRoutes(to router: inout Router) {
        router.add("GET", "/v1/runs/{run}/models/{version}/optimizer") { request in
            try await requireViewer(request)
            let version = try await model(request)
            return try await companion(
                version.optimizerSha256,
                "the optimizer remembers nothing after this version",
                request
            )
        }
        router.add("GET", "/v1/runs/{run}/models/{version}/control") { request in
            try await requireReader(request)
            let version = try await model(request)
            return try await companion(version.controlSha256, "this version has no control variate", request)
        }
        router.add("GET", "/v1/runs/{run}/rounds/{round}/updates") { request in
            try await requireViewer(request)
            let scores = try await coordinator.updateScores(
                run: request.parameters["run"] ?? "",
                round: try Self.roundNumber(request)
            )
            return try Self.list(scores, request)
        }
        router.add("GET", "/v1/clients/{client}/updates") { request in
            try await requireViewer(request)
            return try Self.list(
                await coordinator.updateScores(client: request.parameters["client"] ?? ""),
                request
            )
        }
        router.add("DELETE", "/v1/clients/{client}/quarantine") { request in
            try await requireOperator(request)
            let id = request.parameters["client"] ?? ""
            try await change(request, of: { try $0.client(id) }) { try $0.releaseClient(id) }
            return ServerResponse(status: 204)
        }
    }

    private func companion(
        _ sha256: String?,
        _ absence: String,
        _ request: ServerRequest
    ) async throws
        -> ServerResponse
    {
        guard let sha256 else { throw CoordinationError(.notFound, "not_found", absence) }
        try await verify(sha256, "a file that belongs to the version")
        let attributes = try FileManager.default.attributesOfItem(atPath: coordinator.blobs.path(sha256: sha256))
        return try bulk(sha256: sha256, byteCount: attributes[.size] as? Int ?? 0, request)
    }
}
