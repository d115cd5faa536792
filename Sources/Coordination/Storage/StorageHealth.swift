package import Foundation
import Logging
import Synchronization

/// What the disk has refused lately: for the log, which hears of it once a minute, and for operators until it works again.
package final class StorageHealth: Sendable {
    package struct Trouble: Sendable {
        package var failure: StorageFailure
        package var since: Date
        package var last: Date
        package var count: Int
        var loggedAt: Date
    }

    private let troubles = Mutex<[StorageFailure.Role: Trouble]>([:])
    private let logger: Logger
    private let metrics: MetricsRegistry
    private let now: @Sendable () -> Date
    /// Seconds between two lines of the log about the same sort of file.
    private static let pause = 60.0
    /// Seconds after which a failure that did not come again is over.
    private static let memory = 300.0

    init(logger: Logger, metrics: MetricsRegistry, now: @escaping @Sendable () -> Date) {
        self.logger = logger
        self.metrics = metrics
        self.now = now
    }

    /// Notes a failure, and logs it where none of its sort was logged within the last minute.
    package func note(_ failure: StorageFailure) {
        let time = now()
        metrics.add("martlet_storage_failures_total", 1, ["role": failure.role.label])
        let (count, isNews) = troubles.withLock { troubles -> (Int, Bool) in
            var trouble =
                troubles[failure.role].flatMap { time.timeIntervalSince($0.last) < Self.memory ? $0 : nil }
                ?? Trouble(failure: failure, since: time, last: time, count: 0, loggedAt: .distantPast)
            trouble.count += 1
            trouble.last = time
            // One that says why is worth more than one that does not.
            if failure.code != 0 || trouble.failure.code == 0 { trouble.failure = failure }
            let isNews = abs(time.timeIntervalSince(trouble.loggedAt)) >= Self.pause
            if isNews { trouble.loggedAt = time }
            troubles[failure.role] = trouble
            return (trouble.count, isNews)
        }
        guard isNews else { return }
        logger.error(
            "The disk refused something",
            metadata: [
                "reason": "\(failure.sentence)", "path": "\(failure.path)", "errno": "\(failure.code)",
                "count": "\(count)",
            ]
        )
    }

    /// Notes that files of a sort can be written again.
    package func noteSuccess(_ role: StorageFailure.Role) {
        troubles.withLock { troubles in
            if !troubles.isEmpty { troubles[role] = nil }
        }
    }

    /// What fails now, by sort of file.
    package var current: [Trouble] {
        let time = now()
        return troubles.withLock { troubles in
            troubles.values.filter { time.timeIntervalSince($0.last) < Self.memory }
                .sorted { $0.failure.role.rawValue < $1.failure.role.rawValue }
        }
    }
}

extension StorageFailure.Role: CaseIterable {
    package static let allCases: [Self] = [
        .model, .update, .result, .noiseState, .noiseKey, .ledgerRecord, .restoredNote, .database, .directory, .file,
    ]

    /// The word in metrics.
    var label: String {
        switch self {
        case .model: "model"
        case .update: "update"
        case .result: "result"
        case .noiseState: "noise_state"
        case .noiseKey: "noise_key"
        case .ledgerRecord: "ledger_record"
        case .restoredNote: "restored_note"
        case .database: "database"
        case .directory: "directory"
        case .file: "file"
        }
    }
}
