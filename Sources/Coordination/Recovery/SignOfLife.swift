import Foundation

#if canImport(Glibc)
import Glibc
#endif

/// The file whose time says when a server was last there.
struct SignOfLife: Sendable {
    let path: String
    /// When it was last touched.
    private var markedAt = Date.distantPast

    init(path: String) {
        self.path = path
    }

    /// Says that the server is there now: once a second at most, and no disk is waited for.
    mutating func mark(at now: Date) {
        guard abs(now.timeIntervalSince(markedAt)) >= 1 else { return }
        markedAt = now
        let seconds = now.timeIntervalSince1970
        var times = [timespec(), timespec()]
        for index in times.indices {
            times[index].tv_sec = Int(seconds.rounded(.down))
            times[index].tv_nsec = Int((seconds - seconds.rounded(.down)) * 1e9)
        }
        if utimensat(AT_FDCWD, path, times, 0) != 0, errno == ENOENT {
            let file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0o600)
            guard file >= 0 else { return }
            futimens(file, times)
            close(file)
        }
    }

    /// When an earlier process was last there; `nil` if no one was.
    func last() -> Date? {
        var status = stat()
        guard stat(path, &status) == 0 else { return nil }
        return Date(timeIntervalSince1970: Double(status.st_mtim.tv_sec) + Double(status.st_mtim.tv_nsec) * 1e-9)
    }
}
