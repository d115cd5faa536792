import MartletTransport
import StrictJSON
import WireFormat

extension Device {
    /// Takes part once, and tells what came of it.
    func attempt(enrollmentToken: String?, waitSeconds: Int) async throws -> ParticipationOutcome {
        if status.hasStorageTrouble {
            try files.probe()
            status.hasStorageTrouble = false
            session.retry.watch?.answered()
        }
        do {
            let outcome = try await takePart(enrollmentToken, waitSeconds)
            switch outcome {
            // The delivery has told how many bytes were sent.
            case .accepted, .finished: break
            case .ended(let reason): voice.tell(.refused(reason, sentence: status.reason?.text))
            case .noWork(let reason, let seconds): voice.tell(.noWork(reason, retrySeconds: seconds))
            }
            return outcome
        } catch let error as ClientError where error.is(.clientRevoked) && error.status != nil {
            status.reason = OwnerSentence(error.message)
            voice.tell(.finished)
            return .finished
        } catch let error as ClientError {
            if ClientError.localCodes.contains(error.code) { status.hasStorageTrouble = true }
            throw advice(on: error)
        }
    }

    private func takePart(_ enrollmentToken: String?, _ waitSeconds: Int) async throws -> ParticipationOutcome {
        try open()
        // Before anything is asked for: what cannot be read permits nothing.
        _ = try state.ledger()
        try await register(with: enrollmentToken)
        switch try PendingDelivery.left(on: self) {
        case .nothing: break
        case .unusable: return .ended(code: ClientError.stateDamaged)
        case .delivery(let delivery):
            if let outcome = try await delivery.refuseWithoutHelper() { return outcome }
            return try await delivery.deliver()
        }
        voice.tell(.phase(.waiting))
        switch try await session.checkIn(generation: memory.generation, waitSeconds: waitSeconds) {
        case .work(let assignment): return try await AssignmentWork(assignment, on: self).perform()
        case .unfit(let id, let error):
            return try await refuseUnfit(
                id,
                ClientError(invalid: "assignment", error),
                field: error.problems.first?.pointer
            )
        case .away(let word, let wait):
            // Another run may want this client: the end of one is not its own.
            let reason = NoWorkReason(code: word)
            let window: (Double, Double) = reason == .participationLimit ? (60, 600) : (5, 30)
            let (first, last) = (wait?.lowerBound.seconds ?? window.0, wait?.upperBound.seconds ?? window.1)
            return .noWork(reason: reason, retrySeconds: first + (last - first) * session.retry.uniform())
        }
    }
}
