#if canImport(Glibc)
import Glibc
#endif

/// How many files and connections this process may have open.
enum DescriptorLimit {
    /// What the server needs beside its connections: the database, updates on their way, the log, event loops.
    private static let reserve = 256

    /// Raises the soft limit as far as the hard one lets.
    ///
    /// - Returns: What holds then.
    static func raise() -> Int {
        var limit = rlimit()
        let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
        guard getrlimit(resource, &limit) == 0 else { return .max }
        if limit.rlim_cur < limit.rlim_max {
            var raised = limit
            raised.rlim_cur = limit.rlim_max
            if setrlimit(resource, &raised) == 0 { limit = raised }
        }
        return Int(clamping: limit.rlim_cur)
    }

    /// As many connections as there are descriptors for, the file that each may send or receive included: a server that has
    /// run out of them could turn nobody away, and take no update.
    static func connections(wanted: Int, descriptors: Int) -> Int {
        min(wanted, max(descriptors / 4, (descriptors - reserve) / 2))
    }
}
