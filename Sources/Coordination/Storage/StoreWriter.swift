import Foundation
import Logging

/// The one way to the store: makes transactions durable, and knows what a failed one has come to.
///
/// A transaction that failed may be stored all the same. Nothing else is written before the store has said whether it is.
struct StoreWriter: Sendable {
    /// Whether memory is what is stored, after a transaction that failed.
    private enum Doubt {
        case none
        /// The store could not be asked whether the transaction is stored all the same.
        case unsettled
        /// It is stored, and memory does not have it: the state has to be read again.
        case unread
    }

    private let store: any RunStore
    private let storage: StorageHealth
    private let metrics: MetricsRegistry
    private let logger: Logger
    private var doubt = Doubt.none
    /// Assignments whose update was moved among the accepted ones by a transaction in doubt.
    private var moved: Set<String> = []

    init(_ store: any RunStore, storage: StorageHealth, metrics: MetricsRegistry, logger: Logger) {
        (self.store, self.storage, self.metrics, self.logger) = (store, storage, metrics, logger)
    }

    /// Whether a transaction that failed may be stored.
    var isInDoubt: Bool { doubt != .none }

    /// Makes changes durable; memory is the caller's.
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed`: they are not stored, or ``isInDoubt`` holds.
    mutating func write(_ changes: [StoreChange]) throws {
        do {
            Failpoint.reach()
            try store.commit(changes)
            Failpoint.reach()
            storage.noteSuccess(.database)
        } catch {
            metrics.add("martlet_store_commit_failures_total")
            guard wasStored(after: error) else { throw Self.refusal(of: error) }
        }
    }

    /// Whether a transaction is stored although it failed; asked before anybody is answered.
    private mutating func wasStored(after error: any Error) -> Bool {
        let refusal = Self.refusal(of: error)
        if let failure = refusal.storage { storage.note(failure) }
        logger.error("A transaction failed", metadata: ["error": "\(error)"])
        if (error as? StoreFailure)?.cause == .unsettled {
            // The store's answer would be about another transaction.
            doubt = .unsettled
            return false
        }
        do {
            let isStored = try store.wasLastCommitStored()
            if isStored { logger.notice("The transaction that failed is stored all the same") }
            return isStored
        } catch {
            doubt = .unsettled
            logger.error(
                "The database cannot be read again: nothing is changed until it can",
                metadata: ["error": "\(error)"]
            )
            return false
        }
    }

    /// Notes that an update was moved by a transaction in doubt.
    mutating func noteMoved(_ assignment: String) { moved.insert(assignment) }

    /// Asks the store about a transaction that failed when it could not be asked.
    ///
    /// - Parameter files: Where updates are; those of a transaction that is not stored go at once, since nobody was told that they are
    ///   here, and the next try puts files of the same names there.
    /// - Returns: Whether memory is what is stored; otherwise the state has to be read again, and then ``noteRead()`` called.
    /// - Throws: ``CoordinationError`` with code `storage_failed` while the store cannot say.
    mutating func settle(_ files: UpdateFiles) throws -> Bool {
        guard doubt == .unsettled else { return doubt == .none }
        do {
            doubt = try store.wasLastCommitStored() ? .unread : .none
        } catch {
            throw refusal(noting: error)
        }
        if doubt == .none { files.remove(moved) }
        moved = []
        if doubt == .unread { logger.notice("The transaction that failed is stored: the state is read again") }
        return doubt == .none
    }

    /// Notes that memory is what is stored.
    mutating func noteRead() { doubt = .none }

    /// What a caller is told of a store that failed, which the storage's health has noted.
    func refusal(noting error: any Error) -> CoordinationError {
        if let failure = StorageFailure(error) { storage.note(failure) }
        return Self.refusal(of: error)
    }

    private static func refusal(of error: any Error) -> CoordinationError {
        (error as? CoordinationError) ?? ((error as? StoreFailure) ?? StoreFailure(.other, detail: "")).error
    }
}
