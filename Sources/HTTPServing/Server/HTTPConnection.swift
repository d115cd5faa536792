import Dispatch
import Foundation
import HTTPTypes
import Synchronization

/// Why a connection ended.
package enum ConnectionError: Error {
    case closedByPeer
    case system(Int32)
    case shutDown
}

/// One connection: reads requests, answers them in order, waits for nothing without a deadline.
///
/// A state machine that belongs to its loop's queue: ``advance()`` does what can be done now and returns. Handlers that
/// need to wait run as tasks and come back through ``EventLoop/submit(_:)``.
final class HTTPConnection: @unchecked Sendable {
    // SAFETY: touched on `loop.queue` only; while `isLent` the channel alone belongs to a thread of a bulk transfer.
    enum State {
        /// Between requests, or in the middle of a head.
        case head
        /// A handler has the request.
        case handling
        /// An answer is going out; at its end the connection is kept or not.
        case answering(keepAlive: Bool)
        /// What a handler left of a body is read and thrown away.
        case draining
        /// The last answer has been sent; reads on for a moment, so that it is not lost to a reset.
        case lingering
        case ended
    }

    var id: UInt64 = 0
    let loop: EventLoop
    let channel: any ByteChannel
    let remoteAddress: String
    let configuration: ServerConfiguration
    let router: Router
    private let onEnd: @Sendable (HTTPConnection) -> Void

    var state = State.head
    /// Bytes that were read and not yet used, from `inputStart` on.
    var input: [UInt8] = []
    var inputStart = 0
    /// Bytes of an answer that wait for the peer, from `outputStart` on.
    var output: [UInt8] = []
    var outputStart = 0
    /// Called when `output` has been sent, or with the reason why it never will be.
    var afterOutput: ((ConnectionError?) -> Void)?
    var deadline = Int.max
    var canRead = true
    var canWrite = true
    /// Whether a thread of a bulk transfer has the channel.
    var isLent = false
    var owesContinue = false
    /// How fast a body comes, how fast a file goes, and how fast what waits in `output` does.
    var bodyPace = TransferPace(now: 0)
    var filePace = TransferPace(now: 0)
    var outputPace = TransferPace(now: 0)
    var decoder = BodyDecoder(.none)
    /// What waits for body bytes.
    var bodyWaiter: CheckedContinuation<[UInt8]?, any Error>?
    /// What waits for the descriptor to become readable or writable in a bulk transfer.
    var bulkResume: ((ConnectionError?) -> Void)?
    /// Why nothing can be sent any more.
    private(set) var hangUp: ConnectionError?
    /// Works on the request, where that takes more than a moment; cancelled when the peer goes, which long polls heed.
    private var handler: Task<Void, Never>?
    /// Whether the peer sends nothing more: it went, or waits for one last answer.
    private var peerHasClosed = false
    private var searched = 0
    private var isStopping = false
    var descriptor: Int32 { channel.descriptor }

    init(
        channel: any ByteChannel,
        remoteAddress: String,
        loop: EventLoop,
        configuration: ServerConfiguration,
        router: Router,
        onEnd: @escaping @Sendable (HTTPConnection) -> Void
    ) {
        self.channel = channel
        self.remoteAddress = remoteAddress
        self.loop = loop
        self.configuration = configuration
        self.router = router
        self.onEnd = onEnd
        deadline = EventLoop.monotonicNow() + configuration.firstByteTimeout.nanoseconds
    }

    // MARK: - Called by the loop

    /// Notes what the descriptor is ready for, and goes on.
    func ready(isReadable: Bool, isWritable: Bool, isHalfClosed: Bool, isHangUp: Bool) {
        if isReadable { canRead = true }
        if isWritable { canWrite = true }
        if isHalfClosed { peerHasClosed = true }
        if isHangUp { hangUp = .closedByPeer }
        guard !isLent else { return }
        if let resume = bulkResume {
            bulkResume = nil
            deadline = .max
            return resume(nil)
        }
        advance()
        // What waits, such as a long poll or a stream of events, learns that nobody listens any more.
        if isHangUp { fail(.closedByPeer) }
        if peerHasClosed { handler?.cancel() }
    }

