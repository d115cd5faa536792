import DifferentialPrivacy
import Foundation
import WireFormat

/// What the arithmetic of a closed round has come to.
enum RoundResult: Sendable {
    /// A round of training.
    case model(AggregationJob.Outcome)
    /// A noised evaluation.
    case measurements(EvaluationRelease.Outcome)
    /// An evaluation without privacy, whose exact sums are in the rows of its assignments.
    case exactSums
}

/// A closed round that waits for the disk.
struct Stall: Sendable {
    /// What the disk refused; `nil` if something else failed.
    var failure: StorageFailure?
    /// In words, for operators.
    var reason: String
    var since: Date
    /// When it is tried again.
    var until: Date
    /// Seconds of the present pause.
    var pause: Double
}

/// Closed rounds on their way to a version: whose arithmetic is going on, what it has come to, and which wait for the disk.
///
/// A round that waits loses nothing: its noise is drawn once an attempt, and a result that is there is published as it is.
struct RunPublication: Sendable {
    /// Seconds until the first and the longest pause between tries.
    static let pauses = 1.0...60.0

    private struct OfAttempt<Value: Sendable>: Sendable {
        var round: Int
        var attempt: Int
        var value: Value

        func isOf(_ record: RoundRecord?) -> Bool {
            record.map { $0.number == round && $0.attempt == attempt } ?? false
        }
    }

    /// Closed rounds that wait, by run.
    private(set) var stalls: [String: Stall] = [:]
    private var working: Set<String> = []
    private var keys: [String: OfAttempt<NoiseKey>] = [:]
    private var results: [String: OfAttempt<RoundResult>] = [:]

    /// Whether the arithmetic of a run is going on.
    func isWorking(_ run: String) -> Bool { working.contains(run) }

    /// Notes that the arithmetic of a run begins.
    mutating func begin(_ run: String) { working.insert(run) }

    /// Notes that the arithmetic of a run has ended.
    mutating func end(_ run: String) { working.remove(run) }

    /// What an attempt has come to already.
    func result(of round: RoundRecord) -> RoundResult? {
        results[round.runId].flatMap { $0.isOf(round) ? $0.value : nil }
    }

    /// Keeps what an attempt has come to until it is published; the first result stands, since a second one would be a second release.
    ///
    /// - Returns: The result that stands.
    mutating func keep(_ result: RoundResult, of round: RoundRecord) -> RoundResult {
        if let known = self.result(of: round) { return known }
        results[round.runId] = .init(round: round.number, attempt: round.attempt, value: result)
        return result
    }

    /// The key of an attempt's noise: drawn once.
    mutating func noiseKey(of round: RoundRecord, draw: () -> NoiseKey) -> NoiseKey {
        if let known = keys[round.runId], known.isOf(round) { return known.value }
        let key = draw()
        keys[round.runId] = .init(round: round.number, attempt: round.attempt, value: key)
        return key
    }

    /// Whether an error may pass by itself, so that nothing is given up for it: whatever the system refuses, but a file that is gone.
    static func mayPass(_ error: any Error) -> Bool {
        if let failure = error as? HelperFailure { return failure.isTemporary }
        guard let failure = StorageFailure(error) else {
            // A file that somebody can restore.
            return ["model_missing", "model_damaged", "noise_key_damaged", "noise_key_missing"]
                .contains((error as? CoordinationError)?.code)
        }
        // An accepted update that is not in the spool any more is lost, as at a start.
        return !(failure.isMissing && failure.role == .update)
    }

    /// Lets a closed round wait, each time for longer.
    ///
    /// - Returns: The stall, and whether it is the round's first.
    mutating func stall(_ run: String, _ error: any Error, at now: Date) -> (stall: Stall, isFirst: Bool) {
        let known = stalls[run]
        let pause = min(Self.pauses.upperBound, known.map { $0.pause * 2 } ?? Self.pauses.lowerBound)
        let failure = StorageFailure(error)
        let stall = Stall(
            failure: failure,
            reason: failure?.sentence ?? ErrorSentence.text(of: error),
            since: known?.since ?? now,
            until: now.addingTimeInterval(pause),
            pause: pause
        )
        stalls[run] = stall
        // The same key makes the same file again.
        if let failure, failure.isMissing, failure.role == .result { results[run] = nil }
        return (stall, known == nil)
    }

    /// Rounds that have waited long enough; each waits on, so that it is not tried twice at a time.
    ///
    /// - Parameters:
    ///   - now: The time.
    ///   - runs: Of which those that have no closed round any more wait no longer.
    /// - Returns: Their runs.
    mutating func takeDue(at now: Date, _ runs: RunTable) -> [String] {
        var due: [String] = []
        for (id, stall) in stalls {
            guard runs[id]?.round?.phase == .aggregating else {
                stalls[id] = nil
                continue
            }
            guard stall.until.isDue(at: now, setAhead: stall.pause), !working.contains(id) else { continue }
            stalls[id]?.until = now.addingTimeInterval(stall.pause)
            due.append(id)
        }
        return due
    }

    /// Forgets what belongs to an attempt that is over.
    ///
    /// - Returns: How it had waited, if it had.
    mutating func endAttempt(run: String) -> Stall? {
        keys[run] = nil
        results[run] = nil
        return stalls.removeValue(forKey: run)
    }

    /// Drops what belongs to attempts that the stored state says are over; arithmetic goes on.
    mutating func keepOpen(_ runs: RunTable) {
        for id in runs.order {
            let round = runs[id]?.round
            let open = round.flatMap { $0.phase.isFinal ? nil : $0 }
            if let known = keys[id], !known.isOf(open) { keys[id] = nil }
            if let known = results[id], !known.isOf(open) { results[id] = nil }
            if round?.phase != .aggregating { stalls[id] = nil }
        }
    }
}

extension Date {
    /// Whether a time has come that was set so many seconds ahead at most: one that is further away was set before the clock was put
    /// back.
    func isDue(at now: Date, setAhead seconds: Double) -> Bool { !(0.001...seconds).contains(timeIntervalSince(now)) }
}
