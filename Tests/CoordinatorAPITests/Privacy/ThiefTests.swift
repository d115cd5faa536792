import Coordination
import Crypto
import DifferentialPrivacy
import Foundation
import LocalTraining
import StrictJSON
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

@testable import MartletClient

#if canImport(Glibc)
import Glibc
#endif

extension Data {
    /// Whether the bytes occur anywhere.
    fileprivate func holds(_ needle: Data) -> Bool {
        withUnsafeBytes { hay in
            needle.withUnsafeBytes { wanted in
                guard var place = hay.baseAddress, let first = wanted.first, let start = wanted.baseAddress else {
                    return false
                }
                let end = place + hay.count
                while place + wanted.count <= end, let found = memchr(place, Int32(first), end - place) {
                    let next = UnsafeRawPointer(found)
                    guard next + wanted.count <= end else { return false }
                    if memcmp(next, start, wanted.count) == 0 { return true }
                    place = next + 1
                }
                return false
            }
        }
    }
}

/// A thief of the data directory, its log and its backups, who knows everything but one client's data and has a list of
/// candidates for them with the truth among it, learns nothing that tells the truth from the others.
///
/// The same thief has to find the truth in what a run without privacy leaves.
@Suite(.timeLimit(.minutes(10)))
struct ThiefTests {
    /// Every byte of the data directory, and of a backup made of it, once the removals that were asked for are done.
    private func loot(_ bench: PrivateBench) throws -> [(name: String, bytes: Data)] {
        // Files are removed beside the coordinator, which this waits for.
        _ = bench.coordinator.blobs.spoolNames()
        let files = try #require(FileManager.default.enumerator(atPath: bench.directory.path))
        var loot: [(name: String, bytes: Data)] = []
        for case let name as String in files {
            let path = bench.directory.path + "/" + name
            var isDirectory: ObjCBool = false
            guard FileManager.default.fileExists(atPath: path, isDirectory: &isDirectory), !isDirectory.boolValue else {
                continue
            }
            loot.append((name, try Data(contentsOf: URL(fileURLWithPath: path))))
        }
        return loot
    }

    /// Runs a command to its end.
    private static func capture(_ command: String, _ arguments: [String]) throws -> String {
        let child = Process()
        child.executableURL = URL(fileURLWithPath: command)
        child.arguments = arguments
        let output = Pipe()
        child.standardOutput = output
        child.standardError = output
        try child.run()
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        child.waitUntilExit()
        try #require(child.terminationStatus == 0, "\(command) \(arguments): \(text)")
        return text
    }

    /// What `martlet backup` makes, while a round is open.
    private func backUp(_ bench: PrivateBench, _ name: String) throws {
        // The test bundle and the executables lie in one directory.
        let products = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent()
        _ = try Self.capture(
            products.path + "/martlet",
            ["backup", "--data-dir", bench.directory.path, bench.directory.path + "/" + name]
        )
    }

    /// How a candidate's bytes could have left a trace: themselves, their numbers, and their hashes in every usual writing.
    private func traces(of body: Data) -> [Data] {
        let digest = Data(SHA256.hash(data: body))
        let hexadecimal = digest.map { String(format: "%02x", $0) }.joined()
        let values = body.suffix(16)
        return [
            body, Data(values), digest, Data(digest.prefix(12)), Data(hexadecimal.utf8),
            Data(hexadecimal.prefix(20).utf8),
            Data(hexadecimal.uppercased().utf8), Data(digest.base64EncodedString().prefix(20).utf8),
            Data(Insecure.MD5.hash(data: body)), Data(Insecure.SHA1.hash(data: body)), Data(SHA512.hash(data: body)),
        ]
    }

    /// The candidates that the loot speaks for.
    ///
    /// Short ones have numbers so few that they may be anywhere: whole bodies and hashes are looked for then.
    private func found(_ candidates: [Data], in loot: [(name: String, bytes: Data)], isShort: Bool = false) -> [Int] {
        candidates.indices.filter { index in
            traces(of: candidates[index]).enumerated().contains { trace in
                !(isShort && trace.offset == 1) && loot.contains { $0.bytes.holds(trace.element) }
            }
        }
    }

    /// The thief had every place to look at: database, log of the database, log of the server, a backup of the middle of a round.
    private func requirePlaces(_ loot: [(name: String, bytes: Data)]) throws {
        for place in ["martlet.sqlite", "martlet.sqlite-wal", "server.log", "backup"] {
            try #require(loot.contains { $0.name.hasPrefix(place) && !$0.bytes.isEmpty }, "\(place)")
        }
        #expect(!loot.contains { $0.name.contains("spool/") }, "no round is open")
    }

