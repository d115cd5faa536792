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