    /// Ends waits whose deadline has passed.
    func sweep(now: Int) {
        guard deadline <= now, !isLent else { return }
        deadline = .max
        let timedOut = configuration.events.timedOut
        switch state {
        case .lingering: fail(.closedByPeer)
        case .head where input.count > inputStart:
            timedOut("head", remoteAddress)
            refuse(ParseFailure(status: 408, detail: "the head took too long"))
        case .handling where bodyWaiter != nil:
            timedOut("body", remoteAddress)
            let waiter = bodyWaiter
            bodyWaiter = nil
            waiter?.resume(throwing: ParseFailure(status: 408, detail: "the body came too slowly"))
        case .head:
            timedOut("request", remoteAddress)
            fail(.closedByPeer)
        case .handling, .draining:
            timedOut("body", remoteAddress)
            fail(.closedByPeer)
        default:
            timedOut("answer", remoteAddress)
            fail(.closedByPeer)
        }
    }

    /// Lets the request in progress finish, and ends the connection.
    func stop(force: Bool) {
        isStopping = true
        if force { return fail(.shutDown) }
        if case .head = state { fail(.shutDown) }
    }

    /// Ends the connection with everything that waits for it.
    func fail(_ error: ConnectionError) {
        hangUp = hangUp ?? error
        guard !isLent else { return }
        if let waiter = bodyWaiter {
            bodyWaiter = nil
            waiter.resume(throwing: error)
        }
        if let resume = bulkResume {
            bulkResume = nil
            resume(error)
        }
        if let after = afterOutput {
            afterOutput = nil
            after(error)
        }
        end()
    }

    /// Closes the descriptor.
    func end() {
        if case .ended = state { return }
        state = .ended
        handler?.cancel()
        loop.remove(self)
        channel.close()
        onEnd(self)
    }

    // MARK: - The machine

    /// Reads, and requests that are answered at once, before others have their turn.
    private static let turnLength = 64

    /// Does what can be done without waiting.
    ///
    /// Who sends requests faster than they are answered has a share of the loop and no more: after `turnLength` of them the
    /// other connections have their turn.
    func advance() {
        var turn = 0
        while true {
            switch state {
            case .head:
                guard turn < Self.turnLength else { return loop.submit { [self] in advance() } }
                turn += 1
                guard takeRequest() else { return }
            case .handling:
                feedBodyWaiter()
                return flushOutput()
            case .answering:
                flushOutput()
                // What follows an answer is decided by `afterOutput`.
                guard case .answering = state else { continue }
                return
            case .draining: guard drain() else { return }
            case .lingering:
                guard canRead else { return }
                guard turn < Self.turnLength else { return loop.submit { [self] in advance() } }
                turn += 1
                switch channel.read(into: loop.scratch) {
                case .moved: break
                case .blocked: canRead = false
                default: return end()
                }
            case .ended: return
            }
        }
    }

    /// Reads and starts one request.
    ///
    /// - Returns: Whether the state has changed and there may be more to do.
    private func takeRequest() -> Bool {
        if input.count == inputStart {
            guard canRead else { return false }
            switch channel.read(into: loop.scratch) {
            case .moved(let count):
                noteRead(count)
                return parse(UnsafeRawBufferPointer(rebasing: loop.scratch[0..<count]), isBuffered: false)
            case .blocked(let readiness): return block(readiness)
            case .ended, .failed:
                fail(.closedByPeer)
                return false
            }
        }
        if searched == input.count - inputStart {
            guard canRead else { return false }
            switch channel.read(into: loop.scratch) {
            case .moved(let count):
                noteRead(count)
                input += UnsafeRawBufferPointer(rebasing: loop.scratch[0..<count])
            case .blocked(let readiness): return block(readiness)
            case .ended, .failed:
                fail(.closedByPeer)
                return false
            }
        }
        let bytes = input
        return bytes.withUnsafeBytes { parse(UnsafeRawBufferPointer(rebasing: $0[inputStart...]), isBuffered: true) }
    }

