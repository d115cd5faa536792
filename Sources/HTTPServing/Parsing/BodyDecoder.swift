/// Takes the body's bytes out of the connection's buffer, whatever its framing.
package struct BodyDecoder: Sendable {
    private enum State: Equatable {
        case length(Int)
        case chunkSize
        case chunkData(Int)
        case chunkEnd
        case trailers(Int)
        case done
    }

    private var state: State
    private static let lineLimit = 1024
    private static let trailerLimit = 8192

    package init(_ framing: RequestHead.Framing) {
        switch framing {
        case .none, .length(0): state = .done
        case .length(let count): state = .length(count)
        case .chunked: state = .chunkSize
        }
    }

    /// The bytes still to come, where the framing says.
    package var remainingLength: Int? {
        switch state {
        case .length(let count): count
        case .done: 0
        default: nil
        }
    }

    /// Whether the whole body has been taken.
    package var isDone: Bool { state == .done }

    /// Consumes what it can from the front of `buffer`.
    ///
    /// - Returns: Body bytes; empty when more input is needed or the body is done.
    package mutating func take(from buffer: inout [UInt8], limit: Int) throws(ParseFailure) -> [UInt8] {
        while true {
            switch state {
            case .done: return []
            case .length(let remaining):
                let count = min(remaining, buffer.count, limit)
                guard count > 0 else { return [] }
                state = remaining == count ? .done : .length(remaining - count)
                return Self.removeFirst(count, from: &buffer)
            case .chunkData(let remaining):
                let count = min(remaining, buffer.count, limit)
                guard count > 0 else { return [] }
                state = remaining == count ? .chunkEnd : .chunkData(remaining - count)
                return Self.removeFirst(count, from: &buffer)
            case .chunkEnd:
                guard buffer.count >= 2 else { return [] }
                guard buffer[0] == 13, buffer[1] == 10 else { throw Self.bad("a chunk does not end with CR LF") }
                buffer.removeFirst(2)
                state = .chunkSize
            case .chunkSize:
                guard let line = try Self.line(from: &buffer) else { return [] }
                let size = try Self.chunkSize(line)
                state = size == 0 ? .trailers(0) : .chunkData(size)
            case .trailers(let seen):
                guard let line = try Self.line(from: &buffer) else { return [] }
                if line.isEmpty {
                    state = .done
                } else {
                    guard seen + line.count <= Self.trailerLimit else { throw Self.bad("the trailers are too long") }
                    guard let colon = line.firstIndex(of: 58), colon > 0,
                        line[..<colon].allSatisfy(HeadParser.isTokenByte),
                        line.allSatisfy({ $0 == 9 || ($0 >= 32 && $0 != 127) })
                    else { throw Self.bad("a trailer is malformed") }
                    state = .trailers(seen + line.count)
                }
            }
        }
    }

    private static func line(from buffer: inout [UInt8]) throws(ParseFailure) -> [UInt8]? {
        guard let end = buffer.firstIndex(of: 10) else {
            guard buffer.count <= lineLimit else { throw bad("a chunk line is too long") }
            return nil
        }
        guard end > 0, end <= lineLimit, buffer[end - 1] == 13 else { throw bad("a chunk line is malformed") }
        let line = Array(buffer[0..<(end - 1)])
        buffer.removeFirst(end + 1)
        return line
    }

    private static func chunkSize(_ line: [UInt8]) throws(ParseFailure) -> Int {
        let digits = line.prefix { $0 != 59 }
        guard !digits.isEmpty, digits.count <= 14,
            line.allSatisfy({ $0 == 9 || ($0 >= 32 && $0 != 127) }),
            let size = Int(String(decoding: digits, as: UTF8.self), radix: 16), digits.first != 43, digits.first != 45
        else { throw bad("a chunk size is malformed") }
        return size
    }

    private static func removeFirst(_ count: Int, from buffer: inout [UInt8]) -> [UInt8] {
        if count == buffer.count {
            let all = buffer
            buffer = []
            return all
        }
        let part = Array(buffer[0..<count])
        buffer.removeFirst(count)
        return part
    }

    private static func bad(_ detail: String) -> ParseFailure { ParseFailure(status: 400, detail: detail) }
}
