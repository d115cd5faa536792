import WireFormat

#if canImport(Glibc)
import Glibc
#endif

extension StorageHealth {
    /// What the disk refuses now.
    var problems: [ProblemView] {
        current.map { trouble in
            let advice = trouble.failure.advice.map { " To do: \($0)." } ?? ""
            return ProblemView(
                code: trouble.failure.problemCode,
                severity: "error",
                count: trouble.count,
                detail: "\(trouble.failure.sentence.prefix(1).uppercased() + trouble.failure.sentence.dropFirst()): "
                    + "\(trouble.count) times since \(trouble.since.wireTimestamp).\(advice)"
            )
        }
    }
}

extension DiskView {
    /// How full the file system of a directory is; `nil` if it does not say.
    init?(directory: String) {
        var status = statvfs()
        guard statvfs(directory, &status) == 0 else { return nil }
        let unit = Int(status.f_frsize)
        self.init(freeBytes: unit * Int(status.f_bavail), totalBytes: unit * Int(status.f_blocks))
    }

    /// Whether there is little space left.
    var problem: ProblemView? {
        guard totalBytes > 0 else { return nil }
        let share = Int(Double(freeBytes) / Double(totalBytes) * 100)
        guard share < 10 || freeBytes < 1 << 30 else { return nil }
        return ProblemView(
            code: "disk_nearly_full",
            severity: freeBytes < 256 << 20 ? "error" : "warning",
            count: share,
            detail: "\(freeBytes / (1 << 20)) MiB (\(share)%) are free where the data directory lies."
        )
    }
}
