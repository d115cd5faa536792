import Dispatch
import Foundation
import HTTPTypes

#if canImport(Glibc)
import Glibc
#endif

/// Why a connection ended.
enum ConnectionError: Error {
    case closedByPeer
    case timedOut
    case system(Int32)
    case shutDown
}

/// One connection: reads requests, answers them in order, waits for nothing without a deadline.
///
/// It lives on one serial queue, which its two Dispatch sources share.
actor HTTPConnection {
    private let executor: ConnectionExecutor
    private let descriptor: Int32
    private let remoteAddress: String
    private let configuration: ServerConfiguration
    private let router: Router
    private let onClose: @Sendable (ObjectIdentifier) -> Void

    private let readSource: any DispatchSourceRead
    private let writeSource: any DispatchSourceWrite
    private var waiter: (continuation: CheckedContinuation<Void, any Error>, isRead: Bool)?
    private var deadline: ContinuousClock.Instant?
    private var buffer: [UInt8] = []
    private var failure: ConnectionError?
    private var isAnswering = false
    private var isStopping = false
    private var owesContinue = false

    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    init(
        descriptor: Int32,
        remoteAddress: String,
        configuration: ServerConfiguration,
        router: Router,
        onClose: @escaping @Sendable (ObjectIdentifier) -> Void
    ) {
        let executor = ConnectionExecutor()
        self.executor = executor
        self.descriptor = descriptor
        self.remoteAddress = remoteAddress
        self.configuration = configuration
        self.router = router
        self.onClose = onClose
        readSource = DispatchSource.makeReadSource(fileDescriptor: descriptor, queue: executor.queue)
        writeSource = DispatchSource.makeWriteSource(fileDescriptor: descriptor, queue: executor.queue)
    }

    /// Serves requests until the connection ends.
    func serve() async {
        // A source may not be released while it is suspended: both are resumed once more before they are cancelled.
        readSource.setEventHandler { [weak self] in self?.assumeIsolated { $0.ready(isRead: true) } }
        writeSource.setEventHandler { [weak self] in self?.assumeIsolated { $0.ready(isRead: false) } }
        while await serveOne() {}
        shutdown(descriptor, Int32(SHUT_RDWR))
        let socket = descriptor
        let write = writeSource
        readSource.setCancelHandler {
            write.setCancelHandler { close(socket) }
            write.resume()
            write.cancel()
        }
        readSource.resume()
        readSource.cancel()
        onClose(ObjectIdentifier(self))
    }

    /// Ends waits whose deadline has passed.
    func sweep(now: ContinuousClock.Instant) {
        if let deadline, deadline <= now { fail(.timedOut) }
    }

    /// Lets the request in progress finish, and ends the connection.
    func stop(force: Bool) {
        isStopping = true
        if force || !isAnswering { fail(.shutDown) }
    }

    // MARK: - One request

    private func serveOne() async -> Bool {
        do {
            guard let headBytes = try await receiveHead() else { return false }
            isAnswering = true
            defer { isAnswering = false }
            let head: RequestHead
            var request: ServerRequest
            let body: ConnectionBody
            do {
                head = try HeadParser.parse(headBytes[...], fieldLimit: configuration.headerFieldLimit)
                owesContinue = head.expectsContinue && head.framing != .none && head.framing != .length(0)
                body = ConnectionBody(connection: self, framing: head.framing)
                request = try ServerRequest(
                    method: head.method,
                    rawTarget: head.target,
                    headers: head.fields,
                    body: body,
                    requestID: Self.requestID(head.fields)
                )
                request.remoteAddress = remoteAddress
            } catch {
                try await send(router.errorHandler(error, nil), method: "GET", keepAlive: false)
                await lingerBeforeClose()
                return false
            }
            let response = await router.handle(request)
            let finished = await body.isFinished || (!owesContinue && smallEnoughToDrain(head.framing))
            let endsByClosing = head.isVersion10 && response.body.byteCount == nil
            let keepAlive = head.keepAlive && finished && !isStopping && !endsByClosing
            try await send(response, method: head.method, keepAlive: keepAlive, allowsChunks: !head.isVersion10)
            guard keepAlive else {
                if await !body.isFinished { await lingerBeforeClose() }
                return false
            }
            while try await body.read() != nil {}
            return true
        } catch {
            return false
        }
    }

    private func smallEnoughToDrain(_ framing: RequestHead.Framing) -> Bool {
        if case .length(let length) = framing { return length <= configuration.drainByteLimit }
        return framing == .none
    }

    /// Reads on for a moment after the last answer, so that it is not lost to a reset.
    private func lingerBeforeClose() async {
        shutdown(descriptor, Int32(SHUT_WR))
        var remaining = configuration.drainByteLimit * 16
        while remaining > 0 {
            buffer = []
            guard (try? await receiveMore(within: .seconds(1))) != nil else { return }
            remaining -= buffer.count
        }
    }

    private static func requestID(_ fields: HTTPFields) -> String {
        if let name = HTTPField.Name("X-Request-Id"), let value = fields[name], (1...64).contains(value.utf8.count),
            value.utf8.allSatisfy(HeadParser.isTokenByte)
        {
            return value
        }
        return String(UInt64.random(in: 0...UInt64.max), radix: 36)
    }

    private func receiveHead() async throws -> [UInt8]? {
        var searched = 0
        while true {
            // Empty lines before a request are skipped, as RFC 9112 section 2.2 allows.
            while buffer.starts(with: [13, 10]) { buffer.removeFirst(2) }
            if let end = HeadParser.endOfHead(buffer[...], searchFrom: searched), end <= configuration.headByteLimit {
                let head = Array(buffer[0..<end])
                buffer.removeFirst(end)
                return head
            }
            searched = buffer.count
            guard buffer.count <= configuration.headByteLimit else {
                try await send(
                    router.errorHandler(
                        ParseFailure(status: 431, detail: "the head is over \(configuration.headByteLimit) bytes"),
                        nil
                    ),
                    method: "GET",
                    keepAlive: false
                )
                await lingerBeforeClose()
                return nil
            }
            if isStopping { return nil }
            if buffer.isEmpty {
                deadline = .now + configuration.idleTimeout
            } else if deadline == nil {
                deadline = .now + configuration.headTimeout
            }
            let wasEmpty = buffer.isEmpty
            do {
                try await receiveMore(within: nil)
            } catch ConnectionError.timedOut where !buffer.isEmpty {
                failure = nil
                try await send(
                    router.errorHandler(ParseFailure(status: 408, detail: "the head took too long"), nil),
                    method: "GET",
                    keepAlive: false
                )
                return nil
            }
            if wasEmpty { deadline = .now + configuration.headTimeout }
        }
    }

    /// The next bytes of the body that is being read.
    fileprivate func bodyBytes(_ decoder: inout BodyDecoder) async throws -> [UInt8]? {
        if owesContinue {
            owesContinue = false
            try await write(Array("HTTP/1.1 100 Continue\r\n\r\n".utf8)[...])
        }
        while true {
            let bytes = try decoder.take(from: &buffer, limit: 1 << 18)
            if !bytes.isEmpty { return bytes }
            if decoder.isDone { return nil }
            try await receiveMore(within: configuration.transferTimeout)
        }
    }

    private func send(
        _ response: ServerResponse,
        method: String,
        keepAlive: Bool,
        allowsChunks: Bool = true
    ) async throws {
        var head = "HTTP/1.1 \(response.status) \(response.reasonPhrase)\r\n"
        for field in response.headers { head += "\(field.name.rawName): \(field.value)\r\n" }
        head += "Date: \(HTTPDate.now())\r\n"
        let hasBody = response.status != 204 && response.status != 304
        if hasBody {
            if let count = response.body.byteCount {
                head += "Content-Length: \(count)\r\n"
            } else if allowsChunks {
                head += "Transfer-Encoding: chunked\r\n"
            }
        }
        head += keepAlive ? "\r\n" : "Connection: close\r\n\r\n"
        var bytes = Array(head.utf8)
        guard method != "HEAD" && hasBody else { return try await write(bytes[...]) }
        switch response.body {
        case .none: try await write(bytes[...])
        case .bytes(let body):
            bytes += body
            try await write(bytes[...])
        case .file(let path, let range):
            try await write(bytes[...])
            try await sendFile(path, range)
        case .stream(let produce):
            try await write(bytes[...])
            // An error in the middle ends the connection without the last chunk, so that the peer notices.
            try await produce { block in try await self.writeBlock(block, inChunks: allowsChunks) }
            if allowsChunks { try await write(Array("0\r\n\r\n".utf8)[...]) }
        }
    }

    private func writeBlock(_ block: [UInt8], inChunks: Bool) async throws {
        guard !block.isEmpty else { return }
        guard inChunks else { return try await write(block[...]) }
        var bytes = Array((String(block.count, radix: 16) + "\r\n").utf8)
        bytes += block
        bytes += [13, 10]
        try await write(bytes[...])
    }

    private func sendFile(_ path: String, _ range: Range<Int>) async throws {
        let file = open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { throw ConnectionError.system(errno) }
        defer { close(file) }
        var offset = off_t(range.lowerBound)
        while Int(offset) < range.upperBound {
            let sent = sendfile(descriptor, file, &offset, min(1 << 20, range.upperBound - Int(offset)))
            if sent > 0 { continue }
            guard sent < 0, errno == EAGAIN || errno == EINTR else { throw ConnectionError.system(errno) }
            if errno == EAGAIN { try await wait(forRead: false, within: configuration.transferTimeout) }
        }
    }

    // MARK: - Bytes

    private func receiveMore(within timeout: Duration?) async throws {
        while true {
            if let failure { throw failure }
            let received = withUnsafeTemporaryAllocation(byteCount: 1 << 16, alignment: 16) { space -> Int in
                let count = recv(descriptor, space.baseAddress, space.count, Int32(MSG_DONTWAIT))
                if count > 0 { buffer.append(contentsOf: UnsafeRawBufferPointer(space).prefix(count)) }
                return count
            }
            if received > 0 { return }
            guard received < 0 else { throw ConnectionError.closedByPeer }
            if errno == EINTR { continue }
            guard errno == EAGAIN else { throw ConnectionError.system(errno) }
            try await wait(forRead: true, within: timeout)
        }
    }

    private func write(_ bytes: ArraySlice<UInt8>) async throws {
        var rest = bytes
        while !rest.isEmpty {
            if let failure { throw failure }
            let sent = rest.withUnsafeBytes {
                Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT))
            }
            if sent >= 0 {
                rest = rest.dropFirst(sent)
            } else if errno == EAGAIN {
                try await wait(forRead: false, within: configuration.transferTimeout)
            } else if errno != EINTR {
                throw ConnectionError.system(errno)
            }
        }
    }

    private func wait(forRead: Bool, within timeout: Duration?) async throws {
        if let timeout { deadline = .now + timeout }
        defer { if timeout != nil { deadline = nil } }
        try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
            waiter = (continuation, forRead)
            if forRead { readSource.resume() } else { writeSource.resume() }
        }
    }

    private func ready(isRead: Bool) {
        guard let current = waiter, current.isRead == isRead else { return }
        waiter = nil
        if isRead { readSource.suspend() } else { writeSource.suspend() }
        current.continuation.resume()
    }

    private func fail(_ error: ConnectionError) {
        failure = error
        deadline = nil
        guard let current = waiter else { return }
        waiter = nil
        if current.isRead { readSource.suspend() } else { writeSource.suspend() }
        current.continuation.resume(throwing: error)
    }
}

