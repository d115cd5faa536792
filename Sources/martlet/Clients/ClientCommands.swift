import ArgumentParser
import CoordinatorAPI
import Foundation
import LocalTraining
import MartletClient
import StrictJSON
import Synchronization
import WireFormat

struct ClientCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "client",
        abstract: "Take part as one device: train on a text that stays here."
    )

    @Option(help: "The server's URL (or MARTLET_URL).") var server: String?
    @OptionGroup var trust: TrustOptions
    @Option(help: "Needed for the first start only.") var enrollmentToken: String?
    @Option(help: "TXT (a record a line), JSONL, or CSV: a table, or with --field texts.") var data: String
    @Option(help: "The JSON field (default text) or CSV column with the text.") var field: String?
    @Option(name: .customLong("where"), help: "With a table: rows with COLUMN=VALUE only; may be repeated.")
    var filters: [String] = []
    @Option(help: "Data on which the model is judged when the server asks; default: the training data.")
    var evaluationData: String?
    @Option(help: "Train with this command instead of the built-in models; it gets --data as it is.")
    var trainerCommand: String?
    @Option(help: "With --trainer-command: further files of the model directory, such as a tokenizer.")
    var modelFile: [String] = []
    @Option(help: "With --trainer-command: threads it may use.") var trainerThreads = 2
    @Option(help: "Keeps the credential, the ledger and an unfinished upload.") var stateDir: String
    @Option(help: "What the device's owner allows, YAML or JSON; the options below take precedence.") var policy:
        String?
    @Option(help: "Refuse to take part in a run more often than this.") var maxParticipations: Int?
    @Option(help: "Refuse to spend more than this epsilon (at the policy's delta, or 1e-5).") var maxEpsilon: Double?
    @Option(help: "Comma-separated privacy modes that are accepted.") var acceptModes: String?
    @Option(help: "Refuse rounds that may publish what fewer clients sent.") var minimumCohort: Int?
    @Flag(help: "Stop when the server has no work.") var once = false
    @Flag(help: "Print outcomes as JSON lines.") var json = false

    func validate() throws {
        if let maxEpsilon, !(maxEpsilon >= 0) {
            throw ValidationError("--max-epsilon must be 0 or more, not \(maxEpsilon)")
        }
        for (name, count) in [("max-participations", maxParticipations), ("minimum-cohort", minimumCohort)] {
            if let count, count < 0 { throw ValidationError("--\(name) must be 0 or more, not \(count)") }
        }
        for mode in acceptedModes ?? [] where !ClientPrivacyPolicy.modes.contains(mode) {
            throw ValidationError(
                "--accept-modes: '\(mode)' is no mode: \(ClientPrivacyPolicy.modes.joined(separator: ", "))"
            )
        }
    }

    private var acceptedModes: [String]? {
        acceptModes?.split(separator: ",").map { $0.trimmingCharacters(in: .whitespaces) }
    }

    func run() async throws {
        let state = try ClientState(directory: stateDir)
        let client = FederatedClient(
            server: try ServerAccess.url(server),
            enrollmentToken: enrollmentToken,
            state: state,
            trainer: try trainer(),
            transport: CurlTransport(connectionLimit: 2, security: trust.security),
            models: try ModelCache(directory: stateDir + "/models"),
            policy: try privacyPolicy()
        )
        let work = Task {
            while !Task.isCancelled {
                let outcome = try await client.participateOnce(waitSeconds: once ? 0 : 30)
                show(outcome, reason: await client.lastRefusal)
                if outcome == .finished { return }
                guard case .noWork(_, let seconds) = outcome else { continue }
                if once { return }
                try await Task.sleep(for: .seconds(seconds))
            }
        }
        let stopper = Task {
            if await Signals.waitForStop() {
                ExternalTrainer.stopAll()
                work.cancel()
            }
        }
        defer { stopper.cancel() }
        do {
            try await work.value
        } catch is CancellationError {
            return
        } catch {
            throw Failure(error)
        }
    }

    private func privacyPolicy() throws -> ClientPrivacyPolicy {
        var result = ClientPrivacyPolicy()
        if let policy {
            result = try DocumentFile.read(policy, as: "a policy") { try ClientPrivacyPolicy.read($0) }
        }
        if let maxParticipations { result.maxParticipations = maxParticipations }
        if let maxEpsilon { result.maxEpsilon = maxEpsilon }
        if let acceptedModes { result.acceptedModes = acceptedModes }
        if let minimumCohort { result.minimumCohort = minimumCohort }
        return result
    }

    private func trainer() throws -> any LocalTrainer {
        if let trainerCommand {
            guard filters.isEmpty, field == nil else {
                throw ValidationError("--where and --field are for built-in models; the command reads --data itself")
            }
            return ExternalTrainer(
                .init(
                    command: trainerCommand,
                    data: data,
                    workDirectory: stateDir + "/trainer",
                    modelFiles: Dictionary(
                        modelFile.map { (URL(fileURLWithPath: $0).lastPathComponent, URL(fileURLWithPath: $0).path) },
                        uniquingKeysWith: { $1 }
                    ),
                    threads: trainerThreads
                ),
                report: ExternalTrainerLog.show
            )
        }
        let training = try DataFiles.data(at: data, field: field, filters: filters)
        let heldOut = try evaluationData.map { try DataFiles.data(at: $0, field: field, filters: filters) }
        let reportPath = stateDir + "/data-report.json"
        return DeviceTrainer(data: training, heldOut: heldOut) { report in
            // For the device's owner; it is sent nowhere.
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.sortedKeys, .prettyPrinted]
            try? encoder.encode(report).write(to: URL(fileURLWithPath: reportPath), options: .atomic)
        }
    }

    private func show(_ outcome: ParticipationOutcome, reason: String?) {
        let (name, detail): (String, String) =
            switch outcome {
            case .accepted(let run, let round): ("accepted", "round \(round) of \(run)")
            case .noWork(let reason, _): ("no_work", reason)
            case .finished: ("finished", "taken part as often as the run allows")
            case .ended(let code): ("ended", code)
            }
        // Why this device would not: for its owner.
        let why = outcome == .ended(code: "privacy_refused") ? reason : nil
        if json {
            var fields = ["outcome": name, "detail": detail]
            fields["reason"] = why
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
            print((try? encoder.encode(fields)).map { String(decoding: $0, as: UTF8.self) } ?? "{}")
        } else {
            print("\(name): \(detail)" + (why.map { ": \($0)" } ?? ""))
        }
        fflush(nil)
    }
}

