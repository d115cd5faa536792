import MartletTransport
import StrictJSON
import Synchronization
import WireFormat

extension ServerSession {
    // MARK: - Registration

    /// Registers the device.
    ///
    /// - Parameters:
    ///   - token: The enrollment token.
    ///   - key: The same one for each repeat.
    /// - Returns: The client's id and token.
    /// - Throws: `ClientError`.
    func register(_ token: String, idempotencyKey key: String) async throws -> RegistrationAnswer {
        do {
            return try await call(
                Endpoints.register(),
                RegistrationRequest(name: nil),
                token: token,
                headers: ["Idempotency-Key": key]
            ) { try ServerAnswer.read($0, of: "registration", RegistrationAnswer.read) }
        } catch let error as ClientError where error.status == 401 && error.verdict == .clientIsOut {
            throw ClientError(
                code: error.code,
                message: "the enrollment token is refused at \(server): \(error.message); an operator makes one with: "
                    + "martlet population token NAME",
                status: error.status
            )
        }
    }

    // MARK: - Check-in

    /// The reason of a check-in that a proxy has ended.
    private static let gatewayTimeout = "gateway_timeout"

    /// Asks for work.
    ///
    /// - Parameters:
    ///   - generation: Of the device's state; `nil` where it is not known.
    ///   - waitSeconds: How long the server may hold the question; less where a proxy does not let it.
    /// - Returns: Work, or why there is none.
    /// - Throws: `ClientError`.
    func checkIn(generation: Int?, waitSeconds: Int) async throws -> CheckInAnswer {
        let wait = min(waitSeconds, habits.withLock { $0.pollLimit })
        let answer = try await checkIn(generation, wait: wait)
        if case .away(reason: Self.gatewayTimeout, _) = answer { shortenPolls(wait) }
        return answer
    }

    private func checkIn(_ generation: Int?, wait: Int) async throws -> CheckInAnswer {
        let limit = limits.modelBytes
        let said = habits.withLock { $0.saysGeneration } ? generation : nil
        do {
            return try await call(
                Endpoints.checkIn(),
                CheckInRequest(stateGeneration: said),
                headers: wait > 0 ? ["Prefer": "wait=\(wait)"] : [:],
                passing: { response in
                    // A proxy that waits less long than the server: there was no work until then.
                    guard response.status == 504, wait > 0, ProblemAnswer(response) == nil else { return nil }
                    let window = PeerDuration(seconds: 1).flatMap { first in PeerDuration(seconds: 5).map { first...$0 }
                    }
                    return .away(reason: Self.gatewayTimeout, wait: window)
                },
                reading: { response in
                    try ServerAnswer.read(response, of: "answer to the check-in") { document throws(DocumentError) in
                        try CheckInAnswer.read(document, modelByteLimit: limit)
                    }
                }
            )
        } catch let error as ClientError where error.is(.invalidDocument) && said != nil {
            // A server of before generations refuses what it does not know.
            habits.withLock { $0.saysGeneration = false }
            return try await checkIn(generation, wait: wait)
        }
    }

    private func shortenPolls(_ wait: Int) {
        let isFirst = habits.withLock { habits in
            defer { habits.pollLimit = wait / 2 }
            return habits.pollLimit == 60
        }
        guard isFirst else { return }
        voice.notify(
            .init(
                kind: .outageBegan,
                message:
                    "a proxy in front of \(server) answers 504 before the server has: its read time-out is shorter "
                    + "than a wait for work of \(wait) s; asking with shorter waits"
            )
        )
    }

    // MARK: - Assignments

    /// Tells the server that an assignment came to nothing on this device.
    func report(_ report: FailureReport, for assignment: AssignmentID) async throws {
        var report = report
        report.detail = report.detail.map { String($0.prefix(500)) }
        do {
            try await call(
                Endpoints.failure(AssignmentReference(assignment)),
                report,
                passing: { $0.status == 204 ? () : nil },
                reading: { _ in
                    throw ClientError(code: "unexpected", message: "a failure report is answered without a body")
                }
            )
        } catch let error as ClientError where [.workIsOver, .workCannotBeDelivered].contains(error.verdict) {
            // The round ended in the meantime: there is nothing left to free.
        }
    }

    /// Whether the round of an accepted update became a model version; `nil` while it is open.
    func hasCommitted(_ assignment: AssignmentID) async throws -> Bool? {
        let (request, limit) = (try request(Endpoints.assignment(AssignmentReference(assignment))), limits.modelBytes)
        do {
            return try await retry.send(request, over: transport) { response in
                try response.document(from: request.url) {
                    let known = try? ServerAnswer.read(response, of: "assignment") { document throws(DocumentError) in
                        try Assignment.read(document, modelByteLimit: limit)
                    }
                    // Anything else says nothing of the round.
                    guard let known, known.id == assignment else {
                        throw ClientError.foreign(response, url: request.url)
                    }
                    return known.roundCommitted
                }
            }
        } catch let error as ClientError where error.is(.notFound) && error.status == 404 {
            // A server that was restored from a backup knows nothing of it, nor does its control variate.
            return false
        }
    }
}
