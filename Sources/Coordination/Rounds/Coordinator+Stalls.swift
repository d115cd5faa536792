import Aggregation
import DifferentialPrivacy
import Foundation
import Logging
import Tensors
import WireFormat

/// A closed round that waits for the disk.
struct Stall: Sendable {
    /// What the disk refused; `nil` where something else failed.
    var failure: StorageFailure?
    /// In words, for operators.
    var reason: String
    var since: Date
    /// When it is tried again.
    var until: Date
    /// Seconds of the present pause.
    var pause: Double
}

/// Rounds whose sum or publication the disk holds up: they wait and try again, and lose nothing.
extension Coordinator {
    /// Seconds until the first and the longest pause between tries.
    static let stallPauses = 1.0...60.0

    /// Whether an error may pass by itself, so that nothing is given up for it: whatever the system refuses, but a file that is gone.
    func mayPass(_ error: any Error) -> Bool {
        guard let failure = StorageFailure(error) else {
            // A file that somebody can restore.
            return ["model_missing", "model_damaged", "noise_key_damaged", "noise_key_missing"]
                .contains((error as? CoordinationError)?.code)
        }
        // An accepted update that is not in the spool any more is lost, as at a start.
        return !(failure.isMissing && failure.role == .update)
    }

    /// Tries a run's closed round later, each time after a longer pause.
    func stall(run id: String, _ error: any Error) {
        let known = stalls[id]
        let pause = min(Self.stallPauses.upperBound, known.map { $0.pause * 2 } ?? Self.stallPauses.lowerBound)
        let failure = StorageFailure(error)
        stalls[id] = Stall(
            failure: failure,
            reason: failure?.sentence ?? ErrorSentence.text(of: error),
            since: known?.since ?? now,
            until: now.addingTimeInterval(pause),
            pause: pause
        )
        if let failure {
            storage.note(failure)
            // The same key makes the same file again.
            if failure.isMissing, failure.role == .result { outcomes[id] = nil }
        }
        logger.log(
            level: known == nil ? .error : .info,
            "A closed round waits and is tried again",
            metadata: [
                "run.id": "\(id)", "reason": "\(stalls[id]?.reason ?? "")", "path": "\(failure?.path ?? "")",
                "error": "\(failure == nil ? "\(error)" : "")",
            ]
        )
    }

    /// Goes on with what has waited long enough.
    func resumeStalled() {
        for (id, stall) in stalls {
            guard runs[id]?.round?.phase == .aggregating else {
                stalls[id] = nil
                continue
            }
            guard isDue(stall.until, setAhead: stall.pause), !aggregating.contains(id) else { continue }
            // Not tried twice at a time; what fails again finds how long it has waited.
            stalls[id]?.until = now.addingTimeInterval(stall.pause)
            startAggregation(run: id)
        }
    }

    /// Forgets what belongs to an attempt that is over.
    func endAttempt(run id: String) {
        if let stall = stalls.removeValue(forKey: id) {
            let waited = Int(now.timeIntervalSince(stall.since).rounded())
            logger.notice(
                "A round that had waited for the disk is over",
                metadata: ["run.id": "\(id)", "waited_s": "\(waited)"]
            )
        }
        noiseKeys[id] = nil
        outcomes[id] = nil
        evaluationReleases[id] = nil
    }

    /// The key of an attempt's noise: drawn once.
    func noiseKey(of round: RoundRecord) -> NoiseKey {
        if let known = noiseKeys[round.runId], known.round == round.number, known.attempt == round.attempt {
            return known.key
        }
        let key = configuration.drawNoiseKey(round.runId, round.number)
        noiseKeys[round.runId] = (round.number, round.attempt, key)
        return key
    }
}