/// The body of the request that a connection is serving.
actor ConnectionBody: RequestBody {
    private let connection: HTTPConnection
    private var decoder: BodyDecoder
    nonisolated let contentLength: Int?

    init(connection: HTTPConnection, framing: RequestHead.Framing) {
        self.connection = connection
        decoder = BodyDecoder(framing)
        if case .length(let length) = framing {
            contentLength = length
        } else {
            contentLength = framing == .none ? 0 : nil
        }
    }

    var isFinished: Bool { decoder.isDone }

    func read() async throws -> [UInt8]? {
        var current = decoder
        let bytes = try await connection.nextBytes(&current)
        decoder = current
        return bytes
    }
}

extension HTTPConnection {
    fileprivate func nextBytes(_ decoder: inout BodyDecoder) async throws -> [UInt8]? {
        try await bodyBytes(&decoder)
    }
}

/// Runs a connection on its serial queue.
private final class ConnectionExecutor: SerialExecutor {
    let queue = DispatchQueue(label: "martlet.connection", target: .global())

    func enqueue(_ job: consuming ExecutorJob) {
        let unowned = UnownedJob(job)
        let executor = asUnownedSerialExecutor()
        queue.async { unowned.runSynchronously(on: executor) }
    }

    func checkIsolated() {
        dispatchPrecondition(condition: .onQueue(queue))
    }
}

/// The `Date` field's form of the present time.
enum HTTPDate {
    static func now() -> String {
        var seconds = time(nil)
        var parts = tm()
        gmtime_r(&seconds, &parts)
        let days = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"]
        let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
        func two(_ number: Int32) -> String { number < 10 ? "0\(number)" : "\(number)" }
        return
            "\(days[Int(parts.tm_wday)]), \(two(parts.tm_mday)) \(months[Int(parts.tm_mon)]) \(parts.tm_year + 1900) "
            + "\(two(parts.tm_hour)):\(two(parts.tm_min)):\(two(parts.tm_sec)) GMT"
    }
}
