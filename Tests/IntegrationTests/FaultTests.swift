import Foundation
import TestSupport
import Testing

/// A job whose server is killed and whose clients are on a bad line, beside the same job undisturbed; each job ends by itself
/// after twenty minutes.
@Suite(.timeLimit(.minutes(60)), .serialized)
struct FaultTests {
    private struct Result: Decodable {
        var state: String
        var modelSha256: String
        var committed: Int
        var accepted: [Int]
        var spentEpsilon: Double?
        var evaluated: [Int]
        var ledger: [String: Int]
        var kills: Int
        var cuts: Int
        var drops: Int
        var repeats: Int
    }

    /// `MARTLET_FAULT_ROUNDS` asks for more than the number that keeps CI fast.
    private static let rounds = ProcessInfo.processInfo.environment["MARTLET_FAULT_ROUNDS"] ?? "8"

    private struct Sweep: Decodable {
        struct Failure: Decodable {
            var point: Int
            var state: String
        }
        var calm: Result
        var points: Int
        var lastPoint: Int
        var failures: [Failure]
    }

    private func faults<Answer: Decodable>(_ arguments: String...) throws -> Answer {
        let directory = try TemporaryDirectory()
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments =
            [
                ServerProcess.python ?? "python3", ServerProcess.repository + "/Tests/Python/faults.py",
                ServerProcess.binary, directory.path + "/data",
            ] + arguments
        let output = Pipe()
        process.standardOutput = output
        try process.run()
        let data = output.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        try #require(process.terminationStatus == 0)
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        return try decoder.decode(Answer.self, from: data)
    }

    private func job(_ mood: String, mode: String) throws -> Result { try faults(Self.rounds, "7", mood, mode) }

    /// The server dies by SIGKILL around a transaction or a file's renaming; at every eleventh such point of two rounds.
    ///
    /// `MARTLET_FAULT_ROUNDS=20 MARTLET_FAULT_POINTS=1` tries each of 20 rounds, in about a quarter of an hour.
    @Test(.slow, arguments: ["none", "central"])
    func aDeathAtAnyPointLeadsToTheSameModelAndCharges(_ mode: String) throws {
        let environment = ProcessInfo.processInfo.environment
        let every = environment["MARTLET_FAULT_POINTS"] ?? "11"
        let rounds = environment["MARTLET_FAULT_POINTS"] == nil ? "2" : Self.rounds
        let sweep: Sweep = try faults(rounds, "7", "POINTS", mode, every, mode == "none" ? "1" : "6")
        #expect(sweep.calm.state == "completed")
        // Some 28 points a round, whatever the order in which clients come.
        #expect(sweep.lastPoint > 20 * (Int(rounds) ?? 0), "\(sweep)")
        #expect(sweep.points * (Int(every) ?? 1) > 15 * (Int(rounds) ?? 0), "\(sweep)")
        #expect(sweep.failures.isEmpty, "\(sweep.failures)")
    }

    @Test(.slow) func theModelIsTheUndisturbedOneToTheBit() throws {
        let calm = try job("CALM", mode: "none")
        let faulty = try job("FAULTY", mode: "none")
        #expect(calm.state == "completed" && faulty.state == "completed")
        #expect(faulty.kills > 0 && faulty.cuts > 10 && faulty.repeats > 10, "\(faulty)")
        #expect(faulty.accepted == calm.accepted)
        #expect(faulty.modelSha256 == calm.modelSha256)
    }

    @Test(.slow) func whatWasReleasedIsInTheLedgerExactlyOnce() throws {
        let calm = try job("CALM", mode: "central")
        let faulty = try job("FAULTY", mode: "central")
        #expect(faulty.state == "completed" && faulty.kills > 0, "\(faulty)")
        // One charge a published version and a measured one, however often the server died in between; never less than was
        // released.
        #expect(faulty.ledger["committed"] == faulty.committed + faulty.evaluated.count, "\(faulty)")
        #expect(calm.evaluated.count > 1 && faulty.evaluated == calm.evaluated)
        #expect(try #require(faulty.spentEpsilon) >= #require(calm.spentEpsilon) - 1e-9)
        #expect(faulty.accepted == calm.accepted)
    }

    @Test func anUploadGoesOnAfterEveryCutAndKill9() throws {
        try PythonScript.expectSuccess("uploads.py", [])
    }

    /// Without strace only ``DurabilityTests`` of the storage looks at what the machine's end would leave.
    @Test(.enabled(if: PythonScript.isInstalled("strace"), "strace is not installed"))
    func nothingIsAcknowledgedOrPublishedBeforeItIsOnTheDisk() throws {
        try PythonScript.expectSuccess("durability.py", [])
    }
}
