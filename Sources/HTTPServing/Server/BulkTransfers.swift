import Dispatch
import Foundation
import Synchronization

#if canImport(Glibc)
import Glibc
#endif

/// Moves large bodies in bursts on threads of its own, so that hashing and disks never hold up an event loop.
///
/// There are more threads than cores, so that a core has work while a thread waits for the disk. Dispatch's shared threads are as many as
/// the cores, and tasks run on them too.
enum BulkTransfers {
    private struct State {
        var arriving: [@Sendable () -> Void] = []
        /// Bursts that arrived earlier, in reverse order: the next one is the last.
        var leaving: [@Sendable () -> Void] = []
        var idleLanes: [Int]

        mutating func takeFirst() -> (@Sendable () -> Void)? {
            if leaving.isEmpty {
                leaving = arriving.reversed()
                arriving = []
            }
            return leaving.popLast()
        }
    }

    // A serial queue gets a thread whenever it has work.
    private static let lanes = (0..<max(4, 2 * ProcessInfo.processInfo.activeProcessorCount)).map {
        DispatchQueue(label: "martlet.http.bulk.\($0)")
    }
    private static let state = Mutex(State(idleLanes: Array(lanes.indices)))

    /// Runs a burst after those that were submitted before it.
    static func run(_ burst: @escaping @Sendable () -> Void) {
        let lane = state.withLock { state in
            state.arriving.append(burst)
            return state.idleLanes.popLast()
        }
        if let lane { lanes[lane].async { work(on: lane) } }
    }

    private static func work(on lane: Int) {
        while true {
            let burst = state.withLock { state in
                let burst = state.takeFirst()
                if burst == nil { state.idleLanes.append(lane) }
                return burst
            }
            guard let burst else { return }
            burst()
        }
    }

    /// After this many bytes a transfer goes to the end of the queue.
    static let burstByteCount = 16 << 20
    /// Bytes of one read and one write: a block is still in a core's second-level cache when it is hashed and written.
    ///
    /// Writes of 1 MiB and more need contiguous pages of the page cache, which are rare. Measured, a gigabyte then sometimes takes 0.5 to
    /// 1 s of processor time, and always 0.15 s with 256 KiB.
    static let blockByteCount = 1 << 18

    /// Waits up to 2 ms for a fast peer, which costs less than a way through the event loop.
    ///
    /// A slow peer keeps no thread.
    static func isSoonReady(_ descriptor: Int32, _ readiness: ChannelResult.Readiness) -> Bool {
        var request = pollfd(
            fd: descriptor,
            events: Int16(readiness == .readable ? POLLIN : POLLOUT),
            revents: 0
        )
        return poll(&request, 1, 2) > 0 && request.revents & Int16(POLLERR | POLLHUP | POLLNVAL) == 0
    }
}
