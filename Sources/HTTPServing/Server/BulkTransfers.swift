import Dispatch

#if canImport(Glibc)
import Glibc
#endif

/// Where large bodies move: bursts on Dispatch's threads, so that hashing and disks never hold up a loop.
enum BulkTransfers {
    static let queue = DispatchQueue(label: "martlet.http.bulk", attributes: .concurrent)
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
