import Foundation
import TestSupport
import Testing

/// A private run whose disk fails, beside the same run undisturbed: same models to the bit, nothing acknowledged lost, ledger right.
///
/// Every twentieth call fails here; `scripts/check-disk` tries them all.
@Suite(.timeLimit(.minutes(30)), .serialized)
struct FailingDiskTests {
    private struct Report: Decodable {
        var calls: [String: Int]
        var jobs: Int
        var failedCalls: Int
        var deviations: [String]
    }

    private static let job = (ServerProcess.binary as NSString).deletingLastPathComponent + "/FaultJob"

    private func report(_ output: String) throws -> Report {
        let line = try #require(output.split(separator: "\n").last { $0.hasPrefix("{") }, "\(output)")
        return try JSONDecoder().decode(Report.self, from: Data(line.utf8))
    }

    private func library(in directory: TemporaryDirectory) throws -> String {
        let library = directory.path + "/faults.so"
        let source = ServerProcess.repository + "/Tests/FaultJob/faults.c"
        let compiled = try ServerProcess.capture(
            "/usr/bin/env",
            ["clang", "-shared", "-fPIC", "-o", library, source, "-ldl"]
        )
        try #require(compiled.status == 0, "\(compiled.output)")
        return library
    }

    /// Whatever call of a device's fails: no finished update is lost or made anew, nothing is charged twice, the error says `storage`.
    ///
    /// What it has kept is not taken for missing because it could not be read: the next update would have other bytes.
    @Test(.slow, arguments: [("1", "5"), ("3", "11")])
    func aDeviceLosesNothingWhenItsDiskFails(_ calls: String, _ every: String) throws {
        let directory = try TemporaryDirectory()
        let memory = FileManager.default.isWritableFile(atPath: "/dev/shm") ? "/dev/shm" : directory.path
        let place = memory + "/martlet-device-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: place) }
        let done = try ServerProcess.capture(
            "/usr/bin/env",
            [
                "LD_PRELOAD=" + (try library(in: directory)), Self.job, "--device", "--directory", place,
                "--calls", calls, "--every", every,
            ]
        )
        let report = try report(done.output)
        #expect(report.deviations.isEmpty, "\(report.deviations.prefix(20))")
        #expect(report.calls.count == 7 && report.calls.values.allSatisfy { $0 > 10 }, "\(report.calls)")
        #expect(report.failedCalls >= report.jobs * 9 / 10, "\(report)")
    }

    @Test(.slow, arguments: [("gaussian", "20"), ("banded_matrix", "97")])
    func aCallThatFailsChangesNothing(_ mechanism: String, _ every: String) throws {
        let directory = try TemporaryDirectory()
        let library = try library(in: directory)
        let done = try ServerProcess.capture(
            "/usr/bin/env",
            [
                "LD_PRELOAD=" + library, Self.job, "--directory", directory.path + "/jobs", "--every", every,
                "--mechanism", mechanism,
            ]
        )
        let report = try report(done.output)
        #expect(report.deviations.isEmpty, "\(report.deviations)")
        // Each kind is there, and what should have failed has.
        #expect(report.calls.count == 8 && report.calls.values.allSatisfy { $0 > 1 }, "\(report.calls)")
        #expect(report.jobs > 12 && report.failedCalls >= report.jobs * 9 / 10, "\(report)")
    }

    /// Without a name space of its own a test may not mount anything, and is told as skipped.
    private static let mayMount =
        (try? ServerProcess.capture("/usr/bin/env", ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]))?.status
        == 0

    @Test(.slow, .enabled(if: mayMount, "this machine lets nobody mount a file system of his own"))
    func aDiskThatFillsAndEmptiesChangesNothing() throws {
        let directory = try TemporaryDirectory()
        let script = """
            mount -t tmpfs -o size=4m none "$1" || exit 1
            exec "$2" --directory "$1" --fill --jobs 6
            """
        let done = try ServerProcess.capture(
            "/usr/bin/env",
            ["unshare", "-rm", "bash", "-c", script, "_", directory.path, Self.job]
        )
        let report = try report(done.output)
        #expect(report.deviations.isEmpty, "\(report.deviations)")
        #expect(report.jobs == 6 && report.failedCalls > 0)
    }
}
