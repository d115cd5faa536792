import Synchronization

/// A client's events from the moment on at which they were asked for.
///
/// Each call of ``FederatedClient/events()`` gives one with all events to itself, for one loop. A loop that falls behind loses passing ones first (a newer progress replaces an
/// older one), and beyond ``limit`` the oldest. It ends when the client is gone, or the task is cancelled.
public struct ClientEvents: AsyncSequence, Sendable {
    /// Events that wait for one loop, at most.
    public static let limit = 1000
    private let listener: ClientEventListener

    init(_ listener: ClientEventListener) { self.listener = listener }

    /// Begins the loop.
    public func makeAsyncIterator() -> Iterator { Iterator(listener) }

    /// One loop's place.
    public struct Iterator: AsyncIteratorProtocol {
        private let listener: ClientEventListener

        init(_ listener: ClientEventListener) { self.listener = listener }

        /// The next event; `nil` at the end.
        public mutating func next() async -> ClientEvent? { await listener.next() }

        /// The next event; `nil` at the end.
        public mutating func next(isolation actor: isolated (any Actor)?) async -> ClientEvent? {
            await listener.next()
        }
    }
}

/// Hands a client's events to all who listen.
final class ClientEventSource: Sendable {
    private struct WeakListener {
        weak var listener: ClientEventListener?
    }
    private let listeners = Mutex<[WeakListener]>([])

    deinit { for entry in listeners.withLock({ $0 }) { entry.listener?.end() } }

    func listen() -> ClientEventListener {
        let listener = ClientEventListener()
        listeners.withLock { list in
            list.removeAll { $0.listener == nil }
            list.append(WeakListener(listener: listener))
        }
        return listener
    }

    func send(_ event: ClientEvent) {
        for entry in listeners.withLock({ $0 }) { entry.listener?.receive(event) }
    }
}

/// What waits for one loop.
final class ClientEventListener: Sendable {
    private struct State {
        var waiting: [ClientEvent] = []
        var continuation: CheckedContinuation<ClientEvent?, Never>?
        var hasEnded = false
    }
    private let state = Mutex(State())

    func receive(_ event: ClientEvent) {
        let continuation = state.withLock { state -> CheckedContinuation<ClientEvent?, Never>? in
            if let continuation = state.continuation {
                state.continuation = nil
                return continuation
            }
            if event.isPassing, let last = state.waiting.last, last.isSameKind(as: event) {
                state.waiting[state.waiting.count - 1] = event
            } else {
                state.waiting.append(event)
            }
            if state.waiting.count > ClientEvents.limit {
                state.waiting.remove(at: state.waiting.firstIndex(where: \.isPassing) ?? 0)
            }
            return nil
        }
        continuation?.resume(returning: event)
    }

    func next() async -> ClientEvent? {
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let ready = state.withLock { state -> ClientEvent?? in
                    if !state.waiting.isEmpty { return state.waiting.removeFirst() }
                    if state.hasEnded { return .some(nil) }
                    state.continuation = continuation
                    return nil
                }
                if let ready { continuation.resume(returning: ready) }
            }
        } onCancel: {
            end()
        }
    }

    func end() {
        let continuation = state.withLock { state in
            state.hasEnded = true
            defer { state.continuation = nil }
            return state.continuation
        }
        continuation?.resume(returning: nil)
    }
}
