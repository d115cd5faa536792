import ArgumentParser
import BenchmarkHarness
import DifferentialPrivacy
import Foundation
import Tensors

/// Very many releases, each of one client that nobody saw before or after: with nothing, or with (C, 0, …, 0) by a fair coin.
///
/// The difference of means over the noise says which noise multiplier the server really has, with decoding, clipping, weights
/// and the divisor in it. A server is started for each part of the releases, and parts add up in a file, so that the audit can
/// be as long as it needs to be and be interrupted.
struct ManyRunAuditCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "many-runs",
        abstract: "The noise multiplier and epsilon that many releases show."
    )
    @Option(help: "Releases, half of them with the client's data.") var releases = 4000
    @Option(help: "Releases of one server; then a fresh one is started.") var part = 2_000
    @Option(help: "The noise multiplier.") var noiseMultiplier = 1.0
    @Option(help: "A file that keeps every release; the audit is of all that it holds.") var samples: String?
    @Option(help: "Runs at the same time on one server.") var lanes = 6
    @Option(help: "The seed of the coins.") var seed: UInt64 = 1

    private static let dimension = 16

    func validate() throws {
        guard releases >= 1, part >= lanes, (1...64).contains(lanes), noiseMultiplier >= 0.1 else {
            throw ValidationError(
                "--releases must be 1 or more, --lanes 1 to 64, --part no less than --lanes, --noise-multiplier 0.1 or more"
            )
        }
    }

    func run() throws {
        let workspace = try ScratchDirectory()
        var record = try ReleaseRecord(
            path: samples ?? workspace.path + "/samples",
            terms: "z=\(noiseMultiplier) dimension=\(Self.dimension)"
        )
        var left = releases
        while left > 0 {
            let count = min(part, left)
            let lanes = min(lanes, count)
            let directory = workspace.path + "/part"
            let found = try released(
                count / lanes * lanes,
                lanes: lanes,
                directory: directory,
                earlier: record.all.count
            )
            try record.append(found)
            left -= found.count
            try FileManager.default.removeItem(atPath: directory)
        }
        try report(record.all)
    }

    /// The releases of one server.
    private func released(
        _ count: Int,
        lanes: Int,
        directory: String,
        earlier: Int
    ) throws -> [ReleaseRecord.Release] {
        let z = noiseMultiplier
        let each = count / lanes
        let server = try AuditedServer(directory: directory)
        defer { server.stop() }
        let results = ResultsByLane<[ReleaseRecord.Release]>(count: lanes)
        try server.together(lanes) { lane, connection in
            let run = try AuditedRun(
                connection,
                administrator: server.token,
                clientCount: each,
                dimension: Self.dimension,
                specification: """
                    "rounds": \(each), "cohort": {"goal": 1, "minimum": 1, "over_selection": 1, "max_participations": 1},
                    "privacy": {"mode": "central", "noise_multiplier": \(z)}
                    """
            )
            var generator = Xoshiro256StarStar(seed: seed &+ UInt64(earlier) &* 64 &+ UInt64(lane))
            var coins: [Bool] = []
            var found: [ReleaseRecord.Release] = []
            var last = [Float](repeating: 0, count: Self.dimension)
            func read(_ version: Int) throws {
                let model = try run.version(version, connection)
                let change = zip(model, last).map { Double($0) - Double($1) }
                let rest = change.dropFirst().reduce(0) { $0 + $1 * $1 }
                found.append(.init(isIn: coins[version - 1], first: change[0], restSquares: rest))
                last = model
            }
            for (index, client) in run.clients.enumerated() {
                let path = try run.assignment(client, connection)
                // The round before is published when this one is open.
                if index > 0 { try read(index) }
                coins.append(generator.next() & 1 == 1)
                var update = [Float](repeating: 0, count: Self.dimension)
                if coins[index] { update[0] = 1 }
                try run.send(update, to: path, client, connection)
            }
            try read(each)
            results.set(lane, found)
            let claim = GaussianAccountant.epsilon(delta: AuditCommand.delta, noiseMultiplier: z)
            let spent = try run.spentEpsilon(connection)
            guard abs(spent - claim) < 1e-3 * claim else {
                throw BenchmarkError("the ledger charged epsilon \(spent) for one release of \(claim)")
            }
        }
        return results.all.flatMap { $0 }
    }

    private func report(_ all: [ReleaseRecord.Release]) throws {
        let (without, with) = (all.filter { !$0.isIn }, all.filter(\.isIn))
        guard without.count >= 4, with.count >= 4 else { throw BenchmarkError("four releases of each kind at least") }
        let audit = ManyRunAudit(without: without.map(\.first), with: with.map(\.first))
        let z = noiseMultiplier
        let noise = audit.noiseMultiplier
        let count = Double(all.count * (Self.dimension - 1))
        let deviation = (all.reduce(0) { $0 + $1.restSquares } / count).squareRoot() / z
        // Specification: |μ̂ z − 1| ≤ 5 √(2/R) + 5 z √(2/R), five standard deviations of each of its parts.
        let tolerance = 5 * (1 + z) * (2 / Double(min(without.count, with.count))).squareRoot()
        let error = abs(z / noise.value - 1)
        let name = "R=\(without.count)+\(with.count)"
        MeasuredCase(
            benchmark: "audit",
            name: "many runs: noise multiplier, \(name)",
            unit: "z",
            values: [noise.value],
            limit: z,
            limitName: "as configured",
            extra: [
                "interval_lower": noise.lower, "interval_upper": noise.upper, "noise_over_configured": deviation,
                "noise_over_configured_error": 1.96 / (2 * count).squareRoot(), "error": error, "tolerance": tolerance,
            ]
        ).report()
        let claim = GaussianAccountant.epsilon(delta: AuditCommand.delta, noiseMultiplier: z)
        let epsilon = audit.epsilon(delta: AuditCommand.delta)
        let bound = audit.epsilonLowerBound(delta: AuditCommand.delta)
        MeasuredCase(
            benchmark: "audit",
            name: "many runs: epsilon at delta 1e-5, \(name)",
            unit: "epsilon",
            values: [epsilon.value],
            limit: claim,
            limitName: "charged by the ledger",
            extra: [
                "interval_lower": epsilon.lower, "interval_upper": epsilon.upper,
                "lower_bound_without_assumptions": bound,
            ]
        ).report()
        guard error <= tolerance, bound <= claim else {
            throw BenchmarkError("the releases are not those of noise multiplier \(z)")
        }
    }
}

