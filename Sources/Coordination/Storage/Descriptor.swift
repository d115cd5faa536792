package import Foundation

#if canImport(Glibc)
import Glibc
#endif

/// An open file whose failures say what the system said; closed with its last reference.
final class Descriptor: Sendable {
    private let number: Int32
    private let path: String
    private let role: StorageFailure.Role

    /// Opens a file to read.
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed`.
    init(reading path: String, role: StorageFailure.Role) throws(CoordinationError) {
        number = open(path, O_RDONLY | O_CLOEXEC)
        (self.path, self.role) = (path, role)
        guard number >= 0 else { throw DurableFiles.failure(.open, path, role) }
    }

    /// Makes a file to write, which must not exist.
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed`.
    init(creating path: String, role: StorageFailure.Role) throws(CoordinationError) {
        number = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        (self.path, self.role) = (path, role)
        guard number >= 0 else { throw DurableFiles.failure(.create, path, role) }
    }

    deinit { if number >= 0 { close(number) } }

    /// Reads so many bytes, fewer at the file's end.
    func read(_ count: Int, at offset: Int) throws(CoordinationError) -> Data {
        var data = Data(count: count)
        var done = 0
        while done < count {
            let received = data.withUnsafeMutableBytes {
                pread(number, $0.baseAddress.map { $0 + done }, count - done, off_t(offset + done))
            }
            if received < 0 && errno == EINTR { continue }
            guard received >= 0 else { throw DurableFiles.failure(.read, path, role) }
            if received == 0 { break }
            done += received
        }
        return done == count ? data : data.prefix(done)
    }

    /// Writes at the end.
    func append(_ data: Data) throws(CoordinationError) {
        guard data.withUnsafeBytes({ DurableFiles.writeAll($0, to: number) }) else {
            throw DurableFiles.failure(.write, path, role)
        }
    }

    /// Waits for the disk.
    func sync() throws(CoordinationError) {
        guard fsync(number) == 0 else { throw DurableFiles.failure(.sync, path, role) }
    }
}

extension DurableFiles {
    /// A whole file.
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed`, also where there is no such file.
    package static func read(_ path: String, role: StorageFailure.Role? = nil) throws(CoordinationError) -> Data {
        let file = try Descriptor(reading: path, role: role ?? .init(path: path))
        var data = Data()
        while true {
            let block = try file.read(1 << 16, at: data.count)
            data += block
            if block.count < 1 << 16 { return data }
        }
    }
}
