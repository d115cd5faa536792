import Crypto
import Foundation
import LocalTraining
import MartletClient
import StrictJSON
import Synchronization
import Tensors
import TestSupport
import Testing
import WireFormat

/// The attacks of a server on a device, each as it was first tried.
@Suite(.timeLimit(.minutes(10)))
struct HostileServerTests {
    private let directory: TemporaryDirectory
    private let model = Data(
        SafetensorsWriter.encode(ParameterVector(zeros: ParameterLayout([.init(name: "w", shape: [4])])))
    )

    init() throws { directory = try TemporaryDirectory() }

    /// Answers every check-in with the same assignment, and notes what is asked.
    private final class Server: Transport {
        let assignment: JSONValue
        let file: Data
        let headers: [String: String]
        /// What is not written to a file.
        let document: Data?
        let requests = Mutex<[TransportRequest]>([])

        init(_ assignment: JSONValue, file: Data, headers: [String: String] = [:], document: Data? = nil) {
            (self.assignment, self.file, self.headers, self.document) = (assignment, file, headers, document)
        }

        func urls() -> [String] { requests.withLock { $0.map(\.url) } }

        func send(_ request: TransportRequest) async throws -> TransportResponse {
            requests.withLock { $0.append(request) }
            switch (request.method, request.url) {
            case ("POST", "http://server/v1/clients"):
                return TransportResponse(status: 201, body: Data(#"{"client_id": "clt_1", "token": "secret"}"#.utf8))
            case ("POST", "http://server/v1/checkins"):
                let document = try WireCoding.encode(["assignment": assignment])
                return TransportResponse(status: 201, body: document)
            case ("GET", _):
                // It says that it sends what was asked for, whatever it sends.
                let tag = ["etag": "\"\(request.fileSHA256 ?? "")\""]
                guard let destination = request.destination else {
                    return TransportResponse(status: 200, headers: tag, body: document ?? file)
                }
                try file.write(to: URL(fileURLWithPath: destination))
                return TransportResponse(status: 200, headers: headers.isEmpty ? tag : headers)
            case ("POST", _): return TransportResponse(status: 204)
            default: return TransportResponse(status: 410)
            }
        }
    }

    private struct Trainer: LocalTrainer {
        var canRehearse: Bool { true }
        func train(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingResult {
            TrainingResult(delta: model, exampleCount: 1)
        }
    }

    /// A good assignment with some of its fields changed, by path.
    private func assignment(_ changes: [String: JSONValue?]) throws -> JSONValue {
        let hash = SHA256.hash(data: model).map { String(format: "%02x", $0) }.joined()
        let text = """
            {"id": "asg_1", "run": "run_1", "round": 1, "attempt": 1, "kind": "train", "seed": "5", "deadline_in_s": 60,
             "model": {"version": 0, "url": "/model", "sha256": "\(hash)", "bytes": \(model.count)},
             "architecture": {"architecture": "external"}, "training": {}, "privacy": {"mode": "none"},
             "tensors": [{"name": "w", "shape": [4]}], "update_url": "/update"}
            """
        var document = try JSONValue.parse(Array(text.utf8))
        func set(_ path: ArraySlice<Substring>, _ value: JSONValue?, in document: inout JSONValue) {
            guard case .object(var fields) = document, let name = path.first.map(String.init) else { return }
            if path.count == 1 {
                fields[name] = value
            } else {
                var inner = fields[name] ?? .object([:])
                set(path.dropFirst(), value, in: &inner)
                fields[name] = inner
            }
            document = .object(fields)
        }
        for (path, value) in changes { set(path.split(separator: "/")[...], value, in: &document) }
        return document
    }

    private func client(_ server: Server, waits: Waits = .init(), limit: Int = 1 << 20) throws -> FederatedClient {
        FederatedClient(
            server: "http://server",
            enrollmentToken: "enroll",
            state: try ClientState(directory: directory.path + "/state"),
            trainer: Trainer(),
            transport: server,
            models: try ModelCache(directory: directory.path + "/state/models"),
            limits: ClientLimits(modelBytes: limit),
            retry: RetryPolicy(
                attemptLimit: 3,
                sleep: { seconds in waits.seconds.withLock { $0.append(seconds) } },
                uniform: { 0.5 }
            )
        )
    }

    private final class Waits: Sendable {
        let seconds = Mutex<[Double]>([])
    }

    private func outside() throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: directory.path).sorted()
    }

