import ArgumentParser
import Foundation

#if canImport(Glibc)
import Glibc
#endif

/// A run with central privacy on a disk that fails, beside the same run undisturbed; prints one JSON line.
///
/// Every job has a directory of its own. At its n-th write, sync, renaming, opening, link or read the disk fails, for a number of
/// calls; the run goes on by itself, and its models, counts, charges and files are compared with the undisturbed ones.
@main
struct FaultJob: AsyncParsableCommand {
    @Option(help: "A directory for the jobs; a file system in memory is the quickest.") var directory: String
    @Option(help: "Every so-many-th call fails in turn.") var every = 20
    @Option(help: "The first call that fails.") var first = 1
    @Option(help: "Calls in a row that fail.") var calls = 1
    @Option(help: "write, sync, rename, open, link, read or, with --device, status; without it all.") var kind: String?
    @Option(help: "EIO, ENOSPC, EDQUOT or EROFS; without it each in turn, or all of them for each call.") var error:
        String?
    @Flag(help: "All four errors for each call.") var allErrors = false
    @Flag(help: "Fill the file system of the directory and empty it again, instead of failing calls.") var fill = false
    @Option(help: "With --fill: how many jobs.") var jobs = 20
    @Option(help: "gaussian, or banded_matrix, whose noise is correlated over the rounds.") var mechanism = "gaussian"
    @Flag(help: "A device instead of a server: its state directory is what fails.") var device = false

    private struct Report: Encodable {
        var calls: [String: Int] = [:]
        var jobs = 0
        var failedCalls = 0
        var deviations: [String] = []
        var seconds = 0.0
    }

    func run() async throws {
        signal(SIGXFSZ, SIG_IGN)
        let start = Date()
        var report = Report()
        if device {
            guard let faults = Faults() else { throw ValidationError("preload faults.so, which is made of faults.c") }
            try await failDevice(faults, &report)
            return try finish(report, since: start)
        }
        let calm = try await job("calm") { job in
            try await job.play()
            return try await job.outcome()
        }
        if fill {
            try await fillAndEmpty(calm, &report)
        } else {
            guard let faults = Faults() else { throw ValidationError("preload faults.so, which is made of faults.c") }
            try await failCalls(faults, calm, &report)
        }
        try finish(report, since: start)
    }

    private func finish(_ done: Report, since start: Date) throws {
        var report = done
        report.seconds = (Date().timeIntervalSince(start) * 10).rounded() / 10
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        print(String(decoding: try encoder.encode(report), as: UTF8.self))
        if !report.deviations.isEmpty { throw ExitCode(1) }
    }

