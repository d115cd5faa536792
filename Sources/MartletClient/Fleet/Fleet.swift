import Foundation
public import LocalTraining

/// Many virtual clients in one process, each speaking the real protocol.
///
/// Clients share connections and downloaded models, and nothing else: each registers, has its own token, ledger and data.
public struct Fleet: Sendable {
    /// What the fleet has done so far.
    public struct Progress: Sendable, Equatable, Codable {
        /// Updates that were accepted.
        public var accepted = 0
        /// Clients that may take part no more.
        public var finished = 0
        /// Assignments that came to nothing.
        public var ended = 0
        /// Bytes of accepted updates.
        public var bytesUp = 0
        /// Bytes of downloaded models.
        public var bytesDown = 0

        /// Nothing done yet.
        public init() {}
    }

    private let server: String
    private let enrollmentToken: String
    private let stateDirectory: String
    private let clientCount: Int
    private let firstClient: Int
    private let width: Int
    private let makeTrainer: @Sendable (Int) throws -> any LocalTrainer

    /// Describes a fleet.
    ///
    /// - Parameters:
    ///   - server: The server's base URL.
    ///   - enrollmentToken: Good for all clients.
    ///   - stateDirectory: Each client has a directory in it.
    ///   - firstClient: The number of the first client.
    ///   - clientCount: How many there are.
    ///   - width: How many are active at the same time.
    ///   - makeTrainer: The trainer of a client by its number, made when it first has its turn.
    public init(
        server: String,
        enrollmentToken: String,
        stateDirectory: String,
        firstClient: Int = 0,
        clientCount: Int,
        width: Int = 16,
        makeTrainer: @escaping @Sendable (Int) throws -> any LocalTrainer
    ) {
        self.server = server
        self.enrollmentToken = enrollmentToken
        self.stateDirectory = stateDirectory
        self.firstClient = firstClient
        self.clientCount = clientCount
        self.width = width
        self.makeTrainer = makeTrainer
    }

    /// Lets clients take part by turns until all are finished or revoked, or the task is cancelled.
    ///
    /// - Throws: The first error that ends a client for good.
    public func run(report: @escaping @Sendable (Progress) async -> Void = { _ in }) async throws {
        let transport = CurlTransport()
        let models = try ModelCache(directory: stateDirectory + "/models")
        let turns = FleetTurns(clients: Array(firstClient..<(firstClient + clientCount)))
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<min(width, clientCount) {
                group.addTask {
                    while !Task.isCancelled, let index = await turns.next() {
                        let state = try ClientState(directory: stateDirectory + "/client-\(index)")
                        let client = FederatedClient(
                            server: server,
                            enrollmentToken: enrollmentToken,
                            state: state,
                            trainer: try makeTrainer(index),
                            transport: transport,
                            models: models
                        )
                        let outcome: ParticipationOutcome
                        do {
                            outcome = try await client.participateOnce(waitSeconds: 5)
                        } catch let error as ClientError where error.status == 401 && state.hasCredential {
                            // Revoked: this client is out, the others go on.
                            outcome = .finished
                        }
                        let bytesDown = await models.bytesDown
                        await report(turns.note(outcome, index, bytesUp: await client.bytesUp, bytesDown: bytesDown))
                        if case .noWork(let reason, let seconds) = outcome, reason == "no_run" {
                            try await Task.sleep(for: .seconds(min(seconds, 1)))
                        }
                    }
                }
            }
            try await group.waitForAll()
        }
    }
}

/// Whose turn it is, in a circle; finished clients leave it.
private actor FleetTurns {
    private var waiting: [Int]
    private var position = 0
    private var busy = 0
    private var progress = Fleet.Progress()

    init(clients: [Int]) {
        waiting = clients
    }

    func next() async -> Int? {
        while position >= waiting.count {
            if busy == 0 { return nil }
            // All are busy: one of them will come back or finish soon.
            do { try await Task.sleep(for: .milliseconds(50)) } catch { return nil }
        }
        busy += 1
        position += 1
        if position > 4096 {
            waiting.removeFirst(position - 1)
            position = 1
        }
        return waiting[position - 1]
    }

    func note(_ outcome: ParticipationOutcome, _ index: Int, bytesUp: Int, bytesDown: Int) -> Fleet.Progress {
        busy -= 1
        switch outcome {
        case .accepted: progress.accepted += 1
        case .finished: progress.finished += 1
        case .ended: progress.ended += 1
        case .noWork: break
        }
        progress.bytesUp += bytesUp
        progress.bytesDown = bytesDown
        if outcome != .finished { waiting.append(index) }
        return progress
    }
}
