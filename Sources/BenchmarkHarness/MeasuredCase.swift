import Foundation
import StrictJSON

/// One case of one benchmark: the median of its repeats beside the limit it is judged by.
///
/// Printed as one JSON line with the keys benchmark, case, value, unit, limit, limit_name, ratio (value over limit),
/// required, repeats, min and max, with the machine and the commit, and with further figures of the case.
package struct MeasuredCase {
    /// The subject, such as `fold`.
    package var benchmark: String
    /// The case, such as `f32 k=32 n=25000000 memory`.
    package var name: String
    /// The unit of the values, such as bytes/s.
    package var unit: String
    /// One value for each repeat.
    package var values: [Double]
    /// What the hardware, or the peer, does in the same run; same unit.
    package var limit: Double?
    /// What the limit is, such as `read bandwidth, 2 threads`.
    package var limitName: String?
    /// The least ratio asked for, where the project asks for one.
    package var required: Double?
    /// More figures of this case: numbers and strings.
    package var extra: [String: any Sendable] = [:]

    package init(
        benchmark: String,
        name: String,
        unit: String,
        values: [Double],
        limit: Double? = nil,
        limitName: String? = nil,
        required: Double? = nil,
        extra: [String: any Sendable] = [:]
    ) {
        self.benchmark = benchmark
        self.name = name
        self.unit = unit
        self.values = values
        self.limit = limit
        self.limitName = limitName
        self.required = required
        self.extra = extra
    }

    package var median: Double {
        let sorted = values.sorted()
        guard !sorted.isEmpty else { return .nan }
        let middle = sorted.count / 2
        return sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
    }

    /// Prints the line.
    package func report() {
        var line: [String: Any] = [
            "benchmark": benchmark, "case": name, "value": rounded(median), "unit": unit, "repeats": values.count,
            "min": rounded(values.min() ?? .nan), "max": rounded(values.max() ?? .nan),
            "cores": ProcessInfo.processInfo.activeProcessorCount, "cpu": Machine.processor, "commit": Machine.commit,
        ]
        if let limit {
            line["limit"] = rounded(limit)
            line["ratio"] = rounded(median / limit)
        }
        if let limitName { line["limit_name"] = limitName }
        if let required { line["required"] = required }
        for (key, value) in extra { line[key] = (value as? Double).map(rounded) ?? value }
        if let text = JSONValue(foundation: line)?.text {
            print(text)
            fflush(nil)
        }
    }

    /// Five significant digits: more would be noise.
    private func rounded(_ value: Double) -> Any {
        guard value.isFinite else { return NSNull() }
        guard value != 0 else { return 0 }
        let scale = pow(10, 4 - floor(log10(abs(value))))
        let result = (value * scale).rounded() / scale
        return result == result.rounded() && abs(result) < 1e15 ? Int(result) as Any : result as Any
    }
}

/// What the figures were measured on.
package enum Machine {
    /// The processor's model name.
    package static let processor: String = {
        let text = (try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8)) ?? ""
        let line = text.split(separator: "\n").first { $0.hasPrefix("model name") }
        return line?.split(separator: ":").last.map { $0.trimmingCharacters(in: .whitespaces) } ?? "unknown"
    }()

    /// The commit of the checkout that this executable was built in, with `-dirty` where tracked files differ from it, or
    /// `unknown`.
    package static let commit: String = {
        let folder = URL(fileURLWithPath: CommandLine.arguments[0]).resolvingSymlinksInPath()
            .deletingLastPathComponent()
        func git(_ arguments: String...) -> String? {
            // Outside a checkout the executable may still be run from one.
            let places = [folder.path, "."]
            return places.lazy.compactMap { try? Command.run(["git", "-C", $0] + arguments).output }.first
        }
        guard let head = git("rev-parse", "--short", "HEAD")?.trimmingCharacters(in: .whitespacesAndNewlines),
            !head.isEmpty
        else { return "unknown" }
        let changes = git("status", "--porcelain", "--untracked-files=no") ?? ""
        // What experiments write while they run is no change of the program.
        let isDirty = changes.split(separator: "\n").contains { !$0.contains(" docs/") }
        return head + (isDirty ? "-dirty" : "")
    }()
}

/// Repeats a piece of work.
package enum Stopwatch {
    /// Seconds that the body takes.
    package static func seconds(_ body: () throws -> Void) rethrows -> Double {
        let start = ContinuousClock.now
        try body()
        return (ContinuousClock.now - start) / .seconds(1)
    }
}
