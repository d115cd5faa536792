import Crypto
import Foundation

#if canImport(Glibc)
import Glibc
import Tensors
#endif

/// Files of the spool as they are on the disk.
enum SpooledFile {
    /// The SHA-256 in hexadecimal and the size of a file, read in blocks.
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed`, also where there is no such file.
    static func measure(_ path: String) throws(CoordinationError) -> (sha256: String, byteCount: Int) {
        let file = try Descriptor(reading: path, role: .init(path: path))
        var hash = SHA256()
        var count = 0
        while true {
            let block = try file.read(1 << 20, at: count)
            hash.update(data: block)
            count += block.count
            if block.count < 1 << 20 { return (hash.finalize().hexadecimal, count) }
        }
    }

    /// The names in a directory.
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed`.
    static func names(in directory: String) throws(CoordinationError) -> [String] {
        guard let stream = opendir(directory) else { throw DurableFiles.failure(.open, directory, .directory) }
        defer { closedir(stream) }
        var names: [String] = []
        while true {
            errno = 0
            guard let entry = readdir(stream) else {
                guard errno == 0 else { throw DurableFiles.failure(.read, directory, .directory) }
                return names
            }
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name != "." && name != ".." { names.append(name) }
        }
    }
}
