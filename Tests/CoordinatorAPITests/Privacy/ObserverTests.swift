import Coordination
import CoordinatorAPI
import Crypto
import DifferentialPrivacy
import Foundation
import LocalTraining
import StrictJSON
import Tensors
import TestSupport
import Testing
import WireFormat

/// Two worlds that differ in one client's data alone, with the same noise keys: every answer to viewers, auditors and other clients
/// has the same shape, sizes and counts, and differs in functions of released values alone.
///
/// Where the released values are the same, since the client's data differ in what clipping and caps take away, every answer is the
/// same to the last character, but for random names and what the process measures of itself.
@Suite(.timeLimit(.minutes(10)))
struct ObserverTests {
    /// What the client in question sends: its data, data that differ where nothing is released, other data, or the zeros of data
    /// that gave nothing.
    private enum World: CaseIterable { case some, alike, others, nothing }

    /// How a run is, and what its clients send.
    struct Case: Sendable, CustomTestStringConvertible {
        var name: String
        var privacy: String
        var extra = ""
        var tensors = [TensorSpecification(name: "a", shape: [2, 2])]
        var isBuiltIn = false
        var cohort = #"{"goal": 6, "minimum": 3, "over_selection": 1, "max_participations": 9}"#
        var clientCount = 6
        var rounds = 2
        /// Whether the server draws who takes part, and a round ends by its deadline alone.
        var isDrawn = false
        /// Of the other clients.
        var usual: [Float] = [0.1, 0.2, 0.3, 0.4]
        /// Of the client in question: longer than the clipping norm, twice as long, other ones, and what is sent for nothing.
        var values: [[Float]] = [[2, 4, 6, 8], [4, 8, 12, 16], [-0.4, 0.3, -0.2, 0.1], [0, 0, 0, 0]]
        var testDescription: String { name }
    }

    private struct Seen {
        var answers: [String] = []
        /// Values of the published versions.
        var released: [[Float]] = []
    }

    private static let key = SymmetricKey(data: Data(repeating: 7, count: 32))

    /// What there is to ask about a run of population `p`.
    private static func paths(_ run: String, _ versions: Int) -> [String] {
        [
            "/v1/runs", "/v1/runs/\(run)", "/v1/runs/\(run)/rounds", "/v1/runs/\(run)/evaluations",
            "/v1/runs/\(run)/curves", "/v1/runs/\(run)/metrics", "/v1/runs/\(run)/models", "/v1/populations",
            "/v1/populations/p", "/v1/populations/p/ledger", "/v1/populations/p/ledger?format=audit", "/v1/ledger",
            "/v1/populations/p/ledger/links?from=0", "/v1/clients", "/v1/overview", "/v1/events", "/metrics",
            "/v1/runs/\(run)/models/0", "/v1/runs/\(run)/rounds/1", "/v1/runs/\(run)/rounds/1/history",
            "/v1/runs/\(run)/rounds/1/history?assignments=true", "/v1/runs/\(run)/rounds/1/updates", "/v1/audit",
            "/v1/runs/\(run)/evaluations/1/history?assignments=true",
        ] + (1..<(versions + 1)).map { "/v1/runs/\(run)/models/\($0)" }
    }

    /// The same noise in all worlds, and other noise in each round.
    private static func makeBench(_ tensors: [TensorSpecification]) async throws -> PrivateBench {
        try await PrivateBench(tensors: tensors, isStored: true) { _, round in
            NoiseKey(
                testKey: SymmetricKey(data: HMAC<SHA256>.authenticationCode(for: Data("\(round)".utf8), using: key))
            )
        }
    }

