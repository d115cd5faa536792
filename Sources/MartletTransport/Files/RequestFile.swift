import CLibrary
package import Foundation

/// The rest of a file that is to be sent, for transports that cannot begin in the middle of one.
package enum RequestFile {
    /// Bytes that are kept in memory rather than copied.
    private static let memoryLimit = 1 << 20

    /// What is sent of a file.
    package enum Part: Sendable {
        /// Bytes in memory.
        case bytes(Data)
        /// A whole file.
        case file(path: String)
        /// A copy of the rest, to be removed afterwards.
        case copy(path: String)
    }

    /// Opens the part of a file from an offset on.
    ///
    /// - Throws: ``ClientError`` of this device's files; `state_damaged` where the file ends before the offset.
    package static func part(_ path: String, from offset: Int, followsLinks: Bool) throws(ClientError) -> Part {
        let descriptor = followsLinks ? open(path, O_RDONLY | O_CLOEXEC) : PlainFile.open(path, O_RDONLY)
        guard descriptor >= 0 else { throw LocalFailure.error("read", path, errno) }
        defer { close(descriptor) }
        let size = Int(lseek(descriptor, 0, SEEK_END))
        guard size >= 0 else { throw LocalFailure.error("read", path, errno) }
        guard offset <= size else {
            throw ClientError(
                code: "state_damaged",
                message: "\(path) has fewer bytes than the server says have arrived of it"
            )
        }
        if size - offset <= memoryLimit {
            var data = Data()
            try blocks(of: descriptor, path, from: offset) { block throws(ClientError) in data.append(contentsOf: block)
            }
            return .bytes(data)
        }
        guard offset > 0 else { return .file(path: path) }
        return .copy(path: try copy(descriptor, path, from: offset))
    }

    private static func copy(_ descriptor: Int32, _ path: String, from offset: Int) throws(ClientError) -> String {
        let target = path + ".rest-" + UUID().uuidString
        let copy = open(target, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard copy >= 0 else { throw LocalFailure.error("write", target, errno) }
        defer { close(copy) }
        do throws(ClientError) {
            try blocks(of: descriptor, path, from: offset) { block throws(ClientError) in
                var rest = block
                while !rest.isEmpty {
                    let count = write(copy, rest.baseAddress, rest.count)
                    if count < 0 && errno == EINTR { continue }
                    guard count > 0 else {
                        throw LocalFailure.error("write", target, count < 0 ? errno : ENOSPC)
                    }
                    rest = UnsafeRawBufferPointer(rebasing: rest[count...])
                }
            }
        } catch {
            unlink(target)
            throw error
        }
        return target
    }

    private static func blocks(
        of descriptor: Int32,
        _ path: String,
        from offset: Int,
        _ body: (UnsafeRawBufferPointer) throws(ClientError) -> Void
    ) throws(ClientError) {
        var block = [UInt8](repeating: 0, count: 1 << 18)
        var position = offset
        while true {
            let count = pread(descriptor, &block, block.count, off_t(position))
            if count < 0 && errno == EINTR { continue }
            guard count >= 0 else { throw LocalFailure.error("read", path, errno) }
            guard count > 0 else { return }
            var failure: ClientError?
            block.withUnsafeBytes { raw in
                do throws(ClientError) { try body(UnsafeRawBufferPointer(rebasing: raw[..<count])) } catch {
                    failure = error
                }
            }
            if let failure { throw failure }
            position += count
        }
    }
}
