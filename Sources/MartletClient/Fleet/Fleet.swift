import Foundation
import MartletTransport
public import TrainerInterface

/// Many virtual clients in one process, each speaking the real protocol.
///
/// Clients share connections and downloaded models, and nothing else: each registers, has its own token, ledger and data.
public struct Fleet: Sendable {
    /// What the fleet has done so far.
    public struct Progress: Sendable, Equatable, Codable {
        /// Updates that were accepted.
        public var accepted = 0
        /// Clients that were revoked, have left because the open runs want them no more, or whose state cannot be used.
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
    private let transport: any Transport
    private let options: ParticipationOptions
    private let helper: HelperKey?
    private let notify: @Sendable (ClientNotice) -> Void
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
    ///   - transport: Shared by all of them.
    ///   - options: With `stopsWithoutWork` a client leaves when it has taken part as often as the open runs allow, and the
    ///     fleet ends with its last client.
    ///   - helper: The key of the helper without whose grant no client does work.
    ///   - notify: Receives what there is to say: a server that is away and comes back, a client's state that was mended, why
    ///     assignments end.
    ///   - makeTrainer: The trainer of a client by its number, made when it first has its turn.
    public init(
        server: String,
        enrollmentToken: String,
        stateDirectory: String,
        firstClient: Int = 0,
        clientCount: Int,
        width: Int = 16,
        transport: any Transport,
        options: ParticipationOptions = .init(stopsWithoutWork: true),
        helper: HelperKey? = nil,
        notify: @escaping @Sendable (ClientNotice) -> Void = { _ in },
        makeTrainer: @escaping @Sendable (Int) throws -> any LocalTrainer
    ) {
        self.server = server
        self.enrollmentToken = enrollmentToken
        self.stateDirectory = stateDirectory
        self.firstClient = firstClient
        self.clientCount = clientCount
        self.width = width
        self.transport = transport
        self.options = options
        self.helper = helper
        self.notify = notify
        self.makeTrainer = makeTrainer
    }

    /// Lets clients take part by turns until all are revoked, the options say so, or the task is cancelled.
    ///
    /// A server that is away and a full disk are waited out. A client whose own state cannot be used is left out, and the others go
    /// on; the owner is told. The directory is locked meanwhile.
    ///
    /// - Throws: `ClientError` of the fleet's own directory; what refuses every client, such as an enrollment token that is none;
    ///   where no client is left but those whose state cannot be used, the last one's error.
    public func run(report: @escaping @Sendable (Progress) async -> Void = { _ in }) async throws {
        let fleetState = try ClientState(directory: stateDirectory)
        let models = try ModelCache(directory: fleetState.subdirectory("models"))
        let turns = FleetTurns(clients: Array(firstClient..<(firstClient + clientCount)))
        var retry = RetryPolicy(attemptLimit: 3)
        let watch = OutageWatch(now: retry.now, notify: notify)
        watch.limit = options.giveUpAfterSeconds
        retry.watch = watch
        let policy = retry
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<min(width, clientCount) {
                group.addTask {
                    while !Task.isCancelled, let index = await turns.next() {
                        try await turn(index, fleetState, turns, models, policy, report)
                    }
                }
            }
            // What refuses every client ends the others, which would go on without an end.
            for try await _ in group {}
        }
        withExtendedLifetime(fleetState) {}
    }

    /// So often a client waits for the end of its own work of before, for some five minutes, until its owner is told.
    private static let lockedTurnLimit = 36

    private func turn(
        _ index: Int,
        _ fleetState: ClientState,
        _ turns: FleetTurns,
        _ models: ModelCache,
        _ retry: RetryPolicy,
        _ report: @Sendable (Progress) async -> Void
    ) async throws {
        let trainer = try makeTrainer(index)
        let directory = try fleetState.subdirectory("client-\(index)")
        var mine: FederatedClient?
        let outcome: ParticipationOutcome
        do {
            let client = FederatedClient(
                server: server,
                enrollmentToken: enrollmentToken,
                state: try ClientState(directory: directory),
                trainer: trainer,
                transport: transport,
                models: models,
                helper: helper,
                retry: retry,
                notify: { notice in notify(.init(kind: notice.kind, message: "client-\(index): \(notice.message)")) }
            )
            mine = client
            outcome = try await client.participateOnce(waitSeconds: 5)
        } catch let error as ClientError {
            let isKnown = mine?.device.state.hasCredential ?? false
            if error.code == ClientError.stateLocked, StateLock.isHeldHere(directory: directory),
                await turns.delayCount(index) < Self.lockedTurnLimit
            {
                // Its work of the turn before was cancelled, and has not ended yet.
                return await turns.putBack(index, { min(10, 0.25 * Double(1 << min($0, 8))) })
            }
            switch error.code {
            case _ where error.status == 401 && error.endsClient && isKnown:
                // Revoked: this client is out, the others go on.
                outcome = .finished
            case "enrollment_exhausted":
                if await turns.isNews(of: error.code) {
                    let words = "client-\(index) is left out, and others may be that are not registered yet: "
                    notify(.init(kind: .state, message: words + error.message))
                }
                return try await turns.setAside(index, error)
            case _ where error.status != nil && error.endsClient && isKnown, "storage", "state_damaged", "state_locked":
                // One device's trouble: it is out until its owner has acted.
                notify(.init(kind: .state, message: "client-\(index) is left out: \(error.message)"))
                return try await turns.setAside(index, error)
            case _ where error.endsClient || retry.watch?.isTooLong() == true: throw error
            default:
                retry.watch?.failed(error)
                return await turns.putBack(index, { min(300, retry.backoff($0 + 3) + 1) })
            }
        } catch {
            if error is CancellationError { throw error }
            retry.watch?.failed(ClientError(unexpected: error))
            return await turns.putBack(index, { min(300, retry.backoff($0 + 3) + 1) })
        }
        if case .ended(let reason) = outcome, await turns.isNew(reason) {
            let sentence = await mine?.lastReason.map { ": " + $0 } ?? ""
            notify(.init(kind: .ended, message: "client-\(index): \(reason.code)\(sentence)"))
        }
        let bytesDown = await models.bytesDown
        let progress = await turns.note(
            outcome,
            index,
            bytesUp: await mine?.bytesUp ?? 0,
            bytesDown: bytesDown,
            leavesAtLimit: options.stopsWithoutWork
        )
        await report(progress)
        if case .noWork(let reason, let seconds) = outcome, reason == .noRun {
            try await Task.sleep(for: .seconds(min(seconds, 1)))
        }
    }
}