    /// Runs two rounds and an evaluation, and collects what observers are answered.
    private func seen(_ world: World, _ kind: Case) async throws -> Seen {
        let bench = try await Self.makeBench(kind.tensors)
        try await bench.begin(
            privacy: kind.privacy,
            cohort: kind.cohort,
            rounds: kind.rounds,
            extra: kind.extra,
            clients: kind.clientCount,
            isBuiltIn: kind.isBuiltIn
        )
        func token(_ role: String) async throws -> String {
            try #require(
                try await bench.post("/v1/tokens", #"{"role": "\#(role)", "name": "\#(role)"}"#).json["token"]
                    as? String
            )
        }
        let (viewer, operating) = (try await token("viewer"), try await token("operator"))
        var seen = Seen()
        func look(_ moment: String, versions: Int) async throws {
            for (role, token) in [("viewer", viewer), ("operator", operating), ("client", bench.clients[1])] {
                for path in Self.paths(bench.run, versions) {
                    let answer = try await bench.exchange("GET", path, token: token)
                    // Hashes of rows that name random ids: 32 bytes each.
                    let body =
                        path.contains("/links")
                        ? "\(answer.body.count) bytes" : String(decoding: answer.body, as: UTF8.self)
                    seen.answers.append("\(moment) \(role) GET \(path) \(answer.status) " + body)
                }
            }
        }
        for round in 1...kind.rounds {
            for client in bench.clients.indices {
                let answer = try await bench.exchange(
                    "POST",
                    "/v1/checkins",
                    token: bench.clients[client],
                    Array("{}".utf8)
                )
                if client > 0 {
                    seen.answers.append("\(answer.status) " + String(decoding: answer.body, as: UTF8.self))
                }
                let given = try WireCoding.decode(CheckInResponse.self, from: answer.body).assignment
                // A drawn cohort leaves some out, and who is in it is drawn anew in each world: it is everybody here.
                guard let work = given else { continue }
                bench.clock.advance(by: 1)
                let isAdaptive = work.privacy.isAdaptive
                let counts = ["3", "9", "27", "2", "0"]
                let index = client > 0 ? 0 : 1 + (World.allCases.firstIndex(of: world) ?? 0)
                var metadata = ["num_examples": counts[index]]
                if isAdaptive { metadata["within_norm"] = client == 0 && world != .others ? "0" : "1" }
                let sent = try await bench.upload(
                    client,
                    [
                        "update_url": work.updateUrl, "model": ["sha256": work.model.sha256],
                        "update_bytes": try #require(work.updateBytes),
                    ],
                    client > 0 ? kind.usual : kind.values[index - 1],
                    metadata: metadata
                )
                try #require(sent.status == 200, "\(sent.json)")
                if client > 0 {
                    let receipt = try JSONSerialization.data(withJSONObject: sent.json, options: .sortedKeys)
                    seen.answers.append("receipt " + String(decoding: receipt, as: UTF8.self))
                }
                // While the round is open: of the last one it may have been published meanwhile, or not yet.
                if client > 0, client < kind.clientCount - 1 {
                    let own = try await bench.exchange(
                        "GET",
                        "/v1/assignments/\(work.id)",
                        token: bench.clients[client]
                    )
                    seen.answers.append("\(own.status) " + String(decoding: own.body, as: UTF8.self))
                }
                if client == 2 { try await look("in round \(round)", versions: round - 1) }
            }
            if kind.isDrawn {
                // A drawn round lasts as long whoever came.
                bench.clock.advance(by: 1000)
                try await bench.coordinator.tick()
            }
            seen.released.append(try await bench.settled())
            if kind.extra.contains("evaluation") { try await measure(bench, round, world, &seen) }
            try await look("after round \(round)", versions: round)
        }
        return seen
    }

    private func measure(_ bench: PrivateBench, _ round: Int, _ world: World, _ seen: inout Seen) async throws {
        for client in bench.clients.indices {
            let answer = try await bench.exchange(
                "POST",
                "/v1/checkins",
                token: bench.clients[client],
                Array("{}".utf8)
            )
            if client > 0 { seen.answers.append("\(answer.status) " + String(decoding: answer.body, as: UTF8.self)) }
            let work = try #require(try WireCoding.decode(CheckInResponse.self, from: answer.body).assignment)
            var (hits, tokens) = (30.0, 40.0)
            if client == 0 {
                switch world {
                case .some: break
                case .alike: (hits, tokens) = (60, 80)
                case .others: hits = 1
                case .nothing: (hits, tokens) = (0, 0)
                }
            }
            let sums = EvaluationResult(
                numExamples: tokens == 0 ? 0 : 1,
                metrics: ["hit1": hits, "tokens": tokens]
            )
            let put = try await bench.call(
                "PUT",
                work.updateUrl,
                token: bench.clients[client],
                Array(try sums.privateDocument()),
                type: "application/json"
            )
            try #require(put.status == 200, "\(put.json)")
        }
        try await wait(for: "the end of the evaluation") {
            try await bench.coordinator.evaluations(run: bench.run).last { $0.number == round }?.state == .committed
        }
    }

