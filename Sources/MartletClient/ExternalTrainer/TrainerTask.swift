import CLibrary
import Crypto
import Foundation
import MartletTransport
import StrictJSON
import Tensors
import TrainerInterface
import WireFormat

/// The directory of one assignment, as an external trainer finds it, and the reading of what it leaves there.
struct TrainerTask {
    enum Operation: String {
        case train, evaluate
    }

    /// The variable that names an assignment; every process that descends from its command has it.
    static let mark = "MARTLET_ASSIGNMENT"
    /// The name of the file that describes the assignment; the mark is its path.
    static let descriptionName = "assignment.json"

    let directory: String
    let model: ParameterVector
    let modelSHA256: String
    let logPath: String
    /// Keeps other commands away until the assignment is done with.
    var work: TrainerWork?

    /// Lays the directory out, without the data.
    ///
    /// - Parameters:
    ///   - directory: Made new.
    ///   - model: Written as `model/model.safetensors`.
    ///   - configuration: `model/config.json`; an empty object where the run has none. A model file of that name goes before it.
    ///   - modelFiles: Further files of the model directory, such as a tokenizer, by name; `model.safetensors` is the server's.
    ///   - state: A directory that is kept between rounds, linked as `state`.
    /// - Throws: The file system's error.
    init(
        directory: String,
        model: ParameterVector,
        configuration: Data?,
        modelFiles: [String: String],
        state: String
    ) throws {
        self.directory = directory
        self.model = model
        logPath = directory + "/trainer.log"
        let file = SafetensorsWriter.encode(model, metadata: ["format": "pt"])
        modelSHA256 = SHA256.hash(data: file).hexadecimal
        do { try Self.layOut(directory, file, configuration, modelFiles, state) } catch {
            Self.remove(directory)
            throw error
        }
    }

    private static func layOut(
        _ directory: String,
        _ file: Data,
        _ configuration: Data?,
        _ modelFiles: [String: String],
        _ state: String
    ) throws {
        let manager = FileManager.default
        for part in ["model", "data", "update"] {
            try manager.createDirectory(
                atPath: directory + "/" + part,
                withIntermediateDirectories: true,
                attributes: [.posixPermissions: 0o700]
            )
        }
        try manager.createSymbolicLink(atPath: directory + "/state", withDestinationPath: state)
        try file.write(to: URL(fileURLWithPath: directory + "/model/model.safetensors"))
        chmod(directory + "/model/model.safetensors", 0o400)
        if modelFiles["config.json"] == nil {
            try (configuration ?? Data("{}".utf8)).write(to: URL(fileURLWithPath: directory + "/model/config.json"))
            chmod(directory + "/model/config.json", 0o400)
        }
        for (name, path) in modelFiles {
            guard name != "model.safetensors" else {
                throw ExternalTrainerError(
                    .start,
                    "model.safetensors comes from the server and is no further model file"
                )
            }
            guard manager.fileExists(atPath: path) else {
                throw ExternalTrainerError(.start, "there is no model file \(path)")
            }
            try manager.createSymbolicLink(atPath: directory + "/model/" + name, withDestinationPath: path)
        }
        chmod(directory + "/model", 0o500)
    }

    /// Looks at the data for the first time: a file becomes `data/train.EXT`, of a directory each entry is linked.
    ///
    /// - Throws: ``ExternalTrainerError`` with rule `start`, whatever is wrong with them.
    func link(_ data: String) throws {
        do { try Self.link(data, into: directory + "/data") } catch {
            if error is ExternalTrainerError { throw error }
            throw ExternalTrainerError(.start, "the data at \(data) cannot be linked: \(ErrorWords.of(error))")
        }
        chmod(directory + "/data", 0o500)
    }

    private static func link(_ data: String, into directory: String) throws {
        var isDirectory: ObjCBool = false
        guard FileManager.default.fileExists(atPath: data, isDirectory: &isDirectory) else {
            throw ExternalTrainerError(.start, "there are no data at \(data)", failure: .noData)
        }
        let absolute = URL(fileURLWithPath: data).standardizedFileURL.path
        guard isDirectory.boolValue else {
            let suffix = (data as NSString).pathExtension
            return try FileManager.default.createSymbolicLink(
                atPath: directory + "/train." + (suffix.isEmpty ? "txt" : suffix),
                withDestinationPath: absolute
            )
        }
        for name in try FileManager.default.contentsOfDirectory(atPath: absolute) where !name.hasPrefix(".") {
            try FileManager.default.createSymbolicLink(
                atPath: directory + "/" + name,
                withDestinationPath: absolute + "/" + name
            )
        }
    }

