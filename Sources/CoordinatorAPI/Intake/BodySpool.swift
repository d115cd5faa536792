import Coordination
import Crypto
import Foundation
import HTTPServing
package import HTTPTypes
import Synchronization

#if canImport(Glibc)
import Glibc
#endif

/// Takes a bulk body to a file of the spool in one pass: hashed while it is written, its digest checked, synced.
enum BodySpool {
    /// Streams the body and checks its digest; the caller removes the file, whatever becomes of it.
    ///
    /// - Parameters:
    ///   - request: Whose body it is.
    ///   - path: The file, which must not exist.
    ///   - byteLimit: The largest size it may have.
    ///   - lease: Room for an update's bytes; without it they stop coming.
    /// - Returns: The file, on its way to the disk; whoever acknowledges it waits with ``SyncQueue`` first.
    /// - Throws: ``CoordinationError`` where it is too large, nobody waits for it any more, its digest is another one or the
    ///   disk refuses it; what the body throws.
    static func receive(
        _ request: ServerRequest,
        path: String,
        byteLimit: Int,
        lease: UploadBudget.Lease? = nil
    ) async throws -> SpoolFile {
        let length = request.body.contentLength
        if let length, length > byteLimit { throw tooLarge(byteLimit) }
        let expected = try ContentDigest.contentDigest(of: request)
        let file = try SpoolFile(path: path, expectedByteCount: length)
        let sink = LimitedSink(file, byteLimit: byteLimit, lease: lease)
        try await request.body.receive(into: sink)
        if let expected, try expected != sink.written.digest() { throw ContentDigest.mismatch("Content-Digest") }
        sink.written.startFlush()
        return sink.written
    }

    /// Hashes a body of which nothing is kept; its digest is checked too.
    ///
    /// - Parameters:
    ///   - request: Whose body it is.
    ///   - byteLimit: The largest size it may have.
    ///   - lease: Room for an update's bytes; without it they stop coming.
    /// - Returns: SHA-256 and size.
    /// - Throws: ``CoordinationError`` as ``receive(_:path:byteLimit:lease:)``.
    static func hash(
        _ request: ServerRequest,
        byteLimit: Int,
        lease: UploadBudget.Lease
    ) async throws -> (digest: [UInt8], byteCount: Int) {
        let expected = try ContentDigest.contentDigest(of: request)
        let sink = HashingSink(byteLimit: byteLimit, lease: lease)
        try await request.body.receive(into: sink)
        let (digest, byteCount) = sink.result
        if let expected, expected != digest { throw ContentDigest.mismatch("Content-Digest") }
        return (digest, byteCount)
    }

    static func tooLarge(_ byteLimit: Int) -> CoordinationError {
        CoordinationError(.tooLarge, "too_large", "the body may have at most \(byteLimit) bytes")
    }
}

/// Refuses the byte after the last one allowed, and all of them once there is no room for them; has the file until it is asked for it.
final class LimitedSink: BodySink {
    private let file: Mutex<SpoolFile>
    private let byteLimit: Int
    private let lease: UploadBudget.Lease?

    init(_ file: SpoolFile, byteLimit: Int, lease: UploadBudget.Lease?) {
        self.file = Mutex(file)
        self.byteLimit = byteLimit
        self.lease = lease
    }

    /// The file; nothing may be written afterwards.
    var written: SpoolFile { file.withLock { $0 } }

    func write(_ bytes: UnsafeRawBufferPointer) throws {
        try lease?.check(bytes.count)
        try file.withLock { file in
            guard file.byteCount + bytes.count <= byteLimit else { throw BodySpool.tooLarge(byteLimit) }
            try file.write(bytes)
        }
    }
}

/// Hashes a body and forgets it.
private final class HashingSink: BodySink {
    private struct State: Sendable {
        var hash = SHA256()
        var byteCount = 0
    }

    private let state = Mutex(State())
    private let byteLimit: Int
    private let lease: UploadBudget.Lease

    init(byteLimit: Int, lease: UploadBudget.Lease) {
        self.byteLimit = byteLimit
        self.lease = lease
    }

    var result: (digest: [UInt8], byteCount: Int) {
        state.withLock { (Array($0.hash.finalize()), $0.byteCount) }
    }

    func write(_ bytes: UnsafeRawBufferPointer) throws {
        try lease.check(bytes.count)
        try state.withLock { state in
            guard state.byteCount + bytes.count <= byteLimit else { throw BodySpool.tooLarge(byteLimit) }
            state.hash.update(bufferPointer: bytes)
            state.byteCount += bytes.count
        }
    }
}

/// `Content-Digest` and `Repr-Digest`, RFC 9530: the SHA-256 of a message's content, and of the whole file.
package enum ContentDigest {
    /// What the request says about its own content.
    static func contentDigest(of request: ServerRequest) throws -> [UInt8]? {
        try value(of: contentField, named: "Content-Digest", request)
    }

    /// What the request says about the whole update, whatever part of it is its content.
    static func representationDigest(of request: ServerRequest) throws -> [UInt8]? {
        try value(of: representationField, named: "Repr-Digest", request)
    }

    /// A field's value for a hash given in hexadecimal.
    package static func text(hexadecimal: String) -> String {
        let digits = hexadecimal.compactMap(\.hexDigitValue)
        let bytes = stride(from: 0, to: digits.count - 1, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
        return "sha-256=:\(Data(bytes).base64EncodedString()):"
    }

    static func mismatch(_ field: String) -> CoordinationError {
        CoordinationError(
            .unprocessable,
            "digest_mismatch",
            "the SHA-256 of what arrived is not the one that \(field) names; send it again"
        )
    }

    package static let contentField = HTTPField.Name("Content-Digest")
    package static let representationField = HTTPField.Name("Repr-Digest")

    private static func value(
        of field: HTTPField.Name?,
        named name: String,
        _ request: ServerRequest
    ) throws -> [UInt8]? {
        guard let field, let value = request.headers[field] else { return nil }
        for item in value.split(separator: ",") {
            let trimmed = item.trimmingCharacters(in: .whitespaces)
            guard trimmed.hasPrefix("sha-256=:"), trimmed.hasSuffix(":"), trimmed.count > 10 else { continue }
            guard let data = Data(base64Encoded: String(trimmed.dropFirst(9).dropLast())), data.count == 32 else {
                break
            }
            return Array(data)
        }
        throw ParseFailure(status: 400, detail: "\(name) must be sha-256=:BASE64:")
    }
}