    /// Finds a head in `bytes`, which are `input` or fresh from the socket, and starts its request.
    private func parse(_ bytes: UnsafeRawBufferPointer, isBuffered: Bool) -> Bool {
        // Empty lines before a request are skipped, as RFC 9112 section 2.2 allows.
        var start = 0
        while start + 1 < bytes.count, bytes[start] == 13, bytes[start + 1] == 10 { start += 2 }
        let rest = UnsafeRawBufferPointer(rebasing: bytes[start...])
        let end = HeadParser.endOfHead(rest, searchFrom: isBuffered ? max(0, searched - start) : 0)
        guard let end, end <= configuration.headByteLimit else {
            guard rest.count <= configuration.headByteLimit else {
                refuse(
                    ParseFailure(status: 431, detail: "the head is over \(configuration.headByteLimit) bytes")
                )
                return true
            }
            let wasEmpty = input.count == inputStart
            keep(rest, isBuffered: isBuffered, from: inputStart + start)
            compactInput()
            searched = input.count
            if wasEmpty && !input.isEmpty { deadline = loop.now + configuration.headTimeout.nanoseconds }
            return canRead
        }
        searched = 0
        do {
            let head = try HeadParser.parse(
                UnsafeRawBufferPointer(rebasing: rest[0..<end]),
                fieldLimit: configuration.headerFieldLimit
            )
            let following = UnsafeRawBufferPointer(rebasing: rest[end...])
            keep(following, isBuffered: isBuffered, from: inputStart + start + end)
            try begin(head)
        } catch {
            refuse(error)
        }
        return true
    }

    private func keep(_ rest: UnsafeRawBufferPointer, isBuffered: Bool, from start: Int) {
        if isBuffered {
            // Requests that came together are not moved to the front one after the other: that would copy all of them each time.
            inputStart = start
            if inputStart == input.count { compactInput() }
        } else {
            input = Array(rest)
            inputStart = 0
        }
    }

    /// Moves what has not been used to the front.
    func compactInput() {
        if inputStart == input.count {
            input.removeAll(keepingCapacity: input.capacity <= 4096)
            inputStart = 0
        } else if inputStart > 0 {
            input.removeFirst(inputStart)
            inputStart = 0
        }
    }

    private func begin(_ head: RequestHead) throws(ParseFailure) {
        owesContinue = head.expectsContinue && head.framing != .none && head.framing != .length(0)
        decoder = BodyDecoder(head.framing)
        bodyPace = TransferPace(now: 0)
        deadline = .max
        var request = try ServerRequest(
            method: head.method,
            rawTarget: head.target,
            headers: head.fields,
            body: body(head.framing),
            requestID: requestID(head.fields)
        )
        request.remoteAddress = remoteAddress
        request.peerKey = channel.peerKey
        state = .handling
        // `advance` goes on from here, in its loop: calls within calls would end the stack, and with it the server.
        if let response = router.handleImmediately(&request) { return beginAnswer(response, to: head) }
        let (router, loop) = (router, loop)
        handler = Task { [request] in
            let response = await router.handle(request)
            loop.submit {
                self.handler = nil
                self.beginAnswer(response, to: head)
                self.advance()
            }
        }
        // Who sent several requests at once may have gone before this one's turn.
        if peerHasClosed { handler?.cancel() }
    }

    /// The body as the handler reads it: in memory where the whole of it came with the head.
    private func body(_ framing: RequestHead.Framing) -> any RequestBody {
        switch framing {
        case .none: return MemoryBody([])
        case .length(let count) where count <= input.count - inputStart && !owesContinue:
            let bytes = Array(input[inputStart..<(inputStart + count)])
            inputStart += count
            if inputStart == input.count { compactInput() }
            decoder = BodyDecoder(.none)
            return MemoryBody(bytes)
        case .length(let count): return ConnectionBody(connection: self, contentLength: count)
        case .chunked: return ConnectionBody(connection: self, contentLength: nil)
        }
    }

    /// A read that had space to spare was the last one for now, unless the peer's end is behind it: no event will tell of that again.
    func noteRead(_ count: Int) {
        if count < loop.scratch.count && channel.shortReadMeansDrained && !peerHasClosed { canRead = false }
    }