    /// Writes `assignment.json`.
    func describe(
        _ operation: Operation,
        instructions: ExternalInstructions,
        deadline: ContinuousClock.Instant
    ) throws {
        var hyper: [String: JSONValue] = [
            "optimizer": .string(instructions.optimizer), "epochs": .integer(instructions.epochs),
            "batch_size": .integer(instructions.batchSize), "lr": JSONValue(instructions.learningRate),
            "max_steps": .integer(instructions.maxSteps), "clip": JSONValue(instructions.gradientClip),
            "proximal_mu": JSONValue(instructions.proximalMu), "weight_decay": JSONValue(instructions.weightDecay),
        ]
        hyper.merge(instructions.optimizerConstants.mapValues { JSONValue($0) }) { $1 }
        let fields: [String: JSONValue] = [
            "schema": .integer(1), "op": .string(operation.rawValue), "run": .string(instructions.run),
            "round": .integer(instructions.round), "seed": .string(String(instructions.seed)),
            "deadline": .integer(Self.unixTime(deadline)), "threads": .integer(instructions.threads),
            "hyper": .object(hyper), "trainable": .array([.string("*")]), "output": .string("delta"),
        ]
        try Data(JSONValue.object(fields).text.utf8).write(
            to: URL(fileURLWithPath: directory + "/" + Self.descriptionName)
        )
    }

    /// A moment by the wall clock as it reads now: what trainers are told.
    ///
    /// The client itself never waits by that clock.
    private static func unixTime(_ instant: ContinuousClock.Instant) -> Int {
        Int(Date(timeIntervalSinceNow: (instant - .now) / .seconds(1)).timeIntervalSince1970)
    }

    /// The clean environment: what the trainer needs to find its files, and nothing of the client's.
    func environment(
        _ operation: Operation,
        instructions: ExternalInstructions,
        deadline: ContinuousClock.Instant
    ) -> [String: String] {
        let own = ProcessInfo.processInfo.environment
        var variables = [
            Self.mark: directory + "/" + Self.descriptionName, "MARTLET_MODEL_DIR": directory + "/model",
            "MARTLET_DATA_DIR": directory + "/data", "MARTLET_STATE_DIR": directory + "/state",
            "MARTLET_UPDATE_DIR": directory + "/update", "MARTLET_OP": operation.rawValue,
            "MARTLET_ROUND": String(instructions.round), "MARTLET_SEED": String(instructions.seed),
            "MARTLET_THREADS": String(instructions.threads),
            "MARTLET_DEADLINE": String(Self.unixTime(deadline)),
            "OMP_NUM_THREADS": String(instructions.threads), "OPENBLAS_NUM_THREADS": String(instructions.threads),
            "LANG": "C.UTF-8",
        ]
        for name in ["PATH", "HOME", "TMPDIR"] { variables[name] = own[name] }
        return variables
    }

    /// The update, checked whole: names, shapes, dtype, finite values, base and kind.
    ///
    /// - Returns: New parameters minus old ones.
    /// - Throws: ``ExternalTrainerError`` naming the rule and the tensor.
    func update() throws -> ParameterVector {
        let path = directory + "/update/model.safetensors"
        guard let size = try? FileManager.default.attributesOfItem(atPath: path)[.size] as? Int else {
            throw ExternalTrainerError(.file, "update/model.safetensors was not written")
        }
        let limit = model.layout.parameterCount * 4 + SafetensorsHeader.headerByteLimit + 8
        guard size <= limit else {
            throw ExternalTrainerError(.file, "update/model.safetensors has \(size) bytes, more than \(limit)")
        }
        let file: SafetensorsFile
        do { file = try SafetensorsFile(path: path, followsLinks: false) } catch {
            throw ExternalTrainerError(.file, "update/model.safetensors: \(error.description)")
        }
        try checkTensors(file.header)
        let metadata = file.header.metadata
        let kind = metadata[UpdateMetadata.kind].map { PeerWord<Submission>($0) }
        guard kind == .known(.delta) || kind == .known(.weights) else {
            throw ExternalTrainerError(.kind, "metadata kind is \(kind?.text ?? "missing"), not delta or weights")
        }
        guard metadata["base"] == modelSHA256 else {
            throw ExternalTrainerError(
                .base,
                "metadata base is \(metadata["base"] ?? "missing"), not \(modelSHA256), the SHA-256 of the model file"
            )
        }
        var vector: ParameterVector
        do { vector = try file.readAll() } catch {
            throw ExternalTrainerError(.file, "update/model.safetensors: \(error.description)")
        }
        if kind == .known(.weights) { vector.values = VectorKernels.difference(vector.values, model.values) }
        for (index, tensor) in vector.layout.tensors.enumerated() {
            let range = vector.layout.offsets[index]..<vector.layout.offsets[index + 1]
            guard vector.values[range].allSatisfy(\.isFinite) else {
                throw ExternalTrainerError(.finite, "tensor '\(tensor.name)' holds a NaN or an infinity")
            }
        }
        return vector
    }

