import Dispatch
import Foundation
import Synchronization

#if canImport(Glibc)
import Glibc
#endif

/// Where large bodies move, in bursts, so that hashing and disks never hold up a loop.
///
/// The threads are its own, and more than the cores: one that waits for the disk leaves its core to another. Dispatch's shared
/// threads are as many as the cores, and tasks run on them too.
enum BulkTransfers {
    private struct State {
        var arriving: [@Sendable () -> Void] = []
        /// What arrived earlier, the first one last.
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

    // A serial queue of its own has a thread whenever it has work.
    private static let lanes = (0..<max(4, 2 * ProcessInfo.processInfo.activeProcessorCount)).map {
        DispatchQueue(label: "martlet.http.bulk.\($0)")
    }
    private static let state = Mutex(State(idleLanes: Array(lanes.indices)))

    /// Runs a burst soon, after those that were asked for before.
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

    /// After so many bytes a transfer goes to the end of the queue.
    static let burstByteCount = 16 << 20
    /// One read of a body, and one write of it: still in a core's second cache when it is hashed and written.
    ///
    /// A write of a mebibyte and more asks the page cache for pieces of memory so large that they are seldom at hand: measured,
    /// it takes 0.5 to 1 s of processor time for a gigabyte now and then, and one of 256 KiB always 0.15 s.
    static let blockByteCount = 1 << 18

    /// Waits a moment for a fast peer, which costs less than a way through the loop; a slow peer gets no thread.
    static func isSoonReady(_ descriptor: Int32, _ readiness: ChannelResult.Readiness) -> Bool {
        var request = pollfd(
            fd: descriptor,
            events: Int16(readiness == .readable ? POLLIN : POLLOUT),
            revents: 0
        )
        return poll(&request, 1, 2) > 0 && request.revents & Int16(POLLERR | POLLHUP | POLLNVAL) == 0
    }
}