    /// G-1: names of files were made of the assignment's hash and encoding, and the hash of a variant came with the bytes.
    @Test(
        arguments: [
            ["model/sha256": .string("../../pwn\u{0}"), "model/encoding": .string("f16")],
            ["model/sha256": .string("../../pwn")], ["model/encoding": .string("/../../../pwn")],
            ["base/sha256": .string("../../pwn")],
            ["control/sha256": .string("../../pwn"), "training/algorithm": .string("scaffold")],
            ["architecture/config/tokenizer/sha256": .string("../../pwn")], ["run": .string("../../pwn")],
        ] as [[String: JSONValue]]
    )
    func noFileIsWrittenOutsideTheStateDirectory(_ changes: [String: JSONValue]) async throws {
        var all = changes as [String: JSONValue?]
        for name in ["base", "control"] where changes[name + "/sha256"] != nil {
            all[name + "/url"] = .some(.string("/model"))
            all[name + "/bytes"] = .some(.integer(model.count))
            all[name + "/version"] = .some(.integer(0))
        }
        if changes["architecture/config/tokenizer/sha256"] != nil {
            all["architecture/config/tokenizer/url"] = .some(.string("/model"))
        }
        let digest = "sha-256=:\(Data(SHA256.hash(data: model)).base64EncodedString()):"
        let server = Server(
            try assignment(all),
            file: model,
            headers: ["content-digest": digest, "repr-digest": digest]
        )
        let client = try client(server)
        #expect(try await client.participateOnce(waitSeconds: 0) == .ended(code: "server_invalid"))
        #expect(try outside() == ["state"])
        let kept = try FileManager.default.subpathsOfDirectory(atPath: directory.path + "/state").sorted()
        #expect(kept.allSatisfy { !$0.contains("pwn") }, "\(kept)")
        // It is named, and the server is told which field, so that the place in the round is free.
        let reason = try #require(await client.lastRefusal)
        #expect(changes.keys.contains { reason.contains("/assignment/" + $0) }, "\(reason)")
        let report = try #require(server.requests.withLock { $0.last })
        #expect(report.url == "http://server/v1/assignments/asg_1/failure")
    }

