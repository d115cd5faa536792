import Crypto
import Foundation
public import MartletClient
public import MartletTransport
import StrictJSON
import Synchronization
import UpdateCompression
import WireFormat

/// A server in this process, for an app's own tests: it hands out work, reads what clients send as strictly as the real one, and
/// averages it.
///
/// Give it to `FederatedClient` as the transport, with any URL; no port is opened and no time passes. A round ends when
/// its goal is reached, and the mean of its updates, weighted by examples, becomes the next model. It knows no privacy budget and no
/// populations: with mode `local` clients noise as they do for a real server.
public final class InMemoryServer: Transport {
    /// What a run asks for, in the words of a run file.
    public struct Run: Sendable {
        /// Rounds, after which there is no work.
        public var rounds: Int
        /// Updates that end a round.
        public var goal: Int
        /// How often one client may take part.
        public var maxParticipations: Int
        /// The section `training` of a run file, as JSON.
        public var training: String
        /// The section `privacy` of a run file, as JSON; `{}` for none.
        public var privacy: String

        /// Describes a run.
        public init(
            rounds: Int = 1,
            goal: Int = 1,
            maxParticipations: Int = 1000,
            training: String = "{}",
            privacy: String = "{}"
        ) {
            self.rounds = rounds
            self.goal = goal
            self.maxParticipations = maxParticipations
            self.training = training
            self.privacy = privacy
        }
    }

    /// An update that was accepted.
    public struct Update: Sendable {
        /// The round that it counts in.
        public var round: Int
        /// The client that sent it.
        public var client: String
        /// What was sent, decoded.
        public var delta: ParameterVector
        /// Examples that it counts for.
        public var exampleCount: Int
        /// What went beside the tensors, such as metrics.
        public var metadata: [String: String]
    }

    /// A client's own report that its work came to nothing.
    public struct Failure: Sendable, Equatable {
        /// The round.
        public var round: Int
        /// The code of the protocol, such as `training_failed`.
        public var code: String
        /// What else the client said.
        public var detail: String?
    }

    /// An answer in the server's place, to see what an app does then.
    public enum Interference: Sendable {
        /// The request does not arrive.
        case unreachable
        /// It arrives, and the answer is lost.
        case answerLost
        /// Somebody else answers.
        case answer(TransportResponse)
    }

    struct Assignment: Sendable {
        var id: String
        var client: String
        var round: Int
        var state = AssignmentState.assigned
        var receipt: UpdateReceipt?
    }

    struct State {
        var clients: [String: String] = [:]
        var registrations: [String: String] = [:]
        var assignments: [String: Assignment] = [:]
        var participations: [String: Int] = [:]
        var round = 1
        var models: [ParameterVector]
        var updates: [Update] = []
        var failures: [Failure] = []
        var requests: [String] = []
    }

    let run: Run
    let state: Mutex<State>
    let specification: RunSpecification
    private let interference: @Sendable (_ number: Int, _ request: TransportRequest) -> Interference?

    /// Opens a run.
    ///
    /// - Parameters:
    ///   - model: The first version.
    ///   - run: What is asked of clients.
    ///   - interference: Asked before each request, which are counted from 1; `nil` lets it through.
    /// - Throws: What a run file would be refused for.
    public init(
        model: ParameterVector,
        run: Run = Run(),
        interference: @escaping @Sendable (_ number: Int, _ request: TransportRequest) -> Interference? = { _, _ in nil
        }
    ) throws {
        self.run = run
        self.interference = interference
        state = Mutex(State(models: [model]))
        let text = """
            {"population": "tests", "rounds": \(run.rounds), "cohort": {"goal": \(run.goal), "over_selection": 1},
             "model": {"architecture": "external"}, "training": \(run.training), "privacy": \(run.privacy)}
            """
        specification = try RunSpecification.read(JSONValue.parse(Array(text.utf8)))
    }

    /// The newest model.
    public var model: ParameterVector { state.withLock { $0.models[$0.models.count - 1] } }
    /// Rounds that have ended.
    public var committedRounds: Int { state.withLock { $0.models.count - 1 } }
    /// All updates that were accepted, in order.
    public var updates: [Update] { state.withLock { $0.updates } }
    /// All failures that clients have reported.
    public var failures: [Failure] { state.withLock { $0.failures } }
    /// All requests as `METHOD /path`, in order.
    public var requests: [String] { state.withLock { $0.requests } }

    /// Answers a request as a server would.
    public func send(_ request: TransportRequest) async throws -> TransportResponse {
        try Task.checkCancellation()
        let body = try Self.body(of: request)
        let path = URLComponents(string: request.url)?.percentEncodedPath ?? "/"
        let number = state.withLock { state in
            state.requests.append("\(request.method) \(path)")
            return state.requests.count
        }
        let lost = ClientError(code: "network", message: "no answer from \(request.url): the test says so")
        let fault = interference(number, request)
        if case .unreachable = fault { throw lost }
        if case .answer(let response) = fault { return try deliver(response, request) }
        let response = try answer(request, path.split(separator: "/").map(String.init), body)
        if case .answerLost = fault { throw lost }
        return try deliver(response, request)
    }

    private static func body(of request: TransportRequest) throws -> Data {
        switch request.body {
        case .none: return Data()
        case .bytes(let data): return data
        case .file(let path, let offset):
            switch try RequestFile.part(path, from: offset, followsLinks: request.followsLinks) {
            case .bytes(let data): return data
            case .file(let path): return try Data(contentsOf: URL(fileURLWithPath: path))
            case .copy(let path):
                defer { try? FileManager.default.removeItem(atPath: path) }
                return try Data(contentsOf: URL(fileURLWithPath: path))
            }
        }
    }

    private func deliver(_ response: TransportResponse, _ request: TransportRequest) throws -> TransportResponse {
        var taken = AnswerBody(request)
        try response.body.withUnsafeBytes { try taken.take($0, status: response.status, headers: response.headers) }
        try taken.close()
        request.onProgress?(TransferProgress(receivedByteCount: taken.byteCount))
        return TransportResponse(status: response.status, headers: response.headers, body: taken.memory)
    }
}