    /// What the thief finds while the round is open, in the spool: the search is one that finds.
    private func inSpool(_ bench: PrivateBench, _ candidates: [Data], isShort: Bool = false) throws -> [Int] {
        try found(candidates, in: loot(bench).filter { $0.name.hasPrefix("spool/") }, isShort: isShort)
    }

    private static let cohort = #"{"goal": 3, "minimum": 1, "over_selection": 1, "max_participations": 9}"#
    /// Numbers that are nowhere by chance, as text or as an integer of the database.
    private static let count = 87_654_321

    /// As a client pads it.
    private func padded(_ file: Data, _ bench: PrivateBench) throws -> Data {
        SafetensorsWriter.padded(file, to: try #require(bench.updateByteCount))
    }

    private func update(_ bench: PrivateBench, _ seed: Int, base: String) -> Data {
        var generator = Xoshiro256StarStar(seed: UInt64(seed) + 1)
        let values = (0..<bench.layout.parameterCount).map { _ in generator.nextUniform() - 0.5 }
        return SafetensorsWriter.encode(
            ParameterVector(layout: bench.layout, values: values),
            metadata: ["kind": "delta", "base": base, "num_examples": String(Self.count)]
        )
    }

    /// Sends what is made for the version that the client was given.
    ///
    /// - Returns: The version's hash, which the thief knows.
    @discardableResult
    private func send(
        _ bench: PrivateBench,
        _ client: Int,
        type: String = "application/vnd.safetensors",
        _ body: (_ base: String) throws -> Data
    ) async throws -> String {
        let assignment = try #require(try await bench.checkIn(client)["assignment"] as? [String: Any])
        let target = try #require(assignment["update_url"] as? String)
        let base = try #require((assignment["model"] as? [String: Any])?["sha256"] as? String)
        let plain = try body(base)
        let isUpdate = type != "application/json"
        let bytes = Array(
            isUpdate ? SafetensorsWriter.padded(plain, to: assignment["update_bytes"] as? Int ?? 0) : plain
        )
        let answer = try await bench.call("PUT", target, token: bench.clients[client], bytes, type: type)
        try #require(answer.status == 200, "\(answer.json)")
        return base
    }

    struct Case: Sendable, CustomTestStringConvertible {
        var name: String
        var privacy: String
        var extra = ""
        var testDescription: String { name }
    }

    private static let central = #"{"mode": "central", "noise_multiplier": 4}"#
    private static let cases = [
        Case(name: "central", privacy: central),
        Case(
            name: "central, weighted",
            privacy: central,
            extra: #", "aggregation": {"weighting": "examples", "example_cap": 100000000}"#
        ),
        Case(name: "local", privacy: #"{"mode": "local", "noise_multiplier": 4}"#),
        Case(
            name: "banded",
            privacy: #"{"mode": "central", "noise_multiplier": 4, "mechanism": "banded_matrix"}"#
        ),
    ]

    @Test(.slow, arguments: cases)
    func nothingOfAnUpdateIsLeft(_ kind: Case) async throws {
        let bench = try await PrivateBench(tensors: [.init(name: "a", shape: [50])], isStored: true)
        let separation = kind.name == "banded" ? #", "min_separation_rounds": 1"# : ""
        try await bench.begin(
            privacy: kind.privacy,
            cohort: Self.cohort.replacing("}", with: separation + "}"),
            rounds: 2,
            extra: kind.extra,
            clients: 3
        )
        var bases: [String] = []
        for round in 0..<2 {
            for client in 0..<3 {
                let base = try await send(bench, client) { update(bench, 1000 * round + client, base: $0) }
                if client == 0 { bases.append(base) }
                // In the middle of a round, with two updates in the spool.
                if client == 1 {
                    try backUp(bench, "backup-\(round)")
                    let candidates = try (0..<3).map { try padded(update(bench, 1000 * round + $0, base: base), bench) }
                    #expect(try inSpool(bench, candidates) == [0, 1])
                }
            }
            _ = try await bench.settled()
        }
        // A failure, a refusal and an update of an attempt that is abandoned leave as little.
        let everything = try loot(bench)
        try requirePlaces(everything)
        #expect(everything.contains { $0.name.hasPrefix("backup-1") })
        for round in 0..<2 {
            let candidates = try (0..<40).map {
                try padded(update(bench, 1000 * round + $0, base: bases[round]), bench)
            }
            #expect(found(candidates, in: everything).isEmpty)
        }
        let digits = Data(String(Self.count).utf8)
        let integer = withUnsafeBytes(of: UInt32(Self.count).bigEndian) { Data($0) }
        for file in everything where file.name.contains("sqlite") || file.name.hasSuffix(".log") {
            #expect(!file.bytes.holds(digits) && !file.bytes.holds(integer), "\(file.name)")
        }
    }

    /// Votes and histograms have so few values that all can be tried.
    @Test func nothingOfACountIsLeft() async throws {
        let bench = try await PrivateBench(isStored: true)
        try await bench.begin(
            privacy: Self.central,
            cohort: Self.cohort.replacing("9}", with: "1}"),
            extra: """
                , "kind": "analytics",
                "analytics": {"method": "histogram", "candidates": ["yes", "no", "maybe", "never"], "words_per_client": 4}
                """,
            clients: 3,
            isBuiltIn: true
        )
        func body(_ pattern: Int, _ base: String) -> Data {
            SafetensorsWriter.encode(
                ParameterVector(
                    layout: .init([.init(name: "counts", shape: [4])]),
                    values: (0..<4).map { pattern >> $0 & 1 == 1 ? 1 : 0 }
                ),
                metadata: ["kind": "delta", "base": base, "num_examples": "1"]
            )
        }
        var base = ""
        func candidates() throws -> [Data] { try (0..<16).map { try padded(body($0, base), bench) } }
        for client in 0..<3 {
            base = try await send(bench, client) { body([5, 9, 14][client], $0) }
            if client == 1 {
                try backUp(bench, "backup")
                #expect(try inSpool(bench, candidates(), isShort: true) == [5, 9])
            }
        }
        _ = try await bench.settled()
        let everything = try loot(bench)
        try requirePlaces(everything)
        #expect(try found(candidates(), in: everything, isShort: true).isEmpty)
    }

    /// Votes for a letter: a client's own has some thirty candidates, in each of several rounds.
    @Test func nothingOfAVoteIsLeft() async throws {
        let bench = try await PrivateBench(isStored: true)
        try await bench.begin(
            privacy: #"{"noise_multiplier": 2}"#,
            cohort: #"{"goal": 18, "minimum": 1, "max_participations": 10}"#,
            rounds: 10,
            extra: #", "kind": "analytics", "analytics": {"method": "votes", "prefix_limit": 50}"#,
            clients: 24,
            isBuiltIn: true
        )
        let letters = Array("abcdefghijklmnopqrstuvwxyz".unicodeScalars.map { Float($0.value) })
        func body(_ place: Float, _ letter: Float, _ base: String) throws -> Data {
            let vote = ParameterVector(layout: PrefixTrie.voteLayout, values: [place, letter])
            return try padded(
                SafetensorsWriter.encode(vote, metadata: ["kind": "delta", "base": base, "num_examples": "1"]),
                bench
            )
        }
        func candidates(_ base: String) throws -> [Data] {
            try letters.map { try body(0, $0, base) } + [body(-1, 0, base)]
        }
        // Everybody's word begins with a, but for the one client that the thief is after.
        var base = ""
        var votes = 0
        for client in bench.clients.indices {
            guard let work = try await bench.checkIn(client)["assignment"] as? [String: Any] else { continue }
            base = try #require((work["model"] as? [String: Any])?["sha256"] as? String)
            let target = try #require(work["update_url"] as? String)
            let vote = try body(0, votes == 0 ? letters[16] : letters[0], base)
            let answer = try await bench.call("PUT", target, token: bench.clients[client], Array(vote))
            try #require(answer.status == 200, "\(answer.json)")
            votes += 1
            if votes == 3 {
                try backUp(bench, "backup")
                #expect(try inSpool(bench, candidates(base), isShort: true) == [0, 16])
            }
            // The round is over with its goal, and the next one is to open without a vote.
            if votes == 18 { break }
        }
        try #require(votes == 18)
        _ = try await bench.settled()
        // The next round opens with no vote in it.
        let everything = try loot(bench)
        try requirePlaces(everything)
        #expect(try found(candidates(base), in: everything, isShort: true).isEmpty)
    }

    /// Sums of measurements: every (hits, targets) of a small device can be tried.
    @Test func nothingOfAnEvaluationIsLeft() async throws {
        let bench = try await PrivateBench(isStored: true)
        try await bench.begin(
            privacy: Self.central,
            cohort: Self.cohort,
            extra: #", "evaluation": {"every": 1, "noise_multiplier": 2, "cohort_goal": 3, "metrics": ["top1"]}"#,
            clients: 3
        )
        _ = try await bench.play(0..<3, [0, 0, 0, 0])
        func body(_ hits: Int, _ targets: Int) throws -> Data {
            try EvaluationResult(numExamples: 1, metrics: ["hit1": Double(hits), "tokens": Double(targets)])
                .privateDocument()
        }
        var candidates: [Data] = []
        for targets in 30..<100 { for hits in 0..<6 { candidates.append(try body(hits, targets)) } }
        let truth = [(2, 35), (4, 41), (5, 91)]
        for client in 0..<3 {
            let sums = truth[client]
            try await send(bench, client, type: "application/json") { _ in try body(sums.0, sums.1) }
            if client == 1 {
                try backUp(bench, "backup")
                let expected = truth.prefix(2).map { ($0.1 - 30) * 6 + $0.0 }
                #expect(try inSpool(bench, candidates, isShort: true) == expected)
            }
        }
        try await wait(for: "the end of the evaluation") {
            try await bench.coordinator.evaluations(run: bench.run).last?.state == .committed
        }
        let everything = try loot(bench)
        try requirePlaces(everything)
        #expect(found(candidates, in: everything, isShort: true).isEmpty)
        // Nor are the sums there as a document of their own, whatever stands around them.
        for sums in truth {
            let text = Data(#""hit1":\#(sums.0),"tokens":\#(sums.1)"#.utf8)
            #expect(!everything.contains { $0.bytes.holds(text) })
        }
    }

    // MARK: - Two worlds

    private static let dump = """
        import sqlite3, sys
        db = sqlite3.connect("file:" + sys.argv[1] + "?mode=ro", uri=True)
        names = [r[0] for r in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        for name in names:
            rows = [tuple(len(v) if isinstance(v, bytes) else v for v in row) for row in db.execute(f'SELECT * FROM "{name}"')]
            print("\\n".join(sorted(f"{name} {row!r}" for row in rows)))
        """

    private static func normalized(_ text: String) -> [String] {
        let names = text.replacing(/(run|asg|clt|pop|tok|mlt)_[A-Za-z0-9_-]+/, with: "name")
        let hashes = names.replacing(/[0-9a-f]{64}/, with: "hash")
        // What the process measures of itself, and seeds that are random.
        let measured = hashes.replacing(/"?seed"?: ?"?[0-9]+"?/, with: "seed").replacing(
            /[0-9]+\.[0-9]+(e-?[0-9]+)?/,
            with: "n"
        )
        // Fields of a line of the log come in any order.
        return measured.split(separator: "\n").map { line in
            line.split(whereSeparator: { "[],".contains($0) }).map { $0.trimmingPrefix(" ") }.sorted().joined(
                separator: ", "
            )
        }
        .sorted()
    }

    /// What is left of two rounds: rows of the database and of a backup, lines of the log, and names and sizes of files.
    private func left(_ kind: Case, _ values: [Float]) async throws -> [String: [String]] {
        let key = SymmetricKey(data: Data(repeating: 7, count: 32))
        let bench = try await PrivateBench(tensors: [.init(name: "a", shape: [4])], isStored: true) { _, round in
            // The same in both worlds, and another one for each round.
            NoiseKey(
                testKey: SymmetricKey(data: HMAC<SHA256>.authenticationCode(for: Data("\(round)".utf8), using: key))
            )
        }
        try await bench.begin(
            privacy: kind.privacy,
            cohort: Self.cohort,
            rounds: 2,
            extra: kind.extra,
            clients: 3
        )
        for round in 0..<2 {
            for client in 0..<3 {
                let given = try await bench.checkIn(client)
                let work = try #require(given["assignment"] as? [String: Any])
                let sent = client == 0 ? values : [0.1, 0.2, 0.3, 0.4]
                let count = client == 0 && values[0] > 0 ? "7" : "3000"
                let receipt = try await bench.upload(client, work, sent, metadata: ["num_examples": count])
                try #require(receipt.status == 200, "\(receipt.json)")
                if client == 1 { try backUp(bench, "backup-\(round)") }
            }
            _ = try await bench.settled()
        }
        _ = bench.coordinator.blobs.spoolNames()
        var left: [String: [String]] = [:]
        for name in ["", "backup-0/", "backup-1/"] {
            let path = bench.directory.path + "/" + name + "martlet.sqlite"
            left[name + "database"] = Self.normalized(
                try Self.capture("/usr/bin/env", ["python3", "-c", Self.dump, path])
            )
        }
        let log = try String(contentsOfFile: bench.directory.path + "/server.log", encoding: .utf8)
        left["log"] = Self.normalized(log)
        left["files"] = try loot(bench).filter {
            !$0.name.contains("-wal") && !$0.name.contains("-shm") && !$0.name.hasSuffix(".log")
        }
        .map { file in
            // A model's name is its hash, of released values.
            let name = Self.normalized(file.name.replacing(/blobs\/[0-9a-f]{2}/, with: "blobs")).joined()
            return "\(name) \(file.bytes.count)"
        }
        .sorted()
        return left
    }

    /// With the same noise and at the same times, a client's data change nothing of what is left but what was released with noise.
    @Test(.slow, arguments: cases.filter { $0.name != "banded" })
    func whatIsLeftOfTwoWorldsIsTheSame(_ kind: Case) async throws {
        let one = try await left(kind, [0.4, -0.3, 0.2, 0.1])
        let other = try await left(kind, [-0.1, 0.5, 0, 0.3])
        #expect(Set(one.keys) == Set(other.keys) && one.count == 5)
        for (name, lines) in one {
            let others = other[name] ?? []
            #expect(!lines.isEmpty, "\(name)")
            #expect(lines.count == others.count, "\(name)")
            for (left, right) in zip(lines, others) where left != right {
                Issue.record("\(name): \(left.prefix(400)) against \(right.prefix(400))")
            }
        }
    }

    /// The thief replays the client's training for eight texts, of which one is the truth: model, seed and terms are known.
    @Test(arguments: [true, false])
    func noTextIsMoreLikelyThanOthersByReplayingItsTraining(isPrivate: Bool) async throws {
        let bench = try await PrivateBench(isStored: true)
        let model =
            #""model": {"architecture": "cifg-lstm", "config": {"vocab_size": 52, "embedding_dim": 4, "hidden_dim": 8}}"#
        try await bench.begin(
            privacy: isPrivate ? Self.central : #"{"mode": "none"}"#,
            cohort: isPrivate
                ? #"{"goal": 2, "minimum": 1, "over_selection": 1, "max_participations": 9}"#
                : #"{"goal": 2, "minimum": 1, "over_selection": 1}"#,
            extra: ", " + model,
            clients: 2,
            isBuiltIn: true,
            hasBudget: isPrivate
        )
        let texts = (0..<8).map { "my number is \($0)\($0)\($0), call me after seven" }
        let answer = try await bench.exchange("POST", "/v1/checkins", token: bench.clients[0], Array("{}".utf8))
        let document = try JSONValue(parsing: Array(answer.body))
        guard case .work(let assignment) = try CheckInAnswer.read(document, modelByteLimit: 1 << 30) else {
            Issue.record("there is work")
            return
        }
        let path = bench.coordinator.blobs.path(sha256: assignment.model.sha256.text)
        let start = try SafetensorsFile(path: path).readAll()
        let scratch = try TemporaryDirectory()
        let state = try ClientState(directory: scratch.path)
        func replay(_ text: String) async throws -> Data {
            let prepared = try await PreparedUpdate(
                assignment,
                model: start,
                trainer: DeviceTrainer(texts: [text]),
                instructions: TrainingInstructions(assignment, architecture: assignment.architecture, base: nil),
                controls: nil,
                feedback: ErrorFeedback(
                    run: assignment.run,
                    files: state.files,
                    parameterCount: start.values.count
                ),
                path: scratch.path + "/update",
                beforeNoise: {}
            )
            #expect(prepared.shortfall == nil)
            return try Data(contentsOf: URL(fileURLWithPath: scratch.path + "/update"))
        }
        let truth = try await replay(texts[5])
        // Without privacy seconds are among the metadata: there the thief knows them, as the server does.
        let put = try await bench.call("PUT", assignment.updatePath.text, token: bench.clients[0], Array(truth))
        try #require(put.status == 200, "\(put.json)")
        try backUp(bench, "backup")
        let other = try await replay(texts[4])
        #expect(try inSpool(bench, [other, truth]) == [1])
        try await send(bench, 1) { base in
            SafetensorsWriter.encode(
                ParameterVector(zeros: start.layout),
                metadata: ["kind": "delta", "base": base, "num_examples": "1"]
            )
        }
        _ = try await bench.settled()
        var candidates: [Data] = []
        for (index, text) in texts.enumerated() {
            candidates.append(index == 5 && !isPrivate ? truth : try await replay(text))
        }
        if isPrivate { #expect(candidates[5] == truth, "the replay is exact, or the attack would prove nothing") }
        let everything = try loot(bench)
        if isPrivate { try requirePlaces(everything) }
        let told = found(candidates, in: everything)
        #expect(told == (isPrivate ? [] : [5]))
    }
}