    /// G-1 again: a variant whose hash came with the bytes was whatever the answer said.
    @Test func theHashOfAVariantIsTheAssignments() async throws {
        let other = String(repeating: "ab", count: 32)
        let document = try assignment([
            "model/encoding": .string("f16"), "model/encoded_sha256": .string(other),
            "model/encoded_bytes": .integer(model.count),
        ])
        // Bytes that are named as what they are have come from elsewhere, and end nothing.
        let digest = "sha-256=:\(Data(SHA256.hash(data: model)).base64EncodedString()):"
        let named = Server(document, file: model, headers: ["content-digest": digest, "repr-digest": digest])
        let error = await #expect(throws: ClientError.self) {
            try await client(named).participateOnce(waitSeconds: 0)
        }
        #expect(error?.code == ClientError.foreignAnswer)
        #expect(
            try await client(Server(document, file: model)).participateOnce(waitSeconds: 0)
                == .ended(code: "digest_mismatch")
        )
        let models = try FileManager.default.contentsOfDirectory(atPath: directory.path + "/state/models")
        #expect(models.allSatisfy { $0.hasSuffix(".part") }, "\(models)")
    }

    /// A tokeniser was made a tree before its hash was looked at.
    @Test(arguments: [true, false])
    func aTokenizerIsNotParsedBeforeItsHashIsRight(_ isPromised: Bool) async throws {
        // Nested deeper than any document that is read.
        let document = Data(
            (#"{"a": "# + String(repeating: "[", count: 100) + String(repeating: "]", count: 100) + "}").utf8
        )
        let hash = SHA256.hash(data: document).map { String(format: "%02x", $0) }.joined()
        let server = Server(
            try assignment([
                "architecture/config/tokenizer/url": .string("/tokenizer"),
                "architecture/config/tokenizer/sha256": .string(isPromised ? hash : String(repeating: "ab", count: 32)),
            ]),
            file: model,
            document: document
        )
        let code = isPromised ? "server_invalid" : "digest_mismatch"
        #expect(try await client(server).participateOnce(waitSeconds: 0) == .ended(code: code))
        #expect(server.urls().filter { $0.hasSuffix("/tokenizer") }.count == 1)
    }

    /// G-2: the server sent the client to any host, with its token.
    @Test(arguments: ["model/url", "update_url", "id", "base/url", "architecture/config/tokenizer/url"])
    func noRequestGoesToAnotherPlace(_ field: String) async throws {
        for value in [
            "@127.0.0.1:7299/steal", ".evil.example/x", ":81/x", "//evil.example/x", "/../../internal", "/a/%2e%2e/b",
            "/a#b",
            "http://evil.example/", "x/../../../evil?a=b#", "/a\r\nX-Admin: 1",
        ] {
            var changes: [String: JSONValue?] = [field: .string(value)]
            let hash = JSONValue.string(String(repeating: "ab", count: 32))
            if field.hasPrefix("base") || field.hasPrefix("architecture") {
                changes[field.replacing("url", with: "sha256")] = hash
                changes["base/bytes"] = .some(.integer(model.count))
                changes["base/version"] = .some(.integer(0))
                if field.hasPrefix("architecture") {
                    changes["base/url"] = .some(.string("/b"))
                    changes["base/sha256"] = hash
                }
            }
            let server = Server(try assignment(changes), file: model)
            #expect(
                try await client(server).participateOnce(waitSeconds: 0) == .ended(code: "server_invalid"),
                "\(value)"
            )
            let asked = Set(server.urls()).subtracting([
                "http://server/v1/clients", "http://server/v1/checkins", "http://server/v1/assignments/asg_1/failure",
            ])
            #expect(asked.isEmpty, "\(asked)")
        }
    }

    /// G-4: a model that was declared as 80 bytes was written for as long as it came.
    @Test func noMoreBytesAreTakenThanWereDeclared() async throws {
        let server = Server(try assignment([:]), file: model + Data(count: 100_000))
        #expect(try await client(server).participateOnce(waitSeconds: 0) == .ended(code: "digest_mismatch"))
        let asked = server.requests.withLock { $0 }.filter { $0.destination != nil }
        #expect(asked.allSatisfy { $0.byteLimit == model.count } && !asked.isEmpty)
        let models = directory.path + "/state/models"
        let sizes = try FileManager.default.contentsOfDirectory(atPath: models).map {
            try FileManager.default.attributesOfItem(atPath: models + "/" + $0)[.size] as? Int ?? 0
        }
        #expect(sizes.allSatisfy { $0 == 0 }, "\(sizes)")
        // What is declared has the owner's limit.
        let large = Server(try assignment(["model/bytes": .integer(2 << 20)]), file: model)
        #expect(try await client(large).participateOnce(waitSeconds: 0) == .ended(code: "server_invalid"))
    }

    /// G-5: numbers that no clock and no array can hold ended the process.
    @Test(arguments: [
        ("deadline_in_s", JSONValue.number(1e300)), ("lease_s", .number(1e300)), ("deadline_in_s", .integer(-1)),
        ("tensors", .array([.object(["name": .string("w"), "shape": .array([.number(0x1p62), .integer(4)])])])),
        (
            "tensors",
            .array([
                .object(["name": .string("w"), "shape": .array([.integer(3_037_000_500), .integer(3_037_000_500)])])
            ])
        ),
        ("model/bytes", .number(1e300)), ("round", .number(1e300)), ("seed", .string("18446744073709551616")),
        ("training/limits/max_seconds", .number(1e300)), ("value_bound", .number(1e300)),
        ("training/local/epochs", .integer(0)),
    ])
    func noNumberEndsTheProcess(_ field: String, _ value: JSONValue) async throws {
        let server = Server(try assignment([field: value]), file: model)
        let client = try client(server)
        #expect(try await client.participateOnce(waitSeconds: 0) == .ended(code: "server_invalid"))
        let refusal = try #require(await client.lastRefusal)
        #expect(refusal.contains("/" + field))
    }

    /// A device that cannot accept its assignments asks less and less often.
    @Test func aBadAssignmentIsNotAskedForAgainAtOnce() async throws {
        let waits = Waits()
        let client = try client(Server(try assignment(["kind": .string("sell")]), file: model), waits: waits)
        for _ in 0..<5 { _ = try await client.participateOnce(waitSeconds: 0) }
        #expect(waits.seconds.withLock { $0 } == [0.75, 1.5, 3, 6])
    }

    /// G-3: in mode `local` a server asked whether the update was within its bound, and got the answer without noise.
    @Test func termsThatLeakAreRefused() async throws {
        let document = try assignment([
            "privacy/mode": .string("local"), "privacy/noise_multiplier": .integer(2),
            "privacy/clipping": .object(["norm": .integer(1), "policy": .string("adaptive")]),
        ])
        let server = Server(document, file: model)
        #expect(try await client(server).participateOnce(waitSeconds: 0) == .ended(code: "server_invalid"))
        #expect(!server.urls().contains("http://server/model"))
    }

    /// G-6: whatever the server says is one line of visible characters.
    @Test func aServersWordsActOnNoTerminal() {
        let body = Data(
            #"{"code": "gone", "detail": "\u001b]0;PWNED\u0007\u001b[2J\nsecond\u202eline", "title": "t"}"#.utf8
        )
        let problem = ["content-type": "application/problem+json"]
        let error = ClientError(answer: TransportResponse(status: 410, headers: problem, body: body))
        #expect(error.code == "gone" && error.message.contains("PWNED"))
        #expect(!"\(error)".unicodeScalars.contains(where: PrintableText.isUnsafe))
        let odd = Data(#"{"code": "\u001b[2J", "detail": "x"}"#.utf8)
        let other = ClientError(answer: TransportResponse(status: 410, headers: problem, body: odd))
        #expect(
            other.code == ClientError.foreignAnswer
                && !"\(other)".unicodeScalars.contains(where: PrintableText.isUnsafe)
        )
        let type = ["content-type": "text/\u{1b}[2Jhtml", "location": "http://x/\u{1b}[2J"]
        for status in [200, 302, 403, 599] {
            let page = ClientError(answer: TransportResponse(status: status, headers: type))
            #expect(!"\(page)".unicodeScalars.contains(where: PrintableText.isUnsafe))
        }
    }

    /// A device whose token counts for nothing any more is told what to remove, and that is what helps.
    @Test func theWayOutOfARefusedTokenIsSaid() async throws {
        struct Refusing: Transport {
            func send(_ request: TransportRequest) async throws -> TransportResponse {
                guard request.url.hasSuffix("/v1/clients") else {
                    let body = #"{"code": "unauthorized", "detail": "the token is not known"}"#
                    return TransportResponse(
                        status: 401,
                        headers: ["content-type": "application/problem+json"],
                        body: Data(body.utf8)
                    )
                }
                return TransportResponse(status: 201, body: Data(#"{"client_id": "clt_1", "token": "secret"}"#.utf8))
            }
        }
        let path = directory.path + "/state"
        let client = FederatedClient(
            server: "http://server",
            enrollmentToken: "enroll",
            state: try ClientState(directory: path),
            trainer: Trainer(),
            transport: Refusing(),
            models: try ModelCache(directory: path + "/models")
        )
        let error = await #expect(throws: ClientError.self) { try await client.participateOnce(waitSeconds: 0) }
        #expect(error?.status == 401 && error?.code == "unauthorized")
        for part in ["--register-again", "keeps the device's ledger", "http://server"] {
            #expect(error?.message.contains(part) == true, "\(part)")
        }
        let kept = try FileManager.default.contentsOfDirectory(atPath: path)
        #expect(kept.contains("credential.json") && kept.contains("registration.json"))
    }

    /// A server that names another file each time, and sends half of it, gets room for two.
    @Test func cutDownloadsDoNotFillTheDisk() async throws {
        let models = directory.path + "/state/models"
        for number in 0..<6 {
            let hash = String(repeating: "0\(number)", count: 32)
            let server = Server(
                try assignment(["model/sha256": .string(hash), "model/bytes": .integer(10 * model.count)]),
                file: model
            )
            _ = try await client(server).participateOnce(waitSeconds: 0)
            let partials = try FileManager.default.contentsOfDirectory(atPath: models).filter { $0.contains(".part") }
            #expect(partials.count <= 2, "\(partials)")
        }
    }
}
