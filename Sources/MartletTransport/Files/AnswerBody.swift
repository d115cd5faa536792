import CLibrary
package import Foundation

/// Takes an answer's body as its request wants it, for every transport: into the request's file or into memory, and no more
/// bytes than may come.
///
/// One thread at a time uses it, and the one that made it closes it.
package struct AnswerBody {
    /// What went to no file.
    package private(set) var memory = Data()
    /// Bytes of the body that have come.
    package private(set) var byteCount = 0
    private let request: TransportRequest
    private var file: UnsafeMutablePointer<FILE>?
    /// Bytes of the file, those before the part that was asked for included.
    private var fileByteCount = 0
    /// Bytes of an explanation that comes in a file's place, at most.
    private static let explanationLimit = 1 << 20

    /// Waits for the answer to a request.
    package init(_ request: TransportRequest) { self.request = request }

    /// Takes the next bytes.
    ///
    /// - Parameters:
    ///   - bytes: The bytes.
    ///   - status: The answer's.
    ///   - headers: The answer's, names in lower case.
    /// - Throws: ``ClientError``: `server_invalid` for more than may come, `network` for a part that begins elsewhere than asked,
    ///   and this device's own failures.
    package mutating func take(
        _ bytes: UnsafeRawBufferPointer,
        status: Int,
        headers: [String: String]
    ) throws(ClientError) {
        let head = TransportResponse(status: status, headers: headers)
        // What somebody sends in the server's place goes to no file: what has arrived before stays.
        if let destination = request.destination, status == 200 || status == 206, request.takes(head) {
            let file = try opened(destination, isPart: status == 206, headers)
            guard bytes.count <= request.byteLimit - fileByteCount else { throw tooLong("the file") }
            fileByteCount += bytes.count
            byteCount += bytes.count
            guard fwrite(bytes.baseAddress, 1, bytes.count, file) == bytes.count else {
                throw LocalFailure.error("write", destination, errno)
            }
        } else {
            // What is no file is an explanation, and is kept in memory.
            let limit = request.destination == nil ? request.byteLimit : Self.explanationLimit
            guard bytes.count <= limit - memory.count else {
                throw request.isForeign(head) ? .foreign(head, url: request.url) : tooLong("the answer")
            }
            memory.append(contentsOf: bytes)
            byteCount += bytes.count
        }
    }

    /// Writes what is still in the buffer: a full disk may show itself here first.
    ///
    /// - Throws: ``ClientError`` of this device's files.
    package mutating func close() throws(ClientError) {
        guard let file else { return }
        self.file = nil
        guard fclose(file) == 0 else { throw LocalFailure.error("write", request.destination ?? "", errno) }
    }

    /// The file of the answer's body: anew, or where the part that was asked for begins.
    private mutating func opened(
        _ destination: String,
        isPart: Bool,
        _ headers: [String: String]
    ) throws(ClientError) -> UnsafeMutablePointer<FILE> {
        if let file { return file }
        let offset = request.destinationOffset
        if isPart, headers["content-range"]?.hasPrefix("bytes \(offset)-") != true {
            throw ClientError(
                code: "network",
                message: "the part of \(request.url) that came is not the one that was asked for"
            )
        }
        // A link, wherever it leads, is not followed.
        let flags = isPart ? O_RDWR : O_WRONLY | O_CREAT | O_TRUNC
        let descriptor = PlainFile.open(destination, flags)
        guard descriptor >= 0 else { throw LocalFailure.error("write", destination, errno) }
        guard let opened = fdopen(descriptor, isPart ? "r+b" : "wb") else {
            let code = errno
            CLibrary.close(descriptor)
            throw LocalFailure.error("write", destination, code)
        }
        file = opened
        guard isPart else { return opened }
        guard ftruncate(descriptor, off_t(offset)) == 0, fseek(opened, offset, SEEK_SET) == 0 else {
            throw LocalFailure.error("write", destination, errno)
        }
        fileByteCount = offset
        return opened
    }

    private func tooLong(_ what: String) -> ClientError {
        ClientError(
            code: ClientError.serverInvalid,
            message: "\(what) of \(request.url) is longer than it may be (\(request.byteLimit) bytes)"
        )
    }
}
