import ArgumentParser
import BenchmarkHarness
import Coordination
import Foundation
import Glibc
import SQLiteStorage
import Tensors
import WireFormat

/// A large population: check-ins while thousands of long polls are held, memory over time, and the time between two rounds.
struct PopulationBenchmark: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "population",
        abstract: "Check-in latency, memory and dead time between rounds of a large population."
    )

    @Option(help: "Registered clients.") var clients = 100_000
    @Option(help: "Clients that wait for work at the same time.") var polls = 2000
    @Option(help: "Seconds of watching; 600 shows that nothing grows.") var seconds = 30
    @Option(help: "Rounds for the time between two of them, and clients of each.") var rounds = 20
    @Option(help: "Clients of each of these rounds.") var goal = 20
    @Flag(help: "Time honest clients while one caller after the other attacks; --seconds for each of the attacks.")
    var attack = false
    @Option(help: "With --attack: the size of an update in the run with large ones.") var updateMegabytes = 100

    func run() async throws {
        if attack { return try await runAttacks() }
        guard sysconf(Int32(_SC_OPEN_MAX)) > polls + 256 else {
            throw BenchmarkError("\(polls) connections need more open files: ulimit -n \(polls + 1000)")
        }
        let workspace = try ScratchDirectory()
        let data = workspace.path + "/data"
        let model = SafetensorsWriter.encode(ParameterVector(zeros: ParameterLayout([.init(name: "w", shape: [1000])])))
        try model.write(to: URL(fileURLWithPath: workspace.path + "/model"))
        let (waiting, busy) = try prepare(data, workspace)
        let tokens = try fill(data)
        let start = ContinuousClock.now
        let server = try ServedProcess(dataDirectory: data, arguments: ["--log-level", "error"])
        report("start with \(clients) clients", "s", [(ContinuousClock.now - start) / .seconds(1)])
        report("RSS with \(clients) clients", "bytes", [server.residentBytes])
        // One client holds the only place of a round, so that everybody else has to wait.
        try server.call(Endpoints.startRun(RunReference(waiting)), "{}")
        try server.call(Endpoints.checkIn(), "{}", token: tokens[0])
        let port = Int(server.url.split(separator: ":").last ?? "") ?? 0
        let prober = try Prober(port: port, tokens: Array(tokens[(polls + 1)...]))
        let quiet = try prober.measure(seconds: 3)
        let swarm = try PollingSwarm(port: port, tokens: Array(tokens[1...polls]), update: Array(model))
        swarm.start()
        // Until all of them wait.
        try await Task.sleep(for: .seconds(3))
        var resident: [Double] = []
        var latencies: [Double] = []
        let processor = server.processorSeconds
        let end = ContinuousClock.now + .seconds(seconds)
        while ContinuousClock.now < end {
            latencies += try prober.measure(seconds: 1)
            resident.append(server.residentBytes)
        }
        let name = "\(clients) registered, \(polls) long polls"
        for (label, share) in [("p50", 0.5), ("p99", 0.99)] {
            var line = MeasuredCase(
                benchmark: "population",
                name: "check-in \(label), \(name)",
                unit: "s",
                values: [Self.quantile(latencies, share)]
            )
            line.limit = Self.quantile(quiet, share)
            line.limitName = "the same without long polls"
            line.extra = ["samples": latencies.count]
            line.report()
        }
        let half = resident.count / 2
        let growth = Self.mean(resident[half...]) - Self.mean(resident[..<half])
        report(
            "RSS, \(name)",
            "bytes",
            [resident.last ?? 0],
            extra: ["growth_bytes": growth, "seconds": seconds, "first": resident.first ?? 0]
        )
        report("processor, \(name)", "cores", [(server.processorSeconds - processor) / Double(seconds)])
        try server.call(Endpoints.startRun(RunReference(busy)), "{}")
        let patience = ContinuousClock.now + .seconds(60 + rounds)
        while try server.call(Endpoints.run(RunReference(busy)))["state"] as? String != RunPhase.completed.rawValue {
            guard ContinuousClock.now < patience else { throw BenchmarkError("the rounds did not end") }
            try await Task.sleep(for: .milliseconds(200))
        }
        let events = try swarm.stop()
        reportGaps(events)
        try reportSteps(server, run: busy, events)
    }

    private func runAttacks() async throws {
        let workspace = try ScratchDirectory()
        let data = workspace.path + "/data"
        try SafetensorsWriter.encode(ParameterVector(zeros: ParameterLayout([.init(name: "w", shape: [1000])])))
            .write(to: URL(fileURLWithPath: workspace.path + "/model"))
        _ = try prepare(data, workspace)
        let beginning = ContinuousClock.now
        let tokens = try fill(data)
        report("\(clients) clients put into the database", "s", [(ContinuousClock.now - beginning) / .seconds(1)])
        let count = updateMegabytes * 250_000
        let zeros = ParameterVector(zeros: ParameterLayout([.init(name: "w", shape: [count])]))
        let model = SafetensorsWriter.encode(zeros)
        try model.write(to: URL(fileURLWithPath: workspace.path + "/model"))
        let update = Array(
            SafetensorsWriter.encode(
                zeros,
                metadata: [UpdateMetadata.exampleCount: "1", UpdateMetadata.base: Secrets.sha256(Array(model))]
            )
        )
        let start = ContinuousClock.now
        // Room for 20 of the 22 that drip.
        let server = try ServedProcess(
            dataDirectory: data,
            arguments: ["--log-level", "error", "--set", "limits.upload_bytes=\(update.count * 41 / 2)"]
        )
        report("start with \(clients) clients", "s", [(ContinuousClock.now - start) / .seconds(1)])
        report("RSS with \(clients) clients", "bytes", [server.residentBytes])
        let run = try server.call(
            Endpoints.createRun(),
            """
            {"population": "p", "rounds": 1, "model": {"architecture": "external"},
             "cohort": {"goal": 200, "minimum": 1, "over_selection": 1, "selection_timeout_s": 86400,
                        "report_timeout_s": 86400}}
            """
        )
        guard let id = run["id"] as? String else { throw BenchmarkError("no run: \(run)") }
        try server.upload(workspace.path + "/model", to: Endpoints.putModel(RunReference(id)))
        let made = try server.call(Endpoints.createEnrollmentToken("p"), #"{"max_uses": 100}"#)
        guard let enrollment = made["token"] as? String else { throw BenchmarkError("no enrollment token") }
        let attack = PopulationAttack(
            server: server,
            port: Int(server.url.split(separator: ":").last ?? "") ?? 0,
            tokens: tokens,
            enrollment: enrollment,
            uploadRun: id,
            update: update,
            seconds: seconds
        )
        try attack.run()
    }

    // MARK: -

    /// Two runs that are ready to start, by a server that ends again.
    private func prepare(_ data: String, _ workspace: ScratchDirectory) throws -> (waiting: String, busy: String) {
        let server = try ServedProcess(dataDirectory: data, arguments: ["--log-level", "error"])
        try server.call(Endpoints.createPopulation(), #"{"name": "p"}"#)
        func make(_ goal: Int, _ rounds: Int) throws -> String {
            let run = try server.call(
                Endpoints.createRun(),
                """
                {"population": "p", "rounds": \(rounds), "model": {"architecture": "external"},
                 "cohort": {"goal": \(goal), "minimum": 1, "over_selection": 1, "selection_timeout_s": 86400,
                            "report_timeout_s": 86400}}
                """
            )
            guard let id = run["id"] as? String else { throw BenchmarkError("no run: \(run)") }
            try server.upload(workspace.path + "/model", to: Endpoints.putModel(RunReference(id)))
            return id
        }
        let enrollment =
            try server.call(Endpoints.createEnrollmentToken("p"), #"{"max_uses": 1}"#)["token"] as? String
        try server.call(Endpoints.register(), "{}", token: enrollment)
        return (try make(1, 1), try make(goal, rounds))
    }

    /// Enrolls the others straight into the database: a hundred thousand requests would measure something else.
    private func fill(_ data: String) throws -> [String] {
        let store = try SQLiteRunStore(path: data + "/martlet.sqlite")
        let state = try store.load()
        guard let client = state.clients.first, let token = state.tokens.first(where: { $0.clientId == client.id })
        else {
            throw BenchmarkError("no client")
        }
        var tokens: [String] = []
        var changes: [StoreChange] = []
        for index in 0..<clients {
            let text = Secrets.token()
            var clone = client
            clone.id = Secrets.identifier("cli")
            clone.registrationKey = "k\(index)"
            var own = token
            own.hash = Secrets.sha256(Array(text.utf8))
            own.id = Secrets.identifier("tok")
            own.clientId = clone.id
            changes += [.client(clone), .token(own)]
            tokens.append(text)
            if changes.count >= 20_000 {
                try store.commit(changes)
                changes = []
            }
        }
        try store.commit(changes)
        return tokens
    }

    private func reportGaps(_ events: [PollingSwarm.Event]) {
        var gaps: [Double] = []
        for round in 1..<max(2, rounds) {
            // From the last update that was taken to the first client that got work of the next round.
            guard let last = events.last(where: { $0.round == round && $0.isDelivery })?.time,
                let first = events.first(where: { $0.round == round + 1 && !$0.isDelivery })?.time
            else { continue }
            gaps.append(max(0, (first - last) / .seconds(1)))
        }
        var line = MeasuredCase(
            benchmark: "population",
            name: "from a round's last update to the next one's first assignment",
            unit: "s",
            values: gaps
        )
        line.extra = ["goal": goal, "p99": Self.quantile(gaps, 0.99), "long_polls": polls]
        line.report()
    }

    /// What the gaps consist of, by the server's history.
    private func reportSteps(_ server: ServedProcess, run: String, _ events: [PollingSwarm.Event]) throws {
        let format = Date.ISO8601FormatStyle(includingFractionalSeconds: true)
        func rows(_ round: Int) throws -> [(state: String, at: Date, isAssignment: Bool)] {
            let history = Endpoints.roundHistory(RunReference(run), RoundReference(round))
            let answer = try server.call(history.with("assignments", true).with("limit", 1000))
            return (answer["items"] as? [[String: Any]] ?? []).compactMap { row in
                guard let state = row["state"] as? String,
                    let at = (row["at"] as? String).flatMap({ try? format.parse($0) })
                else { return nil }
                return (state, at, row["assignment"] is String)
            }
        }
        let names = [
            "the last update accepted to the round closed", "the round closed to the sum made",
            "the sum made to the next round opened", "the round opened to the first assignment",
            "the first assignment to its client",
        ]
        var steps = names.map { _ in [Double]() }
        for round in 1..<max(2, rounds) {
            let (old, new) = (try rows(round), try rows(round + 1))
            let arrival = events.first { $0.round == round + 1 && !$0.isDelivery }?.date
            let times = [
                old.last { $0.isAssignment && $0.state == AssignmentState.accepted.rawValue }?.at,
                old.first { !$0.isAssignment && $0.state == RoundPhase.aggregating.rawValue }?.at,
                old.first { !$0.isAssignment && $0.state == RoundPhase.committed.rawValue }?.at,
                new.first { !$0.isAssignment }?.at,
                new.first { $0.isAssignment && $0.state == AssignmentState.assigned.rawValue }?.at,
                arrival,
            ].compactMap(\.self)
            guard times.count == names.count + 1 else { continue }
            for index in names.indices { steps[index].append(times[index + 1].timeIntervalSince(times[index])) }
        }
        for (name, values) in zip(names, steps) {
            MeasuredCase(benchmark: "population", name: "of the gap: " + name, unit: "s", values: values).report()
        }
    }

    private func report(_ name: String, _ unit: String, _ values: [Double], extra: [String: any Sendable] = [:]) {
        MeasuredCase(benchmark: "population", name: name, unit: unit, values: values, extra: extra).report()
    }

    private static func mean(_ values: some Collection<Double>) -> Double {
        values.isEmpty ? 0 : values.reduce(0, +) / Double(values.count)
    }

    static func quantile(_ values: [Double], _ share: Double) -> Double {
        let sorted = values.sorted()
        guard !sorted.isEmpty else { return .nan }
        return sorted[min(sorted.count - 1, Int(Double(sorted.count) * share))]
    }
}

/// One check-in after another on one connection, some fifty a second, each of another client.
final class Prober {
    private let descriptor: Int32
    private let tokens: [String]
    private var next = 0
    private var input: [UInt8] = []

    init(port: Int, tokens: [String]) throws {
        descriptor = try PollingSwarm.connect(UInt16(port))
        self.tokens = tokens
    }

    deinit { close(descriptor) }

    /// Seconds of each check-in; with `runs` the clients want work of those only.
    func measure(seconds: Double, runs: String? = nil) throws -> [Double] {
        var result: [Double] = []
        var block = [UInt8](repeating: 0, count: 16 << 10)
        let end = ContinuousClock.now + .seconds(seconds)
        while ContinuousClock.now < end {
            let request = PollingSwarm.checkIn(token: tokens[next % tokens.count], waitSeconds: 0, runs: runs)
            next += 1
            let start = ContinuousClock.now
            guard PollingSwarm.sendAll(descriptor, request) else {
                throw BenchmarkError("a check-in could not be sent")
            }
            while true {
                let count = recv(descriptor, &block, block.count, 0)
                guard count > 0 else { throw BenchmarkError("the server hung up") }
                input += block[0..<count]
                if let answer = PollingSwarm.takeAnswer(&input) {
                    guard answer.status == 200 else { throw BenchmarkError("a check-in was answered \(answer.status)") }
                    break
                }
            }
            result.append((ContinuousClock.now - start) / .seconds(1))
            usleep(20_000)
        }
        return result
    }
}