/// The releases of an audit that is made in parts: a line for each, after one line with the terms they share.
private struct ReleaseRecord {
    struct Release: Sendable {
        var isIn: Bool
        /// The first coordinate's change, in units of C.
        var first: Double
        /// Sum of the squares of the others' changes.
        var restSquares: Double
    }

    private(set) var all: [Release] = []
    private let path: String

    init(path: String, terms: String) throws {
        self.path = path
        let text = (try? String(contentsOfFile: path, encoding: .utf8)) ?? ""
        let lines = text.split(separator: "\n")
        guard let head = lines.first else {
            try (terms + "\n").write(toFile: path, atomically: true, encoding: .utf8)
            return
        }
        guard head == terms else { throw BenchmarkError("\(path) holds releases of \(head), not of \(terms)") }
        for line in lines.dropFirst() {
            let fields = line.split(separator: " ").compactMap { Double($0) }
            guard fields.count == 3 else { throw BenchmarkError("\(path) has the line \(line)") }
            all.append(.init(isIn: fields[0] == 1, first: fields[1], restSquares: fields[2]))
        }
    }

    mutating func append(_ more: [Release]) throws {
        all += more
        let text = more.map { "\($0.isIn ? 1 : 0) \($0.first) \($0.restSquares)\n" }.joined()
        guard let file = FileHandle(forWritingAtPath: path) else { throw BenchmarkError("cannot write \(path)") }
        try file.seekToEnd()
        try file.write(contentsOf: Data(text.utf8))
        try file.close()
    }
}
