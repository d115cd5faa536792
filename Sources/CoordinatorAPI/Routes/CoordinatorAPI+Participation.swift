import Coordination
import Foundation
package import HTTPServing
import HTTPTypes
import Logging
import StrictJSON
import UpdateCompression
import WireFormat

extension CoordinatorAPI {
    /// Clients' work: asking for it, and telling how it goes.
    func addParticipationRoutes(to routes: inout EndpointRoutes) {
        routes.addKnowingCaller(
            Endpoints.checkIn,
            immediately: { try checkInAtOnce($0) },
            otherwise: { try await checkIn($0, client: $1) }
        )
        routes.addKnowingCaller(Endpoints.assignment) { _, client, assignment in
            try Self.json(await namingVariant(coordinator.assignment(assignment.text, client: client)))
        }
        routes.addKnowingCaller(Endpoints.heartbeat) { request, client, assignment in
            let body = try HeartbeatRequest.read(await Self.clientDocument(request))
            return try Self.json(
                await step(request) { try $0.heartbeat(assignment: assignment.text, client: client, body) }
            )
        }
        routes.addKnowingCaller(Endpoints.failure) { request, client, assignment in
            let report = try FailureReport.read(await Self.clientDocument(request))
            try await step(request) {
                try $0.reportFailure(assignment: assignment.text, client: client, report)
            }
            return ServerResponse(status: 204)
        }
    }

    /// Answers a client for whom there is no work where its request was read: what most check-ins come to.
    private func checkInAtOnce(_ request: ServerRequest) throws -> ServerResponse? {
        guard Self.takesJSON(request), Self.wait(request) == .zero, let bytes = request.body.available,
            bytes.count <= 4096,
            Self.isJSON(request), let token = try? Self.bearer(request), let body = try? Self.checkInRequest(bytes)
        else { return nil }
        let answer = try coordinator.checkInAtOnce(token: token, certificateKey: request.peerKey, body) {
            try noteClient($0, request)
        }
        return answer.map(away)
    }

    private func checkIn(_ request: ServerRequest, client: String) async throws -> ServerResponse {
        let body = try CheckInRequest.read(await Self.clientDocument(request))
        let answer = try await coordinator.checkIn(
            client: client,
            body,
            wait: Self.wait(request),
            isAllowed: { try requireAllowed(request, $0) },
            mayChange: { try noteRenewal("client " + client) }
        )
        return try answer.hasAssignment ? await assigned(answer) : away(answer)
    }

    /// Names hash and size of the file that an assignment's model is fetched as, where that is one in fewer bits.
    ///
    /// The client takes nothing else for it. Where it cannot be made, the client is sent to the F32 file.
    private func namingVariant(_ assignment: AssignmentBody) async -> AssignmentBody {
        guard let encoding = assignment.model.encoding.map(UpdateEncoding.init), encoding != .f32
        else {
            return assignment
        }
        var assignment = assignment
        let sha256 = assignment.model.sha256
        do {
            let file = try await variant(of: sha256, "the model file that an assignment names", as: encoding)
            assignment.model.encodedSha256 = file.sha256
            assignment.model.encodedBytes = file.byteCount
        } catch {
            requestLog.logger.warning(
                "A model could not be written in fewer bits",
                metadata: ["model.sha256": "\(sha256)", "error": "\(error)"]
            )
            assignment.model.encoding = nil
            assignment.model.url = String(assignment.model.url.prefix { $0 != "?" })
        }
        return assignment
    }

    /// Apart from the wait, which would keep space for what this needs.
    @inline(never) private func assigned(_ given: CheckInResponse) async throws -> ServerResponse {
        guard let assignment = given.assignment else { return away(given) }
        var answer = given
        answer.assignment = await namingVariant(assignment)
        coordinator.metrics.add("martlet_checkins_total", 1, ["outcome": "assigned"])
        return try Self.created(answer, at: Endpoints.assignment(AssignmentReference(assignment.id)))
    }

    private func away(_ answer: CheckInResponse) -> ServerResponse {
        coordinator.metrics.add("martlet_checkins_total", 1, ["outcome": answer.reason ?? "away"])
        return ServerResponse(
            status: 200,
            headers: [.contentType: "application/json", .retryAfter: Self.retryAfter(answer.retryWindow)],
            body: .bytes(answer.awayDocument + [10])
        )
    }

    private static func isJSON(_ request: ServerRequest) -> Bool {
        request.headers[.contentType].map { $0 == "application/json" } ?? true
    }

    private static func checkInRequest(_ bytes: [UInt8]) throws -> CheckInRequest {
        if bytes.isEmpty || bytes == [123, 125] { return CheckInRequest() }
        return try CheckInRequest.read(JSONValue.parse(bytes))
    }

    /// A moment of the window, in whole seconds, so that those who only know `Retry-After` do not come all at once.
    private static func retryAfter(_ window: CheckInResponse.RetryWindow?) -> String {
        guard let window else { return "3600" }
        return String(Int(Double.random(in: window.minS...max(window.minS, window.maxS)).rounded(.up)))
    }

    /// The seconds of `Prefer: wait=N`, 60 at most.
    package static func wait(_ request: ServerRequest) -> Duration {
        guard let name = HTTPField.Name("Prefer"), let value = request.headers[name],
            let part = value.split(separator: ",").map({ $0.trimmingCharacters(in: .whitespaces) })
                .first(where: { $0.hasPrefix("wait=") }), let seconds = Int(part.dropFirst(5)), seconds > 0
        else { return .zero }
        return .seconds(min(seconds, 60))
    }
}
