import Dispatch
import Foundation
import Synchronization

#if canImport(Glibc)
import Glibc
#endif

/// SIGTERM, SIGINT and SIGHUP as something to wait for.
///
/// From ``install(whileStarting:)`` on a handler writes the number of each signal into a pipe, so that none is lost that comes before
/// somebody waits for it. To ignore signals until a Dispatch source sees them would lose those in between.
enum Signals {
    private struct State: Sendable {
        var isInstalled = false
        var hasStopped = false
        var hangUpIsPending = false
        var whileStarting: (@Sendable () -> Never)?
        var nextWaiter = 0
        var stopWaiters: [Int: AsyncStream<Void>.Continuation] = [:]
        var hangUps: AsyncStream<Void>.Continuation?
        var source: UncheckedBox?
    }

    private static let state = Mutex(State())
    private static let queue = DispatchQueue(label: "martlet.signals")

    /// Takes the signals from now on.
    ///
    /// - Parameter whileStarting: For a server, which also takes SIGHUP: what a signal to stop does until ``started()`` is called.
    static func install(whileStarting: (@Sendable () -> Never)? = nil) {
        state.withLock { state in
            if let whileStarting { state.whileStarting = whileStarting }
            guard !state.isInstalled else { return }
            state.isInstalled = true
            var ends: [Int32] = [-1, -1]
            guard pipe(&ends) == 0 else { return }
            for end in ends {
                _ = fcntl(end, F_SETFD, FD_CLOEXEC)
                _ = fcntl(end, F_SETFL, O_NONBLOCK)
            }
            signalPipe = ends[1]
            let source = DispatchSource.makeReadSource(fileDescriptor: ends[0], queue: queue)
            let end = ends[0]
            source.setEventHandler {
                var numbers = [UInt8](repeating: 0, count: 64)
                let count = read(end, &numbers, numbers.count)
                for number in numbers.prefix(max(0, count)) { take(Int32(number)) }
            }
            source.resume()
            state.source = UncheckedBox(source)
            // Who only waits for the end keeps what SIGHUP does to a process.
            for number in whileStarting == nil ? [SIGTERM, SIGINT] : [SIGTERM, SIGINT, SIGHUP] {
                signal(number) { number in
                    // Nothing but calls that POSIX allows in a handler; a full pipe holds such a signal already.
                    let saved = errno
                    var byte = UInt8(truncatingIfNeeded: number)
                    _ = write(signalPipe, &byte, 1)
                    errno = saved
                }
            }
        }
    }

    /// Says that the start is over: from here on a signal to stop is for those who wait.
    static func started() {
        state.withLock { $0.whileStarting = nil }
    }

    /// Waits for SIGTERM or SIGINT.
    ///
    /// - Returns: Whether one came, be it before this call; `false` when the task was cancelled first.
    @discardableResult
    static func waitForStop() async -> Bool {
        install()
        let stream = AsyncStream<Void> { continuation in
            let id = state.withLock { state -> Int? in
                guard !state.hasStopped else { return nil }
                state.nextWaiter += 1
                state.stopWaiters[state.nextWaiter] = continuation
                return state.nextWaiter
            }
            guard let id else {
                continuation.yield()
                return
            }
            continuation.onTermination = { _ in state.withLock { _ = $0.stopWaiters.removeValue(forKey: id) } }
        }
        for await _ in stream { return true }
        return false
    }

    /// Every SIGHUP since ``install(whileStarting:)``, until the task that waits is cancelled.
    static func hangUps() -> AsyncStream<Void> {
        AsyncStream { continuation in
            let isPending = state.withLock { state -> Bool in
                state.hangUps = continuation
                defer { state.hangUpIsPending = false }
                return state.hangUpIsPending
            }
            if isPending { continuation.yield() }
        }
    }

    private static func take(_ number: Int32) {
        // A continuation that ends calls back, so nothing is told under the lock; the process ends under it, before the start can.
        let waiting = state.withLock { state -> [AsyncStream<Void>.Continuation] in
            guard number != SIGHUP else {
                state.hangUpIsPending = state.hangUps == nil
                return state.hangUps.map { [$0] } ?? []
            }
            if let whileStarting = state.whileStarting { whileStarting() }
            state.hasStopped = true
            return Array(state.stopWaiters.values)
        }
        for continuation in waiting { continuation.yield() }
    }

    private struct UncheckedBox: @unchecked Sendable {
        // SAFETY: only kept, so that the source lives as long as the process.
        let value: any DispatchSourceRead
        init(_ value: any DispatchSourceRead) { self.value = value }
    }
}

/// Where the handler writes; set once, before there is a handler.
private nonisolated(unsafe) var signalPipe: Int32 = -1
