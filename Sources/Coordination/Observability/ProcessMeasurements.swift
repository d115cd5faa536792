import Foundation

#if canImport(Glibc)
import Glibc
#endif

/// What the kernel says about this process.
package enum ProcessMeasurements {
    private static let start = Date().timeIntervalSince1970

    package static func measure(into metrics: MetricsRegistry) {
        if let text = try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8),
            let pages = text.split(separator: " ").dropFirst().first.flatMap({ Double($0) })
        {
            metrics.set("process_resident_memory_bytes", pages * Double(sysconf(Int32(_SC_PAGESIZE))))
        }
        let open = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd"))?.count ?? 0
        metrics.set("process_open_fds", Double(open))
        var limit = rlimit()
        if getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 {
            metrics.set("process_max_fds", Double(limit.rlim_cur))
        }
        var usage = rusage()
        if getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage) == 0 {
            let seconds = usage.ru_utime.tv_sec + usage.ru_stime.tv_sec
            let microseconds = usage.ru_utime.tv_usec + usage.ru_stime.tv_usec
            metrics.set("process_cpu_seconds_total", Double(seconds) + Double(microseconds) / 1e6)
        }
        metrics.set("process_start_time_seconds", start)
    }
}
