import CLibrary
package import Foundation

/// Opens files of a state directory: no link is followed, wherever it leads, and nothing but a plain file is opened.
///
/// A link, a pipe or a device at one of the names is an error with `ELOOP`, which ``LocalFailure`` puts into words; a pipe
/// would keep the client waiting for ever.
package enum PlainFile {
    /// Opens a file.
    ///
    /// - Returns: A descriptor; -1 with `errno` as `open` sets it.
    package static func open(_ path: String, _ flags: Int32) -> Int32 {
        let descriptor = CLibrary.open(path, flags | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0o600)
        guard descriptor >= 0 else {
            // A pipe that nobody reads.
            if errno == ENXIO { errno = ELOOP }
            return descriptor
        }
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
            close(descriptor)
            errno = ELOOP
            return -1
        }
        return descriptor
    }

    /// Whether there is no plain file of that name.
    package static func isMissing(_ path: String) -> Bool {
        var status = stat()
        return lstat(path, &status) != 0 || status.st_mode & S_IFMT != S_IFREG
    }

    /// All bytes of a file.
    ///
    /// - Returns: `nil` where there is none.
    /// - Throws: ``ClientError`` of this device's files.
    package static func contents(_ path: String) throws -> Data? {
        let descriptor = open(path, O_RDONLY)
        guard descriptor >= 0 else {
            if errno == ENOENT { return nil }
            throw LocalFailure.error("read", path, errno)
        }
        defer { close(descriptor) }
        var data = Data()
        var block = [UInt8](repeating: 0, count: 64 << 10)
        while true {
            let count = CLibrary.read(descriptor, &block, block.count)
            if count < 0 && errno == EINTR { continue }
            guard count >= 0 else { throw LocalFailure.error("read", path, errno) }
            guard count > 0 else { return data }
            data.append(contentsOf: block[..<count])
        }
    }

    /// Cuts a file to nothing; one that is not there is nothing.
    ///
    /// - Throws: ``ClientError`` of this device's files.
    package static func empty(_ path: String) throws {
        let descriptor = open(path, O_WRONLY)
        guard descriptor >= 0 else {
            if errno == ENOENT { return }
            throw LocalFailure.error("write", path, errno)
        }
        defer { close(descriptor) }
        guard ftruncate(descriptor, 0) == 0 else { throw LocalFailure.error("write", path, errno) }
    }

    /// Makes a directory inside the state directory, for the owner alone, where there is none.
    ///
    /// - Throws: ``ClientError`` of this device's files; for a link too.
    package static func makeDirectory(_ path: String) throws {
        if mkdir(path, 0o700) != 0, errno != EEXIST { throw LocalFailure.error("make", path, errno) }
        var status = stat()
        guard lstat(path, &status) == 0 else { throw LocalFailure.error("open", path, errno) }
        guard status.st_mode & S_IFMT == S_IFDIR else {
            throw LocalFailure.error("open", path, status.st_mode & S_IFMT == S_IFLNK ? ELOOP : ENOTDIR)
        }
    }
}