struct FleetCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "fleet",
        abstract: "Many virtual clients in one process, each speaking the real protocol."
    )

    @Option(help: "The server's URL (or MARTLET_URL).") var server: String?
    @Option(help: "Good for all clients.") var enrollmentToken: String
    @Option(help: "How many clients.") var clients = 100
    @Option(help: "The number of the first client.") var first = 0
    @Option(help: "Keeps every client's state.") var stateDir: String
    @Option(help: "A text file or directory: one client per file or speaking role; default: synthetic messages.")
    var text: String?
    @Option(help: "Seed of the synthetic messages.") var seed: UInt64 = 1
    @Option(help: "Clients that are active at the same time.") var width = 16
    @Flag(help: "With --text: keep the last fifth of each client's lines out of training.") var holdOut = false
    @Flag(help: "Print progress as JSON lines.") var json = false

    func validate() throws {
        guard clients > 0 else { throw ValidationError("--clients must be at least 1, not \(clients)") }
        guard width > 0 else { throw ValidationError("--width must be at least 1, not \(width)") }
        guard first >= 0 else { throw ValidationError("--first must be 0 or more, not \(first)") }
    }

    func run() async throws {
        let seed = seed
        let holdOut = holdOut
        let texts = try text.map { try TextFiles.clients(at: $0) }?.map { holdOut ? $0.training : $0.all }
        let fleet = Fleet(
            server: try ServerAccess.url(server),
            enrollmentToken: enrollmentToken,
            stateDirectory: stateDir,
            firstClient: first,
            clientCount: texts.map { max(0, min(clients, $0.count - first)) } ?? clients,
            width: width,
            makeTrainer: { index in
                DeviceTrainer(
                    texts: texts.map { [$0[index]] } ?? SyntheticMessages.messages(ofClient: index, seed: seed)
                )
            }
        )
        let log = FleetLog(json: json)
        defer { log.printLast() }
        let work = Task {
            try await fleet.run { log.note($0) }
        }
        let stopper = Task {
            if await Signals.waitForStop() { work.cancel() }
        }
        defer { stopper.cancel() }
        do {
            try await work.value
        } catch is CancellationError {
            return
        } catch {
            throw Failure(error)
        }
    }
}

