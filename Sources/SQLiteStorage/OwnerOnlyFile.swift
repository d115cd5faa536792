#if canImport(Glibc)
import Glibc
#endif

/// Databases hold clients' labels, hashes of tokens and the audit log: nobody's but the server's.
enum OwnerOnlyFile {
    /// Makes a file with mode 0600 where there is none, and takes from others what they may with one that is there.
    ///
    /// SQLite by itself makes 0644, and its `-wal` and `-shm` files are as the database is. What goes wrong here shows when
    /// the database is opened.
    static func make(_ path: String) {
        // A file that is there is not opened: closing it again would end the locks of this process's other connections.
        let descriptor = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        if descriptor >= 0 { close(descriptor) }
        for suffix in ["", "-wal", "-shm"] {
            var status = stat()
            guard stat(path + suffix, &status) == 0, status.st_mode & 0o077 != 0 else { continue }
            chmod(path + suffix, status.st_mode & 0o700)
        }
    }
}
