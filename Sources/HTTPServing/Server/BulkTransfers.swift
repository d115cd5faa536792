import Dispatch

#if canImport(Glibc)
import Glibc
#endif

/// Where large bodies move: bursts on Dispatch's threads, so that hashing and disks never hold up a loop.
enum BulkTransfers {
    static let queue = DispatchQueue(label: "martlet.http.bulk", attributes: .concurrent)
    /// After so many bytes a transfer goes to the end of the queue.
    static let burstByteCount = 16 << 20
    /// One read of a body.
    static let blockByteCount = 1 << 20

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
