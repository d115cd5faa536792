import Coordination
import Dispatch
import Synchronization

/// Waits for the disk on behalf of uploads that end at about the same time.
///
/// While one group is being synced the next gathers. Its files' bytes are all sent to the disk before the first is waited
/// for, and the file system's journal, which a sync of any of them commits, holds the sizes of all.
final class SyncQueue: Sendable {
    static let shared = SyncQueue()

    private struct Waiting: Sendable {
        var file: SpoolFile
        var continuation: CheckedContinuation<Void, any Error>
    }
    private struct State {
        var waiting: [Waiting] = []
        var isRunning = false
    }

    private let state = Mutex(State())
    private let queue = DispatchQueue(label: "martlet.sync")

    /// Returns when the file's bytes are on the disk.
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed`.
    func sync(_ file: SpoolFile) async throws {
        try await withCheckedThrowingContinuation { continuation in
            let mustStart = state.withLock { state in
                state.waiting.append(Waiting(file: file, continuation: continuation))
                defer { state.isRunning = true }
                return !state.isRunning
            }
            if mustStart { queue.async { self.drain() } }
        }
    }

    private func drain() {
        while true {
            let group = state.withLock { state in
                defer { state.waiting = [] }
                if state.waiting.isEmpty { state.isRunning = false }
                return state.waiting
            }
            guard !group.isEmpty else { return }
            for item in group { item.file.startFlush() }
            for item in group { item.continuation.resume(with: Result { try item.file.sync() }) }
        }
    }
}
