import Crypto
import Foundation
import MartletClient
import StrictJSON
import Synchronization
import Tensors
import WireFormat

/// The server of a ``DeviceJob``, in memory: two runs whose rounds follow each other, each in the hands of one device, and at the
/// end work with a ledger that was forked.
final class DeviceServer: Transport {
    /// One piece of work; it is handed out, under a new id each time, until an update was accepted.
    struct Step {
        var run: String
        var round: Int
        var training: String
        var hasForkedLedger = false
    }

    struct State {
        var keys: Set<String> = []
        var place = 0
        var issued = 0
        var live: String?
        /// Documents of assignments.
        var documents: [String: String] = [:]
        /// By step the hash of what was accepted.
        var accepted: [String] = []
        var acceptedBy: [String: String] = [:]
        /// Everything that was sent, by assignment.
        var sent: [String: Set<String>] = [:]
        var lost: Set<String> = []
    }

    static let layout = ParameterLayout([.init(name: "w", shape: [64])])
    private static let steps: [Step] =
        (1...3).flatMap { round in
            [
                Step(run: "run_a", round: round, training: #"{"algorithm": "scaffold"}"#),
                Step(run: "run_b", round: round, training: #"{"encoding": "topk"}"#),
            ]
        } + [Step(run: "run_a", round: 4, training: #"{"algorithm": "scaffold"}"#, hasForkedLedger: true)]

    let state = Mutex(State())
    private let model = SafetensorsWriter.encode(ParameterVector(zeros: layout))

    /// Whether all work was done.
    var isOver: Bool { state.withLock { $0.place >= Self.steps.count } }

    private static func hash(_ data: Data) -> String {
        SHA256.hash(data: data).map { String(format: "%02x", $0) }.joined()
    }

    private func refusal(_ status: Int, _ code: String) -> TransportResponse {
        let body = #"{"code": "\#(code)", "detail": "no", "title": "no"}"#
        return TransportResponse(
            status: status,
            headers: ["content-type": "application/problem+json"],
            body: Data(body.utf8)
        )
    }

    func send(_ request: TransportRequest) async throws -> TransportResponse {
        let parts = request.url.split(separator: "/").map(String.init)
        switch "\(request.method) \(parts.last ?? "")" {
        case "POST clients":
            state.withLock { _ = $0.keys.insert(request.headers["Idempotency-Key"] ?? "") }
            return TransportResponse(status: 201, body: Data(#"{"client_id": "clt_1", "token": "secret"}"#.utf8))
        case "POST checkins": return checkIn()
        case "GET model":
            guard let destination = request.destination else { return refusal(404, "not_found") }
            do { try model.write(to: URL(fileURLWithPath: destination)) } catch {
                throw ClientError(code: "storage", message: "cannot write \(destination)")
            }
            return TransportResponse(status: 200, headers: ["etag": "\"\(request.fileSHA256 ?? "")\""])
        case "POST heartbeat":
            return TransportResponse(status: 200, body: Data(#"{"lease_s": 60, "deadline_in_s": 60}"#.utf8))
        case "PUT update":
            guard case .file(let path, _) = request.body else { return refusal(400, "invalid_document") }
            guard let file = FileHandle(forReadingAtPath: path), let bytes = try? file.readToEnd() else {
                throw ClientError(code: "storage", message: "an update cannot be read")
            }
            return try take(bytes, from: parts[parts.count - 2])
        case "POST failure":
            state.withLock { state in
                let isEnd = state.place < Self.steps.count && Self.steps[state.place].hasForkedLedger
                if case .bytes(let body) = request.body, isEnd,
                    String(decoding: body, as: UTF8.self).contains("privacy_refused")
                {
                    state.place += 1
                }
                if state.live == parts[parts.count - 2] { state.live = nil }
            }
            return TransportResponse(status: 204)
        default:
            guard let document = state.withLock({ $0.documents[parts.last ?? ""] }) else {
                return refusal(404, "not_found")
            }
            return TransportResponse(status: 200, body: Data(document.utf8))
        }
    }

    private func checkIn() -> TransportResponse {
        let document = state.withLock { state -> String? in
            guard state.place < Self.steps.count else { return nil }
            if let live = state.live { return state.documents[live] }
            state.issued += 1
            let id = "asg_\(state.issued)"
            state.live = id
            state.documents[id] = assignment(id, Self.steps[state.place])
            return state.documents[id]
        }
        guard let document else {
            return TransportResponse(status: 200, body: Data(#"{"reason": "no_run"}"#.utf8))
        }
        return TransportResponse(status: 201, body: Data("{\"assignment\": \(document)}".utf8))
    }

    private func assignment(_ id: String, _ step: Step) -> String {
        let ledger = String(repeating: step.hasForkedLedger ? "b" : "a", count: 64)
        return """
            {"id": "\(id)", "run": "\(step.run)", "round": \(step.round), "attempt": 1, "kind": "train", "seed": "5",
             "deadline_in_s": 60, "round_committed": true, "update_url": "/v1/assignments/\(id)/update",
             "model": {"version": 0, "url": "/v1/model", "sha256": "\(Self.hash(model))", "bytes": \(model.count)},
             "architecture": {"architecture": "external"}, "training": \(step.training),
             "privacy": {"mode": "central", "noise_multiplier": 1, "clipping": {"norm": 1}},
             "tensors": [{"name": "w", "shape": [64]}],
             "ledger_head": {"population": "pop_1", "number": 7, "hash": "\(ledger)"}}
            """
    }

    /// Takes an update; of each assignment's first the answer is lost.
    private func take(_ bytes: Data, from id: String) throws -> TransportResponse {
        let hash = Self.hash(bytes)
        let (isRefused, isLost) = state.withLock { state -> (Bool, Bool) in
            state.sent[id, default: []].insert(hash)
            if state.acceptedBy[id] == nil {
                guard state.live == id else { return (true, false) }
                state.acceptedBy[id] = hash
                state.accepted.append(hash)
                state.place += 1
                state.live = nil
            }
            return (state.acceptedBy[id] != hash, state.lost.insert(id).inserted)
        }
        if isRefused { return refusal(409, "update_differs") }
        if isLost { throw ClientError(code: "network", message: "the answer was lost") }
        let receipt = #"{"assignment": "\#(id)", "state": "accepted", "sha256": "\#(hash)", "bytes": \#(bytes.count)}"#
        return TransportResponse(status: 200, body: Data(receipt.utf8))
    }
}
