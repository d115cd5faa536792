import Coordination
import Foundation
import HTTPServing
import HTTPTypes
import WireFormat

extension CoordinatorAPI {
    func addParticipationRoutes(to router: inout Router) {
        router.add("POST", "/v1/clients") { request in
            guard case .enrollment(_, let hash) = try await principal(request) else {
                throw CoordinationError(.forbidden, "forbidden", "registering takes an enrollment token")
            }
            let key = HTTPField.Name("Idempotency-Key").flatMap { request.headers[$0] }
            guard (key?.utf8.count ?? 1) <= 200 else {
                throw ParseFailure(status: 400, detail: "Idempotency-Key may have at most 200 bytes")
            }
            let body = try RegistrationRequest.read(await Self.document(request))
            return try Self.json(
                await coordinator.register(
                    enrollmentTokenHash: hash,
                    body,
                    idempotencyKey: key,
                    certificateKey: request.peerKey
                ),
                status: 201
            )
        }
        router.add("POST", "/v1/checkins") { request in
            let client = try await requireClient(request)
            let body = try CheckInRequest.read(await Self.document(request))
            let answer = try await coordinator.checkIn(client: client, body, wait: Self.wait(request))
            let outcome = answer.assignment == nil ? answer.reason ?? "away" : "assigned"
            coordinator.metrics.add("martlet_checkins_total", 1, ["outcome": outcome])
            var response = try Self.json(answer, status: answer.assignment == nil ? 200 : 201)
            if answer.assignment == nil {
                response.headers[.retryAfter] = Self.retryAfter(answer.retryWindow)
            }
            return response
        }
        router.add("GET", "/v1/assignments/{assignment}") { request in
            let client = try await requireClient(request)
            return try Self.json(await coordinator.assignment(request.parameters["assignment"] ?? "", client: client))
        }
        router.add("POST", "/v1/assignments/{assignment}/heartbeat") { request in
            let client = try await requireClient(request)
            let body = try HeartbeatRequest.read(await Self.document(request))
            return try Self.json(
                await coordinator.heartbeat(
                    assignment: request.parameters["assignment"] ?? "",
                    client: client,
                    body
                )
            )
        }
        router.add("PUT", "/v1/assignments/{assignment}/update") { request in
            try await putUpdate(request)
        }
        router.add("POST", "/v1/assignments/{assignment}/failure") { request in
            let client = try await requireClient(request)
            let report = try FailureReport.read(await Self.document(request))
            try await coordinator.reportFailure(
                assignment: request.parameters["assignment"] ?? "",
                client: client,
                report
            )
            return ServerResponse(status: 204)
        }
    }

    /// Spool, hash, check, sync, then one transaction; refused uploads leave no trace but the count of refusals.
    private func putUpdate(_ request: ServerRequest) async throws -> ServerResponse {
        let client = try await requireClient(request)
        let id = request.parameters["assignment"] ?? ""
        let terms = try await coordinator.beginUpdate(assignment: id, client: client)
        if terms.isEvaluation { return try await putEvaluation(request, terms: terms, client: client) }
        try Self.requireBulkType(request)
        let received = try await BodySpool.receive(request, path: terms.spoolPath, byteLimit: terms.byteLimit)
        defer { try? FileManager.default.removeItem(atPath: terms.spoolPath) }
        if let accepted = terms.acceptedSHA256, accepted != received.sha256 {
            throw CoordinationError(
                .conflict,
                "update_differs",
                "another update was accepted for this assignment already"
            )
        }
        let admitted: UpdateAdmission.Admitted
        do {
            admitted = try UpdateAdmission.check(received.path, terms)
        } catch {
            let code = (error as? CoordinationError)?.code ?? "tensor_mismatch"
            if terms.acceptedSHA256 == nil {
                try? await coordinator.rejectUpdate(assignment: id, client: client, code: code)
            }
            throw error
        }
        let receipt = try await coordinator.finishUpdate(
            assignment: id,
            client: client,
            ReceivedUpdate(
                path: received.path,
                sha256: received.sha256,
                byteCount: received.byteCount,
                exampleCount: admitted.exampleCount,
                metrics: admitted.metrics
            )
        )
        return try Self.json(receipt)
    }

    /// Takes the sums that a client measured; counted once like any update, and the same bytes get the same answer.
    private func putEvaluation(
        _ request: ServerRequest,
        terms: UploadTerms,
        client: String
    ) async throws -> ServerResponse {
        let type = (request.headers[.contentType] ?? "").prefix { $0 != ";" }
        guard type == "application/json" else {
            throw ParseFailure(status: 415, detail: "this is an evaluation: send its sums as application/json")
        }
        let bytes = try await request.body.collect(limit: Self.jsonByteLimit)
        let result = try EvaluationResult.read(JSONValue.parse(bytes))
        let receipt = try await coordinator.finishUpdate(
            assignment: terms.assignmentID,
            client: client,
            ReceivedUpdate(
                path: terms.spoolPath,
                sha256: Secrets.sha256(bytes),
                byteCount: bytes.count,
                exampleCount: result.numExamples,
                metrics: result.metrics
            )
        )
        return try Self.json(receipt)
    }

    /// A moment of the window, in whole seconds, so that those who only know `Retry-After` do not come all at once.
    private static func retryAfter(_ window: CheckInResponse.RetryWindow?) -> String {
        guard let window else { return "3600" }
        return String(Int(Double.random(in: window.minS...max(window.minS, window.maxS)).rounded(.up)))
    }

    /// The seconds of `Prefer: wait=N`, 60 at most.
    private static func wait(_ request: ServerRequest) -> Duration {
        guard let name = HTTPField.Name("Prefer"), let value = request.headers[name],
            let part = value.split(separator: ",").map({ $0.trimmingCharacters(in: .whitespaces) })
                .first(where: { $0.hasPrefix("wait=") }), let seconds = Int(part.dropFirst(5)), seconds > 0
        else { return .zero }
        return .seconds(min(seconds, 60))
    }
}