    private func job<Result>(
        _ name: String,
        _ body: (inout PrivateJob) async throws -> Result
    ) async throws -> Result {
        let place = directory + "/" + name
        try? FileManager.default.removeItem(atPath: place)
        try FileManager.default.createDirectory(atPath: place, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: place) }
        var job = try await PrivateJob(directory: place, hasBands: mechanism == "banded_matrix")
        return try await body(&job)
    }

    private func failCalls(_ faults: Faults, _ calm: PrivateJob.Outcome, _ report: inout Report) async throws {
        // How many calls of each kind there are: none of them fails.
        _ = try await job("counted") { job in
            faults.begin(job.directory, .write, number: Int(Int32.max) - calls, code: EIO, calls: 1)
            try await job.play()
            _ = faults.end()
        }
        let kinds = Faults.Kind.ofServers.filter { kind == nil || $0.name == kind }
        let counts = kinds.map { ($0, faults.count($0)) }
        for (kind, count) in counts {
            report.calls[kind.name] = count
            for (turn, number) in stride(from: first, through: count, by: every).enumerated() {
                let codes =
                    allErrors
                    ? Faults.codes
                    : error.map { name in Faults.codes.filter { $0.name == name } }
                        ?? [Faults.codes[(turn + Int(kind.rawValue)) % Faults.codes.count]]
                for code in codes {
                    report.jobs += 1
                    do {
                        let outcome = try await job("job") { job in
                            faults.begin(job.directory, kind, number: number, code: code.code, calls: calls)
                            do {
                                try await job.play()
                            } catch {
                                _ = faults.end()
                                throw error
                            }
                            report.failedCalls += faults.end()
                            try await job.settle()
                            if let lost = faults.lostAfterAll { throw Deviation("relies on a second sync: \(lost)") }
                            return try await job.outcome()
                        }
                        try compare(outcome, calm)
                    } catch {
                        report.deviations.append("\(kind.name) \(number) \(code.name): \(error)")
                    }
                }
            }
        }
    }

    /// The disk is full for some turns of the clients, at another place of each job.
    private func fillAndEmpty(_ calm: PrivateJob.Outcome, _ report: inout Report) async throws {
        for number in 0..<jobs {
            report.jobs += 1
            do {
                let filler = Filler(path: directory + "/filler")
                defer { filler.empty() }
                let (outcome, wasFull) = try await job("job") { job in
                    var wasFull = false
                    try await job.play { turn in
                        // Eight turns full, eight empty, shifted by one in each job; two pages are left or none.
                        if (turn + number) % 16 == 0 {
                            try filler.fill(leaving: number % 3 * 4096)
                            wasFull = true
                        }
                        if (turn + number) % 16 == 8 { filler.empty() }
                        if turn == 400 { filler.empty() }
                    }
                    filler.empty()
                    return (try await job.outcome(), wasFull)
                }
                report.failedCalls += wasFull ? 1 : 0
                try compare(outcome, calm)
            } catch {
                report.deviations.append("fill \(number): \(error)")
            }
        }
    }

    /// Each call of a device's in turn, or every so-many-th.
    private func failDevice(_ faults: Faults, _ report: inout Report) async throws {
        func job(_ begin: (String) -> Void) async throws -> DeviceJob.Outcome {
            let place = directory + "/device"
            try? FileManager.default.removeItem(atPath: place)
            try FileManager.default.createDirectory(atPath: place, withIntermediateDirectories: true)
            let job = DeviceJob(directory: place)
            begin(place)
            do { try await job.play() } catch {
                report.failedCalls += faults.end()
                throw error
            }
            report.failedCalls += faults.end()
            if let lost = faults.lostAfterAll { throw Deviation("relies on a second sync: \(lost)") }
            return try job.outcome()
        }
        let calm = try await job { faults.begin($0, .link, number: Int(Int32.max) - calls, code: EIO, calls: 1) }
        let kinds = Faults.Kind.ofDevices.filter { kind == nil || $0.name == kind }
        let counts = kinds.map { ($0, faults.count($0)) }
        for (kind, count) in counts {
            report.calls[kind.name] = count
            for number in stride(from: first, through: count, by: every) {
                report.jobs += 1
                do {
                    let outcome = try await job { faults.begin($0, kind, number: number, code: EIO, calls: calls) }
                    guard outcome == calm else { throw Deviation("\(outcome) and not \(calm)") }
                } catch {
                    report.deviations.append("\(kind.name) \(number): \(error)")
                }
            }
        }
    }

    private func compare(_ outcome: PrivateJob.Outcome, _ calm: PrivateJob.Outcome) throws {
        guard outcome == calm else { throw Deviation("\(outcome) and not \(calm)") }
    }
}

/// A file that takes all space of a file system.
private struct Filler {
    let path: String

    func fill(leaving byteCount: Int) throws {
        let file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
        guard file >= 0 else { return }
        defer { close(file) }
        let block = [UInt8](repeating: 1, count: 4096)
        while block.withUnsafeBytes({ write(file, $0.baseAddress, $0.count) }) > 0 {}
        let size = lseek(file, 0, SEEK_END)
        if byteCount > 0 { ftruncate(file, max(0, size - off_t(byteCount))) }
    }

    func empty() { unlink(path) }
}
