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
    @Option(help: "Text (a record a line), JSON records, or a table; with --field, its texts.") var data: String
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
    @Option(
        help:
            "With --trainer-command: a variable of this environment that it gets too, such as CUDA_VISIBLE_DEVICES; may be repeated."
    )
    var trainerEnv: [String] = []
    @Option(
        help:
            "With --trainer-command: made-up data in its format. In a private run it works on them when --data give nothing, so that nobody sees how soon it was done; without them private runs are refused."
    )
    var madeUpData: String?
    @Option(help: "Keeps the credential, the ledger and an unfinished upload.") var stateDir: String
    @Option(help: "What the device's owner allows, YAML or JSON; the options below take precedence.") var policy:
        String?
    @OptionGroup var helper: HelperKeyOptions
    @Option(parsing: .unconditional, help: "Refuse to take part in a run more often than this.")
    var maxParticipations: Int?
    @Option(
        parsing: .unconditional,
        help: "Refuse to spend more than this epsilon (at the policy's delta, or 1e-5)."
    )
    var maxEpsilon: Double?
    @Option(help: "Comma-separated privacy modes that are accepted.") var acceptModes: String?
    @Option(parsing: .unconditional, help: "Refuse rounds that may publish what fewer clients sent.")
    var minimumCohort: Int?
    @Option(help: "Refuse models with more bytes than this, such as 500MiB.") var maxModelBytes = ByteSize(4 << 30)
    @Option(help: "Refuse work of built-in models that takes more memory; without it half of what there is.")
    var maxTrainingBytes = ByteSize(ClientLimits.standardTrainingBytes)
    @Option(
        help:
            "Keep at most this many bytes between rounds of runs with sparse updates or SCAFFOLD; the oldest are removed."
    )
    var maxKeptBytes = ByteSize(8 << 30)
    @Flag(
        help:
            "Stop when the server has no work, and with the first error. A server that does not answer is waited for (--give-up-after)."
    )
    var once = false
    @Option(
        parsing: .unconditional,
        help: "Stop with an error when nobody has answered for so many seconds, also with --once; default: wait."
    )
    var giveUpAfter: Double?
    @Flag(help: "Forget the registration and register as a new client; the device's ledger stays.")
    var registerAgain = false
    @Flag(help: "Print outcomes as JSON lines.") var json = false

    func validate() throws {
        try ClientRuns.validate(giveUpAfter)
        if let maxEpsilon, !(maxEpsilon >= 0) {
            throw ValidationError("--max-epsilon must be 0 or more, not \(maxEpsilon)")
        }
        for (name, count) in [("max-participations", maxParticipations), ("minimum-cohort", minimumCohort)] {
            if let count, count < 0 { throw ValidationError("--\(name) must be 0 or more, not \(count)") }
        }
        let isBuiltIn = trainerCommand == nil
        guard !isBuiltIn || (modelFile.isEmpty && trainerEnv.isEmpty) else {
            throw ValidationError("--model-file and --trainer-env are for --trainer-command")
        }
        let own = ProcessInfo.processInfo.environment
        if let name = trainerEnv.first(where: { own[$0] == nil }) {
            throw ValidationError("--trainer-env: the variable \(name) is not set")
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
        let state: ClientState
        let models: ModelCache
        do {
            state = try ClientState(directory: stateDir)
            if registerAgain {
                guard enrollmentToken != nil else {
                    throw ValidationError("--register-again takes an --enrollment-token, too")
                }
                try state.forgetRegistration(by: privacyPolicy())
            }
            guard state.isRegistered || enrollmentToken != nil else {
                throw Failure(
                    "this device is not registered yet, and an enrollment token is needed for that (not_registered)",
                    advice: "Give --enrollment-token TOKEN. The server's operator makes one with: "
                        + "martlet population token NAME --uses 1"
                )
            }
            models = try ModelCache(directory: state.subdirectory("models"))
            if trainerCommand != nil { _ = try state.subdirectory("trainer") }
        } catch let error as ClientError {
            throw Failure(error)
        }
        let client = FederatedClient(
            server: try ServerAccess.url(server),
            enrollmentToken: enrollmentToken,
            state: state,
            trainer: try trainer(state),
            transport: CurlTransport(connectionLimit: 2, security: trust.security),
            models: models,
            policy: try privacyPolicy(),
            helper: try helper.key,
            limits: ClientLimits(
                modelBytes: maxModelBytes.bytes,
                keptBytes: maxKeptBytes.bytes,
                trainingBytes: maxTrainingBytes.bytes
            ),
            notify: ClientRuns.show
        )
        let options = ParticipationOptions(stopsWithoutWork: once, giveUpAfterSeconds: giveUpAfter)
        try await ClientRuns.untilStopped {
            try await client.run(options) { outcome, reason in
                var reason = reason
                if case .accepted = outcome, let shortfall = await client.lastShortfall {
                    reason = "the data gave nothing, zeros were sent: \(shortfall)"
                }
                show(outcome, reason: reason)
                if let notice = await client.takeLedgerNotice() {
                    printError("Warning: \(notice)")
                }
            }
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

    /// A device that a server knows is not kept away by data that cannot be read, which would tell the server of them; before that
    /// they are an error like a wrong option.
    private func trainer(_ state: ClientState) throws -> any LocalTrainer {
        let isRegistered = state.isRegistered
        if let trainerCommand {
            guard filters.isEmpty, field == nil else {
                throw ValidationError("--where and --field are for built-in models; the command reads --data itself")
            }
            let files = modelFile.map { URL(fileURLWithPath: $0) }
            guard !files.contains(where: { $0.lastPathComponent == "model.safetensors" }) else {
                throw ValidationError("--model-file: model.safetensors comes from the server")
            }
            for path in files.map(\.path) + [madeUpData].compactMap({ $0 })
            where !FileManager.default.fileExists(atPath: path) {
                throw Failure("there is no file or directory \(path)")
            }
            for path in [data, evaluationData].compactMap({ $0 }) where !FileManager.default.fileExists(atPath: path) {
                let failure = Failure("there is no file or directory \(path)")
                guard isRegistered else { throw failure }
                UnreadableData.warn(failure)
            }
            if madeUpData == nil {
                printError("private runs are refused: a trainer command needs --made-up-data for them")
            }
            var settings = ExternalTrainer.Settings(
                command: trainerCommand,
                data: data,
                workDirectory: stateDir + "/trainer",
                modelFiles: Dictionary(files.map { ($0.lastPathComponent, $0.path) }, uniquingKeysWith: { $1 }),
                threads: trainerThreads
            )
            settings.evaluationData = evaluationData
            settings.environment = trainerEnv
            settings.madeUpData = madeUpData
            return ExternalTrainer(settings, report: ExternalTrainerLog.show)
        }
        ClientRuns.showMatrixProducts()
        let training = try reader(of: data, isRegistered: isRegistered)
        let heldOut = try evaluationData.map { try reader(of: $0, isRegistered: isRegistered) }
        let told = Mutex<LeftOutRows?>(nil)
        return DeviceTrainer(reading: training, heldOut: heldOut) { report in
            // For the device's owner; it is sent nowhere.
            let isNew = told.withLock { last in
                defer { last = report.leftOut }
                return last != report.leftOut
            }
            if isNew, let leftOut = report.leftOut { LeftOutLog.show(leftOut) }
            guard let text = try? JSONValue(encoding: report).prettyText else { return }
            try? state.keep(Data(text.utf8), as: "data-report.json")
        }
    }

    /// Data as they are read now; where they cannot be, they are tried again for each assignment.
    private func reader(of path: String, isRegistered: Bool) throws -> @Sendable () throws -> LocalData {
        let (field, filters) = (field, filters)
        do {
            let data = try DataFiles.data(at: path, field: field, filters: filters)
            return { data }
        } catch let failure as Failure where isRegistered {
            UnreadableData.warn(failure)
            return {
                do { return try DataFiles.data(at: path, field: field, filters: filters) } catch let failure as Failure
                {
                    throw LocalTrainingError.unusableData(reason: failure.reason)
                }
            }
        }
    }

    private func show(_ outcome: ParticipationOutcome, reason: String?) {
        let (name, detail): (String, String) =
            switch outcome {
            case .accepted(let run, let round): ("accepted", "round \(round) of \(run)")
            case .noWork(.participationLimit, _): ("no_work", "taken part as often as the open runs allow")
            case .noWork(let reason, _): ("no_work", reason.code)
            case .finished: ("finished", "revoked")
            case .ended(let reason): ("ended", reason.code)
            }
        if json {
            var fields = ["outcome": name, "detail": detail]
            fields["reason"] = reason
            let texts = fields.sorted { $0.key < $1.key }.map { ($0.key, JSONText.quoted($0.value)) }
            Terminal.document(JSONText.object(texts))
        } else {
            print(Terminal.printable("\(name): \(detail)" + (reason.map { ": \($0)" } ?? "")))
        }
        fflush(nil)
    }
}

/// Data that a device which is known to its server cannot read.
private enum UnreadableData {
    static func warn(_ failure: Failure) {
        let text =
            "Warning: \(failure.reason). This device takes part all the same, since staying away would tell the server: in private "
            + "runs it sends zeros, which cost what an update costs, and runs without privacy hear that it has no data"
        printError(text)
    }
}

/// Tells the device's owner which rows no training sees; it goes nowhere else.
private enum LeftOutLog {
    static func show(_ rows: LeftOutRows) {
        var lines: [String] = []
        if rows.missing > 0 { lines.append("data: \(rows.missing) rows are left out for a missing value") }
        if rows.unreadable > 0 {
            lines.append("data: \(rows.unreadable) rows are left out because they cannot be read")
            lines += rows.examples.prefix(5).map { "data:   " + $0 }
            if rows.unreadable > 5 { lines.append("data:   more are in data-report.json of the state directory") }
        }
        printError(lines.map { Terminal.printable($0) }.joined(separator: "\n"))
    }
}

/// Which helper a device asks for: the flag first, then the environment.
struct HelperKeyOptions: ParsableArguments {
    @Option(
        help:
            "PEM file of the helper's key, as martlet helper keys prints it (or MARTLET_HELPER_KEY_FILE): work without this helper's grant is refused.",
        completion: .file()
    )
    var helperKey: String?

    /// The key; a file that cannot be read is an error, and no permission to work without a helper.
    var key: HelperKey? {
        get throws {
            let variable = ProcessInfo.processInfo.environment["MARTLET_HELPER_KEY_FILE"]
            guard helperKey != nil || variable?.isEmpty != true else {
                throw ValidationError(
                    "MARTLET_HELPER_KEY_FILE is empty: name the file of the helper's key, or unset the variable"
                )
            }
            guard let path = helperKey ?? variable else { return nil }
            do { return try HelperKey(file: path) } catch { throw Failure(error) }
        }
    }
}

/// What `client` and `fleet` have in common.
enum ClientRuns {
    static func validate(_ giveUpAfter: Double?) throws {
        guard let giveUpAfter else { return }
        guard giveUpAfter >= 0, giveUpAfter <= 1e9 else {
            throw ValidationError("--give-up-after must be from 0 to 1000000000 seconds, not \(giveUpAfter)")
        }
    }

    /// Says what computes the matrix products of this process, once at its start.
    static func showMatrixProducts() { printError("training: \(BLASCore.sentence)") }

    /// Says what there is to say besides outcomes.
    @Sendable static func show(_ notice: ClientNotice) {
        printError(Terminal.printable(notice.message))
    }

    /// Works until it is done, or until the process is asked to stop: then trainers are stopped and waited for.
    static func untilStopped(_ body: @escaping @Sendable () async throws -> Void) async throws {
        let work = Task { try await body() }
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
        } catch {
            throw Failure(error)
        }
        await ExternalTrainer.waitUntilStopped()
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
    @OptionGroup var helper: HelperKeyOptions
    @Option(help: "A text file or directory: one client per file or speaking role; default: synthetic messages.")
    var text: String?
    @Option(help: "Seed of the synthetic messages.") var seed: UInt64 = 1
    @Option(help: "Clients that are active at the same time.") var width = 16
    @Flag(help: "With --text: keep the last fifth of each client's lines out of training.") var holdOut = false
    @Flag(help: "Let a client leave when the open runs want it no more, and stop with the last one.") var once = false
    @Option(help: "Stop with an error when nobody has answered for so many seconds; default: wait.")
    var giveUpAfter: Double?
    @Flag(help: "Print progress as JSON lines.") var json = false

    func validate() throws {
        try ClientRuns.validate(giveUpAfter)
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
            options: ParticipationOptions(stopsWithoutWork: once, giveUpAfterSeconds: giveUpAfter),
            helper: try helper.key,
            notify: ClientRuns.show,
            makeTrainer: { index in
                DeviceTrainer(
                    texts: texts.map { [$0[index]] } ?? SyntheticMessages.messages(ofClient: index, seed: seed)
                )
            }
        )
        ClientRuns.showMatrixProducts()
        let log = FleetLog(json: json)
        defer { log.printLast() }
        try await ClientRuns.untilStopped { try await fleet.run { log.note($0) } }
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
            Terminal.document(String(decoding: line, as: UTF8.self))
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
            throw ValidationError("cannot read \(path): \(DocumentFile.reason(path))")
        }
        do { return try TextEncoding.text(of: data) } catch let error as LocalTrainingError {
            throw ValidationError("\(path): \(error.ownerSentence)")
        }
    }
}
