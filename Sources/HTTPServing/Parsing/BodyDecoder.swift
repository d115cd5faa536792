/// Extracts the body's bytes from the connection's buffer, for every framing.
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

    /// How many bytes are still to come; `nil` for chunks.
    package var remainingLength: Int? {
        switch state {
        case .length(let count): count
        case .done: 0
        default: nil
        }
    }

    /// Whether the whole body has been extracted.
    package var isDone: Bool { state == .done }

    /// Consumes what it can from the front of `buffer`.
    ///
    /// Chunks are gathered, so that a body in chunks of one byte needs no more calls than a whole one, and the buffer is moved once.
    ///
    /// - Returns: Body bytes, `limit` at most; empty when more input is needed or the body is done.
    package mutating func take(from buffer: inout [UInt8], limit: Int) throws(ParseFailure) -> [UInt8] {
        switch state {
        case .done: return []
        case .length(let remaining):
            let count = min(remaining, buffer.count, limit)
            guard count > 0 else { return [] }
            state = remaining == count ? .done : .length(remaining - count)
            return Self.removeFirst(count, from: &buffer)
        default: break
        }
        var body: [UInt8] = []
        var place = 0
        var goesOn = true
        while goesOn && body.count < limit {
            let before = (place: place, state: state)
            do throws(ParseFailure) {
                goesOn = try step(buffer, &place, &body, limit)
            } catch {
                // Bytes before the fault are returned first, so that the result does not depend on how the input was cut.
                guard !body.isEmpty else { throw error }
                (place, state) = before
                goesOn = false
            }
        }
        if place > 0 { buffer.removeFirst(place) }
        return body
    }

    /// Consumes one piece of a chunked body; `false` if it needs more input or the body is done.
    private mutating func step(
        _ buffer: [UInt8],
        _ place: inout Int,
        _ body: inout [UInt8],
        _ limit: Int
    ) throws(ParseFailure) -> Bool {
        switch state {
        case .done, .length: return false
        case .chunkData(let remaining):
            let count = min(remaining, buffer.count - place, limit - body.count)
            guard count > 0 else { return false }
            body += buffer[place..<place + count]
            place += count
            state = remaining == count ? .chunkEnd : .chunkData(remaining - count)
        case .chunkEnd:
            guard buffer.count - place >= 2 else { return false }
            guard buffer[place] == 13, buffer[place + 1] == 10 else {
                throw Self.bad("a chunk does not end with CR LF")
            }
            place += 2
            state = .chunkSize
        case .chunkSize:
            guard let line = try Self.line(buffer, &place, "a chunk line") else { return false }
            let size = try Self.chunkSize(line)
            state = size == 0 ? .trailers(0) : .chunkData(size)
        case .trailers(let seen):
            guard let line = try Self.line(buffer, &place, "a trailer line") else { return false }
            guard !line.isEmpty else {
                state = .done
                return false
            }
            guard seen + line.count <= Self.trailerLimit else {
                throw Self.bad("the trailers are over \(Self.trailerLimit) bytes")
            }
            guard let colon = line.firstIndex(of: 58), colon > line.startIndex,
                line[..<colon].allSatisfy(HeadParser.isTokenByte),
                line.allSatisfy({ $0 == 9 || ($0 >= 32 && $0 != 127) })
            else { throw Self.bad("a trailer line is malformed") }
            state = .trailers(seen + line.count)
        }
        return true
    }

    /// The next line without its end; `nil` while it is incomplete.
    private static func line(
        _ buffer: [UInt8],
        _ place: inout Int,
        _ name: String
    ) throws(ParseFailure) -> ArraySlice<UInt8>? {
        let window = buffer[place..<min(buffer.count, place + lineLimit + 1)]
        guard let end = window.firstIndex(of: 10) else {
            guard buffer.count - place <= lineLimit else { throw bad("\(name) is over \(lineLimit) bytes") }
            return nil
        }
        guard end > place, buffer[end - 1] == 13 else { throw bad("\(name) does not end with CR LF") }
        defer { place = end + 1 }
        return buffer[place..<end - 1]
    }

    private static func chunkSize(_ line: ArraySlice<UInt8>) throws(ParseFailure) -> Int {
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