    /// Names that are random, numbers that are noised releases, and what the process measures of itself become words.
    ///
    /// Where released values are hidden, they and what follows from them are masked, too.
    private static func normalized(_ answers: [String], hidesReleased: Bool) throws -> [String] {
        let random: [(NSRegularExpression, String)] = try [
            (NSRegularExpression(pattern: #"(run|asg|clt|pop|tok|mlt)_[A-Za-z0-9_-]+"#), "$1"),
            (NSRegularExpression(pattern: #"\b[0-9a-f]{64}\b"#), "hash"),
            (NSRegularExpression(pattern: #"seed":"[0-9]+"#), #"seed":"n"#),
            // Space on the disk is nobody's data.
            (NSRegularExpression(pattern: #""disk":\{[^}]*\}"#), "disk"),
            (NSRegularExpression(pattern: #""(free|size|total|used)_bytes":[0-9]+"#), "bytes"),
        ]
        let released: [(NSRegularExpression, String)] = try [
            // Released with noise: the rates, what they say of versions, and the clipping norm that follows a noised count.
            (NSRegularExpression(pattern: #""top1":[-0-9.e]+"#), #""top1":r"#),
            (NSRegularExpression(pattern: #"(top1 ±)[-0-9.e+]+"#), "top1 ±r"),
            (NSRegularExpression(pattern: #""value":[-0-9.e]+"#), #""value":r"#),
            (NSRegularExpression(pattern: #""best_version":[0-9]+"#), #""best_version":v"#),
            (NSRegularExpression(pattern: #""is_best":(true|false)"#), #""is_best":b"#),
            (
                NSRegularExpression(
                    pattern:
                        #""version":[0-9]+,"name":"top1"|"name":"top1","source":"federated","value":r,"version":[0-9]+"#
                ), "best"
            ),
            (NSRegularExpression(pattern: #""name":"top1","points":\[[^\]]*\](,\[[^\]]*\])*\]"#), "points"),
            (NSRegularExpression(pattern: #""(clipping_norm|norm)":[-0-9.e]+"#), #""norm":r"#),
        ]
        let patterns = hidesReleased ? random + released : random
        let measured = [
            "process_", "martlet_store_commit_duration", "martlet_aggregation", "martlet_http_request_duration",
            "martlet_sqlite_bytes", "martlet_disk", "martlet_http_sent_bytes",
            // Files are removed a moment after their round's end.
            "martlet_spool",
        ]
        return answers.map { text in
            var text = text
            if text.contains("GET /metrics") {
                text = text.split(separator: "\n").filter { line in !measured.contains { line.hasPrefix($0) } }
                    .joined(separator: "\n")
            }
            for (pattern, word) in patterns {
                text = pattern.stringByReplacingMatches(
                    in: text,
                    range: NSRange(text.startIndex..., in: text),
                    withTemplate: word
                )
            }
            return text
        }
    }

    private static let central = #"{"mode": "central", "noise_multiplier": 1}"#
    private static let cases = [
        Case(name: "central", privacy: central),
        Case(
            name: "weighted",
            privacy: central,
            extra: #", "aggregation": {"weighting": "examples", "example_cap": 9}"#
        ),
        Case(
            name: "adaptive",
            privacy: #"{"mode": "central", "noise_multiplier": 1, "clipping": {"policy": "adaptive", "norm": 1}}"#
        ),
        Case(name: "laplace", privacy: #"{"mode": "central", "mechanism": "laplace", "noise_multiplier": 2}"#),
        Case(
            name: "local",
            privacy: #"{"mode": "local", "noise_multiplier": 2}"#,
            // The device clips and noises: the same update is what is the same here.
            values: [[2, 4, 6, 8], [2, 4, 6, 8], [-0.4, 0.3, -0.2, 0.1], [0, 0, 0, 0]]
        ),
        Case(
            name: "evaluation",
            privacy: central,
            extra:
                #", "evaluation": {"every": 1, "noise_multiplier": 0.3, "cohort_goal": 6, "minimum": 6, "max_participations": 9, "metrics": ["top1"]}"#
        ),
        Case(
            name: "histogram",
            privacy: central,
            extra: """
                , "kind": "analytics",
                "analytics": {"method": "histogram", "candidates": ["yes", "no", "maybe", "never"], "words_per_client": 4}
                """,
            tensors: [.init(name: "counts", shape: [4])],
            isBuiltIn: true,
            cohort: #"{"goal": 6, "minimum": 3, "over_selection": 1, "max_participations": 1}"#,
            rounds: 1,
            usual: [1, 0, 1, 0],
            values: [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
        ),
        Case(
            name: "poisson",
            privacy: #"{"mode": "central", "noise_multiplier": 1, "amplification": "poisson"}"#,
            // Everybody is drawn, but for a chance of 1e-10 in all.
            cohort: #"{"goal": 6, "policy": "poisson", "sampling_rate": 0.999999999999, "report_timeout_s": 900}"#,
            isDrawn: true
        ),
        Case(
            name: "votes",
            privacy: #"{"noise_multiplier": 0.5}"#,
            extra: #", "kind": "analytics", "analytics": {"method": "votes", "prefix_limit": 50}"#,
            tensors: PrefixTrie.voteLayout.tensors,
            isBuiltIn: true,
            cohort: #"{"goal": 6, "minimum": 1, "max_participations": 1, "report_timeout_s": 900}"#,
            rounds: 1,
            // One client names another letter, or none: the others' letter is found in all worlds.
            usual: [0, 97],
            values: [[0, 98], [0, 98], [0, 99], [-1, 0]]
        ),
    ]

    @Test(.slow, arguments: cases)
    func whatObserversAreAnsweredDoesNotDependOnOneClientsData(_ kind: Case) async throws {
        let expected = try await seen(.some, kind)
        for world in [World.alike, .others, .nothing] {
            let other = try await seen(world, kind)
            // The noise is the same, or the released values would be others where the data are alike.
            // One vote among many decides nothing that is published, and then every answer is the same.
            let isSame = other.released == expected.released
            #expect(isSame == (world == .alike || kind.name == "votes"), "\(world)")
            let left = try Self.normalized(expected.answers, hidesReleased: !isSame)
            let right = try Self.normalized(other.answers, hidesReleased: !isSame)
            #expect(left.count == right.count)
            for (left, right) in zip(left, right) where left != right {
                Issue.record("\(world): differs at \(Self.difference(left, right))")
            }
        }
    }

    /// Worlds that differ in who was drawn, and in nothing that is released: all updates are zeros, and the divisor is planned.
    ///
    /// What staff asks for by round or by client says it; what pages, overviews and documents are made of does not.
    /// No false alarms; of 12 clients at a rate of 1/2 all three worlds draw the same with a chance of 2^-24.
    @Test(.slow) func whatPagesAndDocumentsAreMadeOfDoesNotTellWhoWasDrawn() async throws {
        var worlds: [[String]] = []
        for _ in 0..<3 {
            let bench = try await Self.makeBench([.init(name: "a", shape: [2, 2])])
            try await bench.begin(
                privacy: #"{"mode": "central", "noise_multiplier": 1, "amplification": "poisson"}"#,
                cohort: #"{"goal": 6, "policy": "poisson", "sampling_rate": 0.5, "report_timeout_s": 900}"#,
                rounds: 2,
                clients: 12
            )
            let made = try await bench.post("/v1/tokens", #"{"role": "viewer", "name": "viewer"}"#).json["token"]
            let viewer = try #require(made as? String)
            var answers: [String] = []
            func look(_ moment: String, versions: Int) async throws {
                let ofStaff = ["/rounds", "/clients", "/metrics"]
                for path in Self.paths(bench.run, versions) where !ofStaff.contains(where: path.contains) {
                    let answer = try await bench.exchange("GET", path, token: viewer)
                    let body =
                        path.contains("/links")
                        ? "\(answer.body.count) bytes" : String(decoding: answer.body, as: UTF8.self)
                    answers.append("\(moment) GET \(path) \(answer.status) " + body)
                }
            }
            for round in 1...2 {
                for client in bench.clients.indices {
                    let work = try await bench.checkIn(client)["assignment"] as? [String: Any]
                    bench.clock.advance(by: 1)
                    guard let work else { continue }
                    // One always sends, one fails, and one is not heard of again, whoever of them is drawn.
                    if client % 3 == 0 {
                        try #require(try await bench.upload(client, work, [0, 0, 0, 0]).status == 200)
                    } else if client % 3 == 1, let id = work["id"] as? String {
                        let failure = #"{"code": "training_failed"}"#
                        _ = try await bench.post("/v1/assignments/\(id)/failure", token: bench.clients[client], failure)
                    }
                }
                try await look("in round \(round)", versions: round - 1)
                bench.clock.advance(by: 1000)
                try await bench.coordinator.tick()
                _ = try await bench.settled()
                try await look("after round \(round)", versions: round)
            }
            worlds.append(try Self.normalized(answers, hidesReleased: false))
        }
        for other in worlds.dropFirst() {
            #expect(other.count == worlds[0].count)
            for (left, right) in zip(worlds[0], other) where left != right {
                Issue.record("differs at \(Self.difference(left, right))")
            }
        }
    }

    private static func difference(_ left: String, _ right: String) -> String {
        let common = zip(left, right).prefix { $0 == $1 }.count
        let start = max(0, common - 80)
        return left.prefix(40) + " … " + left.dropFirst(start).prefix(160) + "\n against … "
            + right.dropFirst(start).prefix(160)
    }
}
