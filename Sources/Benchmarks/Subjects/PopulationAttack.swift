import BenchmarkHarness
import Coordination
import Foundation
import Glibc
import SQLiteStorage
import Tensors
import WireFormat

/// What one caller may do to all others: honest check-ins and uploads are timed while each attack is under way.
///
/// The limits: p99 of honest check-ins at most 5 times the quiet one and 10 ms, and an honest upload accepted within 3 times
/// its quiet time.
struct PopulationAttack {
    let server: ServedProcess
    let port: Int
    /// Tokens of clients that nobody uses otherwise.
    let tokens: [String]
    let enrollment: String
    /// The run whose updates are large, and one such update.
    let uploadRun: String
    let update: [UInt8]
    let seconds: Int

    /// Honest check-ins want work of a run that is not there: what the attacks open is not for them.
    private static let noRun = #"["run_none"]"#

    /// Attackers beside the honest clients, in the order of ``tokens``.
    private var attackers: ArraySlice<String> { tokens[..<64] }

    /// Runs every attack in turn.
    func run() throws {
        let prober = try Prober(port: port, tokens: Array(tokens[200...]))
        _ = try prober.measure(seconds: 1, runs: Self.noRun)
        let quiet = PopulationBenchmark.quantile(try prober.measure(seconds: Double(seconds), runs: Self.noRun), 0.99)
        let limit = min(5 * quiet, 0.010)
        try attack("nobody", prober, limit, connections: 0) { _ in { _ in nil } }
        // E-1: each rotation is a transaction; the loop is as fast as they are answered.
        for count in [1, 8] {
            try attack("\(count) clients rotate their tokens", prober, limit, connections: count) { index in
                var token = attackers[index]
                return { answer in
                    if let text = answer?["token"] as? String { token = text }
                    return Self.request(Endpoints.rotateToken(.current), token: token, "{}")
                }
            }
        }
        try attack("8 connections repeat a registration", prober, limit, connections: 8) { index in
            { _ in
                Self.request(Endpoints.register(), token: enrollment, "{}", ["Idempotency-Key": "again-\(index)"])
            }
        }
        // E-2: the old text again and again, with the longest grace period.
        try attack("8 clients rotate old texts with grace", prober, limit, connections: 8) { index in
            let token = attackers[20 + index]
            return { _ in
                Self.request(Endpoints.rotateToken(.current), token: token, #"{"grace_period_s": 2592000}"#)
            }
        }
        // The kind of E-1 by other requests: what a client says of itself, each time otherwise.
        try attack("8 clients change their capabilities", prober, limit, connections: 8) { index in
            var count = 0
            return { _ in
                count += 1
                let body = "{\"runs\": \(Self.noRun), \"capabilities\": {\"memory_bytes\": \(count)}}"
                return Self.request(Endpoints.checkIn(), token: attackers[30 + index], body)
            }
        }
        // E-3: whatever a viewer may read, over and over.
        for path in [
            Endpoints.clients().with("limit", 1).target, Endpoints.clients().with("limit", 10_000).target,
            Endpoints.overview().path, Endpoints.runs().path, Endpoints.populations().path, Endpoints.tokens().path,
            Endpoints.metrics().path,
        ] {
            try attack("a viewer reads \(path)", prober, limit, connections: 1) { _ in
                { _ in Self.request("GET", path, token: server.adminToken) }
            }
        }
        try openings(prober, limit)
        // E-5: documents of fields that are not known, and lists that are too long.
        let unknown = "{" + (0..<4000).map { "\"field\($0)\":0" }.joined(separator: ",") + "}"
        let long = "{\"runs\":[" + (0..<8000).map { _ in "\"r\"" }.joined(separator: ",") + "]}"
        let huge = "{" + (0..<90_000).map { "\"f\($0)\":0" }.joined(separator: ",") + "}"
        for (name, body) in [("unknown fields", unknown), ("too many runs", long), ("1 MB of fields", huge)] {
            try attack("a client sends \(name)", prober, limit, connections: 1) { _ in
                { _ in Self.request(Endpoints.checkIn(), token: attackers[40], body) }
            }
        }
        try drip(prober, limit)
    }

    // MARK: - Attacks

    /// Times check-ins while some connections send what `make` gives, each as soon as it has its answer.
    private func attack(
        _ name: String,
        _ prober: Prober,
        _ limit: Double,
        connections: Int,
        _ make: (Int) -> (_ answer: [String: Any]?) -> [UInt8]?
    ) throws {
        let loops = try (0..<connections).map { try RequestLoop(port: port, make($0)) }
        for loop in loops { loop.start() }
        let times = try prober.measure(seconds: Double(seconds), runs: Self.noRun)
        let count = loops.reduce(0) { $0 + $1.stop() }
        report("honest check-in p99, \(name)", times, limit, ["requests_of_attack": count])
    }

    private func report(_ name: String, _ times: [Double], _ limit: Double, _ extra: [String: any Sendable]) {
        var line = MeasuredCase(
            benchmark: "population-attack",
            name: name,
            unit: "s",
            values: [PopulationBenchmark.quantile(times, 0.99)]
        )
        line.limit = limit
        line.limitName = "5 times the quiet one, at most 10 ms"
        line.required = 1
        line.extra = extra.merging(["samples": times.count, "p50": PopulationBenchmark.quantile(times, 0.5)]) { $1 }
        line.report()
    }

    /// E-3: rounds with drawn cohorts and with requirements open all the time.
    private func openings(_ prober: Prober, _ limit: Double) throws {
        for (name, cohort) in [
            ("poisson", #""policy": "poisson", "sampling_rate": 0.001, "goal": 10, "minimum": 1"#),
            ("all", #""policy": "all", "goal": 10, "minimum": 1"#),
            ("requirements", #""goal": 10, "minimum": 1, "requirements": "memory_bytes >= 1000""#),
            ("tiers", #""goal": 10, "minimum": 1, "tiers": 3"#),
        ] {
            let end = ContinuousClock.now + .seconds(seconds)
            let opener = Opener(server: server, cohort: cohort, until: end)
            let thread = Thread { opener.run() }
            thread.start()
            let times = try prober.measure(seconds: Double(seconds), runs: Self.noRun)
            let count = try opener.wait()
            report("honest check-in p99, rounds of \(name) open", times, limit, ["openings": count])
        }
    }

    /// E-4: 22 members of a cohort keep uploads open and send 1.5 kB a second each.
    private func drip(_ prober: Prober, _ limit: Double) throws {
        // Not before: honest check-ins would have had its work.
        try server.call(Endpoints.startRun(RunReference(uploadRun)), "{}")
        let honest = Array(tokens[100..<110])
        let quiet = try honest.prefix(3).map { try upload($0) }
        let drippers = try attackers[41..<63].map { token in
            try Dripper(port: port, token: token, url: try work(token), update: update)
        }
        let group = DripperGroup(drippers)
        group.start()
        // Until they are known for what they are.
        let times = try prober.measure(seconds: 40, runs: Self.noRun)
        let attacked = try honest.dropFirst(3).map { try upload($0) }
        group.stop()
        report("honest check-in p99, 22 uploads drip", times, limit, [:])
        var line = MeasuredCase(
            benchmark: "population-attack",
            name: "honest upload of \(update.count) bytes, 22 uploads drip",
            unit: "s",
            values: [attacked.max() ?? .nan]
        )
        line.limit = 3 * (quiet.sorted()[1])
        line.limitName = "3 times the quiet one; the slowest of \(attacked.count)"
        line.required = 1
        line.extra = ["quiet": quiet.sorted()[1]]
        line.report()
    }

    /// The path of an update that a client is to send in the run with large ones.
    private func work(_ token: String) throws -> String {
        let answer = try server.call(Endpoints.checkIn(), "{\"runs\": [\"\(uploadRun)\"]}", token: token)
        guard let url = (answer["assignment"] as? [String: Any])?["update_url"] as? String else {
            throw BenchmarkError("no work in the run with large updates: \(answer)")
        }
        return url
    }

    /// Seconds from the first byte of an honest upload to its receipt, however often it has to come again.
    private func upload(_ token: String) throws -> Double {
        let url = try work(token)
        let head = Self.request(
            "PUT",
            url,
            token: token,
            nil,
            ["Content-Type": "application/vnd.safetensors", "Content-Length": String(update.count)]
        )
        let start = ContinuousClock.now
        while ContinuousClock.now - start < .seconds(120) {
            let descriptor = try PollingSwarm.connect(UInt16(port))
            defer { close(descriptor) }
            _ = PollingSwarm.sendAll(descriptor, head) && PollingSwarm.sendAll(descriptor, update)
            if let answer = RequestLoop.answer(descriptor), answer.status == 200 {
                return (ContinuousClock.now - start) / .seconds(1)
            }
            usleep(500_000)
        }
        return 120
    }

    static func request<Body, Answer>(
        _ target: RequestTarget<Body, Answer>,
        token: String,
        _ body: String? = nil,
        _ fields: [String: String] = [:]
    ) -> [UInt8] {
        request(target.method.rawValue, target.target, token: token, body, fields)
    }

    static func request(
        _ method: String,
        _ path: String,
        token: String,
        _ body: String? = nil,
        _ fields: [String: String] = [:]
    ) -> [UInt8] {
        var text = "\(method) \(path) HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer \(token)\r\n"
        for (name, value) in fields { text += "\(name): \(value)\r\n" }
        if let body { text += "Content-Type: application/json\r\nContent-Length: \(body.utf8.count)\r\n" }
        return Array((text + "\r\n" + (body ?? "")).utf8)
    }
}

/// Sends one request after another on one connection, each when the one before it has its answer.
private final class RequestLoop: @unchecked Sendable {
    // SAFETY: the connection and `next` belong to the thread after `start()`; the rest is behind the lock.
    private let port: UInt16
    private let next: (_ answer: [String: Any]?) -> [UInt8]?
    private let lock = NSLock()
    private var isStopping = false
    private var count = 0
    private let ended = DispatchSemaphore(value: 0)

    init(port: Int, _ next: @escaping (_ answer: [String: Any]?) -> [UInt8]?) throws {
        self.port = UInt16(port)
        self.next = next
    }

    func start() {
        let thread = Thread { [self] in
            run()
            ended.signal()
        }
        thread.start()
    }

    /// Ends the loop; gives how many requests had answers.
    func stop() -> Int {
        lock.withLock { isStopping = true }
        ended.wait()
        return count
    }

    private func run() {
        var descriptor: Int32 = -1
        var last: [String: Any]?
        while !lock.withLock({ isStopping }), let request = next(last) {
            if descriptor < 0 {
                guard let opened = try? PollingSwarm.connect(port) else { return }
                descriptor = opened
            }
            last = nil
            guard PollingSwarm.sendAll(descriptor, request), let answer = Self.answer(descriptor) else {
                close(descriptor)
                descriptor = -1
                continue
            }
            lock.withLock { count += 1 }
            // A whole list is not parsed: the loop is to ask, not to read.
            if answer.body.count < 4096 {
                last = (try? JSONSerialization.jsonObject(with: Data(answer.body))) as? [String: Any]
            }
            if answer.status == 413 || answer.status == 429 {
                close(descriptor)
                descriptor = -1
                usleep(answer.status == 429 ? 50_000 : 0)
            }
        }
        if descriptor >= 0 { close(descriptor) }
    }

    /// Waits for one answer; `nil` when the connection ends.
    static func answer(_ descriptor: Int32) -> (status: Int, body: [UInt8])? {
        var input: [UInt8] = []
        var block = [UInt8](repeating: 0, count: 256 << 10)
        while true {
            if let answer = PollingSwarm.takeAnswer(&input) { return answer }
            let count = recv(descriptor, &block, block.count, 0)
            guard count > 0 else { return nil }
            input += block[0..<count]
        }
    }
}

/// Opens rounds: makes runs, starts and cancels them, one after the other.
private final class Opener: @unchecked Sendable {
    // SAFETY: used by one thread until `wait()` has seen its end.
    private let server: ServedProcess
    private let cohort: String
    private let end: ContinuousClock.Instant
    private var count = 0
    private var failure: (any Error)?
    private let ended = DispatchSemaphore(value: 0)

    init(server: ServedProcess, cohort: String, until end: ContinuousClock.Instant) {
        (self.server, self.cohort, self.end) = (server, cohort, end)
    }

    func run() {
        defer { ended.signal() }
        do {
            // One kept connection: a program for each request would take the processors from those who are timed.
            let descriptor = try PollingSwarm.connect(UInt16(server.url.split(separator: ":").last ?? "") ?? 0)
            defer { close(descriptor) }
            func call<Answer>(_ target: RequestTarget<some Any, Answer>, _ body: String) throws -> [String: Any] {
                let request = PopulationAttack.request(target, token: server.adminToken, body)
                guard PollingSwarm.sendAll(descriptor, request), let answer = RequestLoop.answer(descriptor),
                    (200..<300).contains(answer.status)
                else { throw BenchmarkError("no answer of \(target.path)") }
                return try JSONSerialization.jsonObject(with: Data(answer.body)) as? [String: Any] ?? [:]
            }
            while ContinuousClock.now < end {
                let run = try call(
                    Endpoints.createRun(),
                    """
                    {"population": "p", "rounds": 1, "model": {"architecture": "cifg-lstm",
                     "config": {"vocab_size": 52, "embedding_dim": 4, "hidden_dim": 4}}, "cohort": {\(cohort)}}
                    """
                )
                guard let id = run["id"] as? String else { throw BenchmarkError("no run: \(run)") }
                _ = try call(Endpoints.startRun(RunReference(id)), "{}")
                _ = try call(Endpoints.cancelRun(RunReference(id)), "{}")
                count += 1
            }
        } catch { failure = error }
    }

    /// Waits for the end; gives how many rounds were opened.
    func wait() throws -> Int {
        ended.wait()
        if let failure { throw failure }
        return count
    }
}

/// One upload that sends 1.5 kB a second, and begins again when it is ended.
private final class Dripper {
    private let port: UInt16
    private let token: String
    private let url: String
    private let update: [UInt8]
    private var descriptor: Int32 = -1
    private var sent = 0

    init(port: Int, token: String, url: String, update: [UInt8]) throws {
        (self.port, self.token, self.url, self.update) = (UInt16(port), token, url, update)
    }

    deinit { if descriptor >= 0 { close(descriptor) } }

    /// The next bytes, or a new beginning.
    func drip() {
        if descriptor < 0 {
            guard let opened = try? PollingSwarm.connect(port) else { return }
            (descriptor, sent) = (opened, 0)
            let head = PopulationAttack.request(
                "PUT",
                url,
                token: token,
                nil,
                ["Content-Type": "application/vnd.safetensors", "Content-Length": String(update.count)]
            )
            if !PollingSwarm.sendAll(descriptor, head) { return end() }
        }
        // An answer before the end of the body is a refusal.
        var byte: UInt8 = 0
        if recv(descriptor, &byte, 1, Int32(MSG_DONTWAIT)) >= 0 { return end() }
        let next = min(update.count - 1, sent + 1500)
        guard next > sent, PollingSwarm.sendAll(descriptor, Array(update[sent..<next])) else { return end() }
        sent = next
    }

    private func end() {
        close(descriptor)
        descriptor = -1
    }
}

/// Lets many of them drip once a second, on one thread.
private final class DripperGroup: @unchecked Sendable {
    // SAFETY: the drippers belong to the thread after `start()`; the flag is behind the lock.
    private let drippers: [Dripper]
    private let lock = NSLock()
    private var isStopping = false
    private let ended = DispatchSemaphore(value: 0)

    init(_ drippers: [Dripper]) { self.drippers = drippers }

    func start() {
        let thread = Thread { [self] in
            while !lock.withLock({ isStopping }) {
                for dripper in drippers { dripper.drip() }
                usleep(1_000_000)
            }
            ended.signal()
        }
        thread.start()
    }

    func stop() {
        lock.withLock { isStopping = true }
        ended.wait()
    }
}