    private func checkTensors(_ header: SafetensorsHeader) throws {
        let expected = Dictionary(uniqueKeysWithValues: model.layout.tensors.map { ($0.name, $0.shape) })
        var missing = Set(expected.keys)
        for entry in header.entries {
            let name = entry.specification.name
            guard let place = expected.index(forKey: name) else {
                throw ExternalTrainerError(.names, "tensor '\(name)' is not one of the model's")
            }
            let (known, shape) = expected[place]
            guard known.utf8.elementsEqual(name.utf8) else {
                throw ExternalTrainerError(
                    .names,
                    "tensor '\(name)' looks like one of the model's and is written with other code points (NFC or NFD)"
                )
            }
            guard shape == entry.specification.shape else {
                throw ExternalTrainerError(
                    .shape,
                    "tensor '\(name)' has shape \(entry.specification.shape), not \(shape)"
                )
            }
            guard entry.dataType == .float32 else {
                throw ExternalTrainerError(.dataType, "tensor '\(name)' has dtype \(entry.dataType.rawValue), not F32")
            }
            missing.remove(name)
        }
        if let name = missing.min() { throw ExternalTrainerError(.names, "tensor '\(name)' is missing") }
    }

    /// Removes the directory, whatever its permissions.
    func remove() { Self.remove(directory) }

    /// Removes everything but the log, which an error names.
    func removeAllButLog() {
        for part in ["model", "data"] { chmod(directory + "/" + part, 0o700) }
        for name in (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []
        where !logPath.hasSuffix("/" + name) {
            try? FileManager.default.removeItem(atPath: directory + "/" + name)
        }
    }

    /// Removes an assignment's directory.
    static func remove(_ directory: String) {
        for part in ["model", "data"] { chmod(directory + "/" + part, 0o700) }
        try? FileManager.default.removeItem(atPath: directory)
    }
}

/// What the trainer is told, in its own words.
struct ExternalInstructions {
    var run = "run"
    var round = 1
    var seed: UInt64 = 1
    var threads = 1
    var optimizer = "sgd"
    var epochs = 1
    var batchSize = 16
    var learningRate = 0.5
    var maxSteps = 200
    var gradientClip = 5.0
    var proximalMu = 0.0
    var weightDecay = 0.0
    /// What belongs to the optimizer alone: momentum's memory, Adam's.
    var optimizerConstants: [String: Double] = [:]
}

extension ExternalInstructions {
    init(_ instructions: TrainingInstructions, context: TrainingContext) {
        run = context.run
        round = context.round
        seed = instructions.seed
        optimizer = instructions.optimizer.rule.rawValue
        epochs = instructions.epochs
        batchSize = instructions.batchSize
        learningRate = instructions.optimizer.learningRate
        // JSON readers of other languages take numbers up to 2^53.
        maxSteps = min(instructions.maxSteps, 1 << 53)
        gradientClip = instructions.gradientClip
        proximalMu = instructions.proximalMu
        weightDecay = instructions.optimizer.weightDecay
        optimizerConstants =
            switch instructions.optimizer.rule {
            case .sgd: [:]
            case .momentum: ["momentum": instructions.optimizer.momentum]
            case .adam, .adamw:
                [
                    "beta1": instructions.optimizer.beta1, "beta2": instructions.optimizer.beta2,
                    "epsilon": instructions.optimizer.epsilon,
                ]
            }
    }
}
