import Coordination
import Foundation
import Synchronization

/// Fails at one transaction, as SQLite does when a sync fails.
final class DoubtfulStore: ForwardingRunStore {
    let inner: any RunStore
    private struct State {
        var count = 0
        var failing = 0
        var isStored = false
        var silence = 0
        var isUnsettled = false
    }
    private let state = Mutex(State())

    init(_ inner: any RunStore) { self.inner = inner }

    /// Begins to count.
    func arm(_ number: Int, isStored: Bool, silence: Int) {
        state.withLock { $0 = State(failing: number, isStored: isStored, silence: silence) }
    }

    var count: Int { state.withLock { $0.count } }

    func commit(_ changes: [StoreChange]) throws {
        try state.withLock { state in
            guard !state.isUnsettled else { throw StoreFailure(.unsettled, detail: "not asked") }
            state.count += 1
            guard state.count == state.failing else { return try inner.commit(changes) }
            state.isUnsettled = true
            if state.isStored { try inner.commit(changes) }
            throw StoreFailure(.refused, detail: "sync", code: EIO)
        }
    }

    func wasLastCommitStored() throws -> Bool {
        try state.withLock { state in
            guard state.isUnsettled else { return false }
            guard state.silence == 0 else {
                state.silence -= 1
                throw StoreFailure(.refused, detail: "open", code: EIO)
            }
            state.isUnsettled = false
            return state.isStored
        }
    }
}