/// Shows what a fleet has done: a line for each hundred updates, and one at the end however it comes.
private final class FleetLog: Sendable {
    private let json: Bool
    private let last = Mutex(Fleet.Progress())

    init(json: Bool) {
        self.json = json
    }

    func note(_ progress: Fleet.Progress) {
        let isNew = last.withLock { last in
            defer { last = progress }
            return last.accepted + last.ended < progress.accepted + progress.ended
        }
        if isNew, (progress.accepted + progress.ended).isMultiple(of: 100) { show(progress) }
    }

    func printLast() { show(last.withLock { $0 }) }

    private func show(_ progress: Fleet.Progress) {
        if json, let line = try? WireCoding.encode(progress) {
            print(String(decoding: line, as: UTF8.self))
        } else {
            print(
                "accepted \(progress.accepted), ended \(progress.ended), finished \(progress.finished), "
                    + "\(progress.bytesUp) bytes up, \(progress.bytesDown) bytes down"
            )
        }
        fflush(nil)
    }
}

/// Reads the user's own texts.
enum TextFiles {
    /// The non-empty lines of a file.
    static func records(at path: String) throws -> [String] {
        try read(path).split(whereSeparator: \.isNewline).map(String.init).filter { !$0.allSatisfy(\.isWhitespace) }
    }

    /// One client's lines, divided as `data` for training and for judging.
    struct ClientLines {
        var lines: [String]
        var all: String { Self.joined(lines[...]) }
        /// The first four fifths, at least one line and never all of several.
        var training: String { Self.joined(lines[..<trainingCount]) }
        /// The rest; empty for a client of one line.
        var heldOut: String { Self.joined(lines[trainingCount...]) }

        private var trainingCount: Int {
            lines.count < 2 ? lines.count : max(1, min(8 * lines.count / 10, lines.count - 1))
        }

        private static func joined(_ lines: ArraySlice<String>) -> String {
            lines.isEmpty ? "" : lines.joined(separator: "\n") + "\n"
        }
    }

    /// One client per file of a directory, or per speaking role of a play; a plain file is cut into parts of 20 lines.
    static func clients(at path: String) throws -> [ClientLines] {
        var isDirectory: ObjCBool = false
        guard FileManager.default.fileExists(atPath: path, isDirectory: &isDirectory) else {
            throw ValidationError("there is no file or directory \(path)")
        }
        if isDirectory.boolValue {
            return try FileManager.default.contentsOfDirectory(atPath: path).sorted().filter { !$0.hasPrefix(".") }
                .map { ClientLines(lines: try records(at: path + "/" + $0)) }.filter { !$0.lines.isEmpty }
        }
        let text = try read(path)
        let roles = PlayScript.roles(in: text)
        if roles.count > 1 { return roles.map { ClientLines(lines: $0.lines) } }
        let lines = text.split(whereSeparator: \.isNewline).map(String.init)
        return stride(from: 0, to: lines.count, by: 20)
            .map { ClientLines(lines: Array(lines[$0..<min(lines.count, $0 + 20)])) }
    }

    private static func read(_ path: String) throws -> String {
        guard let data = FileManager.default.contents(atPath: path) else {
            throw ValidationError("cannot read \(path)")
        }
        return String(decoding: data, as: UTF8.self)
    }
}