    private func block(_ readiness: ChannelResult.Readiness) -> Bool {
        // A channel may need to write before it can read: TLS in its handshake.
        if readiness == .readable { canRead = false } else { canWrite = false }
        return false
    }

    private func drain() -> Bool {
        do {
            while !decoder.isDone {
                if input.count > inputStart {
                    compactInput()
                    if try decoder.take(from: &input, limit: 1 << 18).isEmpty && decoder.isDone { break }
                    continue
                }
                guard canRead else { return false }
                switch channel.read(into: loop.scratch) {
                case .moved(let count): input += UnsafeRawBufferPointer(rebasing: loop.scratch[0..<count])
                case .blocked(let readiness): return block(readiness)
                case .ended, .failed:
                    end()
                    return false
                }
            }
        } catch {
            end()
            return false
        }
        awaitNextRequest()
        return true
    }

    func awaitNextRequest() {
        state = .head
        searched = 0
        let wait = input.count > inputStart ? configuration.headTimeout : configuration.idleTimeout
        deadline = loop.now + wait.nanoseconds
        if isStopping { fail(.shutDown) }
    }

    /// Answers a request that cannot be understood, and ends.
    private func refuse(_ failure: ParseFailure) {
        state = .handling
        let id = String(loop.nextIdentifier(), radix: 36)
        let response = router.refusal(failure, requestID: id)
        configuration.events.malformed(
            MalformedRequest(
                status: response.status,
                code: response.problemCode,
                detail: failure.detail,
                address: remoteAddress,
                requestID: id
            )
        )
        send(response, isHead: false, keepAlive: false, inChunks: false) { [self] in linger() }
    }

    private func beginAnswer(_ response: ServerResponse, to head: RequestHead) {
        guard case .handling = state else { return }
        let isFinished = decoder.isDone || (!owesContinue && isSmallEnoughToDrain(head.framing))
        let endsByClosing = head.isVersion10 && response.body.byteCount == nil
        // Whoever was too slow is not waited for once more.
        let isEnding = isStopping || response.status == 408
        let keepAlive = head.keepAlive && isFinished && !isEnding && !endsByClosing && hangUp == nil
        send(response, isHead: head.method == "HEAD", keepAlive: keepAlive, inChunks: !head.isVersion10) { [self] in
            if keepAlive {
                state = .draining
                // The rest of a body that nobody wants has to come in one such time; what trickles earns no more.
                deadline = loop.now + configuration.transferTimeout.nanoseconds
                if decoder.isDone { awaitNextRequest() }
            } else if decoder.isDone {
                channel.finishWriting()
                end()
            } else {
                linger()
            }
        }
    }

    private func isSmallEnoughToDrain(_ framing: RequestHead.Framing) -> Bool {
        if case .length(let length) = framing { return length <= configuration.drainByteLimit }
        return framing == .none
    }

    private func linger() {
        channel.finishWriting()
        state = .lingering
        deadline = loop.now + configuration.lingerTimeout.nanoseconds
    }

    private static let requestIDField = HTTPField.Name("X-Request-Id")

    private func requestID(_ fields: HTTPFields) -> String {
        if let name = Self.requestIDField, let value = fields[name], (1...64).contains(value.utf8.count),
            value.utf8.allSatisfy(HeadParser.isTokenByte)
        {
            return value
        }
        return String(loop.nextIdentifier(), radix: 36)
    }
}

/// How much of a transfer has moved since when: its peer must keep up with the least rate.
struct TransferPace {
    let start: Int
    var count = 0

    init(now: Int) { start = now }

    /// Until when the peer may be silent, in nanoseconds of the monotonic clock.
    func deadline(now: Int, _ configuration: ServerConfiguration) -> Int {
        let patience = configuration.transferTimeout.nanoseconds
        let earned = Double(count) / Double(max(1, configuration.leastBytesPerSecond)) * 1e9
        return min(now + patience, start + patience + Int(min(earned, 1e17)))
    }
}

extension Duration {
    /// Whole nanoseconds; fits for some 292 years.
    var nanoseconds: Int {
        Int(components.seconds) * 1_000_000_000 + Int(components.attoseconds / 1_000_000_000)
    }
}
