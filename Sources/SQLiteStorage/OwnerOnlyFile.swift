#if canImport(Glibc)
import Glibc
#endif

/// Keeps other users of the machine out of databases, which hold clients' labels, hashes of tokens and the audit log.
package enum OwnerOnlyFile {
    /// Creates the file with mode 0600 if there is none, and removes the permissions of group and others from an existing one.
    ///
    /// SQLite by itself creates 0644, and gives its `-wal` and `-shm` files the mode of the database. Errors are not reported here: they
    /// show when the database is opened.
    package static func make(_ path: String) {
        // An existing file is not opened: closing it would release the POSIX locks of this process's other connections.
        let descriptor = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        if descriptor >= 0 { close(descriptor) }
        for suffix in ["", "-wal", "-shm"] {
            var status = stat()
            guard stat(path + suffix, &status) == 0, status.st_mode & 0o077 != 0 else { continue }
            chmod(path + suffix, status.st_mode & 0o700)
        }
    }
}