#if Curl
extension Fleet {
    /// Describes a fleet over libcurl; the other parameters are those of the initialiser with a transport.
    public init(
        server: String,
        enrollmentToken: String,
        stateDirectory: String,
        firstClient: Int = 0,
        clientCount: Int,
        width: Int = 16,
        options: ParticipationOptions = .init(stopsWithoutWork: true),
        helper: HelperKey? = nil,
        notify: @escaping @Sendable (ClientNotice) -> Void = { _ in },
        makeTrainer: @escaping @Sendable (Int) throws -> any LocalTrainer
    ) {
        self.init(
            server: server,
            enrollmentToken: enrollmentToken,
            stateDirectory: stateDirectory,
            firstClient: firstClient,
            clientCount: clientCount,
            width: width,
            transport: CurlTransport(),
            options: options,
            helper: helper,
            notify: notify,
            makeTrainer: makeTrainer
        )
    }
}
#endif

/// Whose turn it is, in a circle; finished clients leave it, and some have to wait.
private actor FleetTurns {
    private var waiting: [Int]
    private var position = 0
    private var busy = 0
    private var progress = Fleet.Progress()
    /// Clients whose turn is skipped until then, and how often in a row it was made later.
    private var later: [Int: (until: ContinuousClock.Instant, count: Int)] = [:]
    private var skipped = 0
    private var asideCount = 0
    /// Codes of endings that were told since an update was accepted.
    private var told: Set<String> = []
    /// Codes for which clients were left out.
    private var leftOut: Set<String> = []
    private let clientCount: Int

    init(clients: [Int]) {
        clientCount = clients.count
        waiting = clients
    }

    func next() async -> Int? {
        while true {
            if position < waiting.count {
                let index = take()
                guard let until = later[index]?.until, until > .now else {
                    skipped = 0
                    busy += 1
                    return index
                }
                waiting.append(index)
                skipped += 1
                // Nobody who may go: look again in a moment.
                if skipped < waiting.count - position { continue }
                skipped = 0
            } else if busy == 0 {
                return nil
            }
            // All are busy or waiting: one of them will come back or finish soon.
            do { try await Task.sleep(for: .milliseconds(50)) } catch { return nil }
        }
    }

    private func take() -> Int {
        position += 1
        if position > 4096 {
            waiting.removeFirst(position - 1)
            position = 1
        }
        return waiting[position - 1]
    }

    /// Lets a client go whose state cannot be used.
    ///
    /// - Throws: Its error, where all others have gone in the same way.
    func setAside(_ index: Int, _ error: ClientError) throws {
        busy -= 1
        asideCount += 1
        progress.finished += 1
        if asideCount == clientCount { throw error }
    }

    /// Whether nobody was left out for this reason yet; afterwards one was.
    func isNews(of code: String) -> Bool { leftOut.insert(code).inserted }

    /// Whether assignments have not ended for this reason since an update was accepted; afterwards they have.
    func isNew(_ reason: EndingReason) -> Bool { told.insert(reason.code).inserted }

    /// Gives a client its turn again after a while.
    func putBack(_ index: Int, _ seconds: (_ failures: Int) -> Double) {
        busy -= 1
        delay(index, seconds)
        waiting.append(index)
    }

    /// How often in a row a client's turn was made later.
    func delayCount(_ index: Int) -> Int { later[index]?.count ?? 0 }

    private func delay(_ index: Int, _ seconds: (_ failures: Int) -> Double) {
        let count = (later[index]?.count ?? 0) + 1
        later[index] = (.now + .seconds(seconds(count)), count)
    }

    func note(
        _ outcome: ParticipationOutcome,
        _ index: Int,
        bytesUp: Int,
        bytesDown: Int,
        leavesAtLimit: Bool
    ) -> Fleet.Progress {
        busy -= 1
        var leaves = outcome == .finished
        switch outcome {
        case .accepted:
            progress.accepted += 1
            later[index] = nil
            told = []
        case .finished: progress.finished += 1
        case .ended:
            progress.ended += 1
            // Work that ends again and again is asked for ever more seldom.
            delay(index) { min(300, 0.25 * Double(1 << min($0, 12))) }
        case .noWork(.participationLimit, let seconds):
            if leavesAtLimit {
                progress.finished += 1
                leaves = true
            } else {
                delay(index) { _ in seconds }
            }
        case .noWork: later[index] = nil
        }
        progress.bytesUp += bytesUp
        progress.bytesDown = bytesDown
        if !leaves { waiting.append(index) }
        return progress
    }
}
