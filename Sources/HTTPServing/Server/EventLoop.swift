import CEpoll
import Dispatch
import Foundation
import Synchronization

#if canImport(Glibc)
import Glibc
#endif

/// A share of the server's connections, watched by one epoll instance and served on one serial queue.
///
/// The queue runs one block without end: wait for events, serve them, run the jobs of other threads. Everything that a connection does
/// happens there, except the bursts of bulk transfers, for which it lends its channel to a thread.
///
/// Dispatch's own sources cost a wake-up of its manager thread, a hop to the queue and an `epoll_ctl` for each request. On two cores
/// that was half of the throughput of small requests.
final class EventLoop: @unchecked Sendable {
    // SAFETY: all mutable state but `inbox` is touched on `queue` only, which every entry below "On the queue" checks.
    private struct Inbox {
        var jobs: [@Sendable () -> Void] = []
        /// Whether the loop will look into the inbox without being woken.
        var isAwake = false
        var isStopped = false
    }

    private struct Listener {
        var descriptor: Int32
        var accept: (Int32) -> Void
        var exhausted: () -> Void
        /// Whether the listener is not watched until the next sweep.
        var isPaused = false
    }

    let queue: DispatchQueue
    /// Space for reading heads and for bytes that are thrown away.
    let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 16, alignment: 64)
    /// The buffer in which answers are put together.
    var output: [UInt8] = []
    /// The monotonic clock at the current events, in nanoseconds.
    private(set) var now: Int = EventLoop.monotonicNow()

    private let poll: Int32
    private let wakeUp: Int32
    private let inbox = Mutex(Inbox())
    private var connections: [UInt64: HTTPConnection] = [:]
    /// Bytes of answers that wait for slow peers.
    var held = HeldBytes()
    private var nextID: UInt64 = 16
    private var listener: Listener?
    private var nextSweep = 0
    private var identifierState = UInt64.random(in: 0...UInt64.max)
    private var dateSecond = 0
    private var dateText = ""
    private static let wakeUpID: UInt64 = 1
    private static let listenerID: UInt64 = 2

    init(index: Int) throws {
        queue = DispatchQueue(label: "martlet.http.\(index)")
        poll = epoll_create1(O_CLOEXEC)
        wakeUp = eventfd(0, O_CLOEXEC | O_NONBLOCK)
        guard poll >= 0, wakeUp >= 0, martlet_epoll_add(poll, wakeUp, Self.wakeUpID, 0) == 0 else {
            throw ListenError(description: "cannot watch sockets: \(String(cString: strerror(errno)))")
        }
        output.reserveCapacity(4096)
    }

    deinit {
        close(poll)
        close(wakeUp)
        scratch.deallocate()
    }

    func start() {
        queue.async { [self] in run() }
    }

    /// Ends the loop after the jobs that were submitted before.
    func stop() {
        inbox.withLock { $0.isStopped = true }
        wake()
    }

    /// Runs a job on the loop's queue; may be called from any thread.
    func submit(_ job: @escaping @Sendable () -> Void) {
        let mustWake = inbox.withLock { inbox in
            inbox.jobs.append(job)
            defer { inbox.isAwake = true }
            return !inbox.isAwake
        }
        if mustWake { wake() }
    }

    private func wake() {
        var one: UInt64 = 1
        _ = write(wakeUp, &one, 8)
    }

    // MARK: - On the queue

    /// Accepts connections from a listening socket until ``stopListening()``.
    ///
    /// `exhausted` is called if no descriptor is free for the next connection, which then waits in the system's queue.
    func listen(_ descriptor: Int32, accept: @escaping (Int32) -> Void, exhausted: @escaping () -> Void) {
        dispatchPrecondition(condition: .onQueue(queue))
        listener = Listener(descriptor: descriptor, accept: accept, exhausted: exhausted)
        _ = martlet_epoll_add(poll, descriptor, Self.listenerID, 0)
    }

    func stopListening() {
        dispatchPrecondition(condition: .onQueue(queue))
        guard let listener else { return }
        if !listener.isPaused { _ = martlet_epoll_remove(poll, listener.descriptor) }
        close(listener.descriptor)
        self.listener = nil
    }

    private func resumeListening() {
        guard let listener, listener.isPaused else { return }
        self.listener?.isPaused = false
        _ = martlet_epoll_add(poll, listener.descriptor, Self.listenerID, 0)
    }

    func add(_ connection: HTTPConnection) {
        dispatchPrecondition(condition: .onQueue(queue))
        nextID += 1
        connection.id = nextID
        connections[nextID] = connection
        // Edge-triggered: the connection stays readable or writable until a call returns `blocked`.
        guard martlet_epoll_add(poll, connection.descriptor, nextID, 1) == 0 else { return connection.end() }
    }

    func remove(_ connection: HTTPConnection) {
        dispatchPrecondition(condition: .onQueue(queue))
        _ = martlet_epoll_remove(poll, connection.descriptor)
        connections[connection.id] = nil
    }

    func connection(_ id: UInt64) -> HTTPConnection? {
        dispatchPrecondition(condition: .onQueue(queue))
        return connections[id]
    }

    func forEachConnection(_ body: (HTTPConnection) -> Void) {
        dispatchPrecondition(condition: .onQueue(queue))
        for connection in Array(connections.values) { body(connection) }
    }

    /// A number that names a request: distinct and no secret, so it needs no system call.
    ///
    /// Source: SplitMix64, Steele et al. 2014, doi:10.1145/2660193.2660195.
    func nextIdentifier() -> UInt64 {
        dispatchPrecondition(condition: .onQueue(queue))
        identifierState &+= 0x9E37_79B9_7F4A_7C15
        var mixed = identifierState
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }

    /// The `Date` field of an answer that is given now.
    var date: String {
        dispatchPrecondition(condition: .onQueue(queue))
        let second = time(nil)
        if second != dateSecond {
            dateSecond = second
            dateText = HTTPDate.text(of: second)
        }
        return dateText
    }

    private func run() {
        dispatchPrecondition(condition: .onQueue(queue))
        let capacity = 128
        let events = UnsafeMutablePointer<epoll_event>.allocate(capacity: capacity)
        defer { events.deallocate() }
        while true {
            let (jobs, isStopped) = inbox.withLock { inbox in
                defer { inbox.jobs = [] }
                inbox.isAwake = !inbox.jobs.isEmpty
                return (inbox.jobs, inbox.isStopped)
            }
            for job in jobs { job() }
            if isStopped && jobs.isEmpty { break }
            let count = epoll_wait(poll, events, Int32(capacity), jobs.isEmpty ? 250 : 0)
            inbox.withLock { $0.isAwake = true }
            now = Self.monotonicNow()
            for index in 0..<Int(max(0, count)) { serve(events + index) }
            if now >= nextSweep {
                nextSweep = now + 250_000_000
                forEachConnection { $0.sweep(now: now) }
                resumeListening()
            }
        }
        forEachConnection { $0.fail(.shutDown) }
        stopListening()
    }

    private func serve(_ event: UnsafePointer<epoll_event>) {
        switch martlet_event_id(event) {
        case Self.wakeUpID:
            var count: UInt64 = 0
            _ = read(wakeUp, &count, 8)
        case Self.listenerID:
            acceptPending()
        case let id:
            connections[id]?.ready(
                isReadable: martlet_event_is_readable(event) != 0,
                isWritable: martlet_event_is_writable(event) != 0,
                isHalfClosed: martlet_event_is_half_closed(event) != 0,
                isHangUp: martlet_event_is_hangup(event) != 0
            )
        }
    }

    /// Accepts up to 64 waiting connections.
    private func acceptPending() {
        guard let listener else { return }
        for _ in 0..<64 {
            let socket = accept(listener.descriptor, nil, nil)
            guard socket >= 0 else {
                guard [EMFILE, ENFILE, ENOBUFS, ENOMEM].contains(errno) else { return }
                // Stop watching the listener until the next sweep: epoll would report the pending connection on every turn.
                _ = martlet_epoll_remove(poll, listener.descriptor)
                self.listener?.isPaused = true
                return listener.exhausted()
            }
            _ = fcntl(socket, F_SETFL, fcntl(socket, F_GETFL) | O_NONBLOCK)
            _ = fcntl(socket, F_SETFD, FD_CLOEXEC)
            var on: Int32 = 1
            setsockopt(socket, Int32(IPPROTO_TCP), TCP_NODELAY, &on, socklen_t(MemoryLayout<Int32>.size))
            listener.accept(socket)
        }
    }

    static func monotonicNow() -> Int {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return time.tv_sec * 1_000_000_000 + time.tv_nsec
    }
}
