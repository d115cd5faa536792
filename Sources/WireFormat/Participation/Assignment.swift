import Foundation
package import StrictJSON
package import Tensors

/// One client's work in one round, as a client reads it: ``AssignmentBody`` after every field was checked.
///
/// A client believes nothing that a server says. So no value here can hold what would name a file outside the state
/// directory, a place outside the server, a time that no clock has, or more bytes than the owner allows.
package struct Assignment: Equatable, Sendable {
    /// A file to fetch: where it is, and how long and what exactly it must be.
    package struct ModelFile: Equatable, Sendable {
        package var version: Int
        package var path: ServerPath
        /// The model's name: the hash of its F32 file, however it travels.
        package var sha256: ContentHash
        /// The hash of the file at `path`.
        package var fileHash: ContentHash
        /// The size of the file at `path`.
        package var fileByteCount: Int
        package var encoding: ModelEncoding

        package init(
            version: Int,
            path: ServerPath,
            sha256: ContentHash,
            fileHash: ContentHash,
            fileByteCount: Int,
            encoding: ModelEncoding
        ) {
            self.version = version
            self.path = path
            self.sha256 = sha256
            self.fileHash = fileHash
            self.fileByteCount = fileByteCount
            self.encoding = encoding
        }
    }

    /// A tokeniser to fetch.
    package struct TokenizerFile: Equatable, Sendable {
        package var path: ServerPath
        package var sha256: ContentHash
    }

    /// What of an evaluation is published, noised, with differential privacy.
    package struct Release: Equatable, Sendable {
        package var metrics: [String]
        package var lossBound: Double

        package init(metrics: [String], lossBound: Double) {
            self.metrics = metrics
            self.lossBound = lossBound
        }
    }

    /// The helper's session that the update is masked for.
    ///
    /// Nothing of the document is known to be true before its grant is checked.
    package struct Protection: Equatable, Sendable {
        package var kind: ProtectionKind
        package var bits: Int
        package var norm: Int?
        /// D.
        package var document: [UInt8]
        /// The helper's signature of D, 64 bytes.
        package var grant: [UInt8]

        /// The most bytes of D; with names of 255 bytes it has 2,200.
        package static let documentByteLimit = 4096
        package static let grantByteCount = 64
    }

    package var id: AssignmentID
    package var run: RunID
    package var round: Int
    package var attempt: Int
    package var kind: WorkKind
    package var model: ModelFile
    package var architecture: RunSpecification.Model
    /// Where the architecture's tokeniser is, when it did not come along.
    package var tokenizer: TokenizerFile?
    package var base: ModelFile?
    package var control: ModelFile?
    package var training: RunSpecification.Training
    package var privacy: RunSpecification.Privacy
    package var tensors: ParameterLayout
    package var updateTensors: ParameterLayout?
    package var updatePath: ServerPath
    package var seed: UInt64
    package var deadline: PeerDuration
    package var lease: PeerDuration?
    package var cohortMinimum: Int?
    package var exampleCap: Int?
    /// What the run weighs updates by; absent where it does not say.
    package var weightUnit: WeightUnit?
    package var valueBound: Double?
    package var roundCommitted: Bool?
    package var release: Release?
    /// Where the population's privacy ledger stands; absent where it has none.
    package var ledgerHead: PopulationLedgerHead?
    /// What the device writes down before it begins.
    package var stateGeneration: Int?
    /// Present where the update is to be masked.
    package var protection: Protection?

    /// Names of the fields of an assignment that a client reads.
    package static let knownFields: Set<String> = [
        "id", "run", "round", "attempt", "kind", "model", "architecture", "base", "control", "training", "privacy",
        "tensors", "update_tensors", "update_url", "seed", "deadline_in_s", "lease_s", "cohort_minimum", "example_cap",
        "weight_unit", "value_bound", "round_committed", "release", "ledger_head", "state_generation",
        "protection",
    ]
    /// Those that it passes over: they tell people or other programs something.
    package static let unreadFields: Set<String> = ["state", "deadline", "max_participations"]

    /// Reads an assignment.
    ///
    /// - Parameters:
    ///   - document: What the server sent.
    ///   - modelByteLimit: No file that it names may be longer, and no model that it describes larger.
    /// - Returns: The assignment.
    /// - Throws: ``DocumentError`` naming every field that does not fit.
    package static func read(_ document: JSONValue, modelByteLimit: Int) throws(DocumentError) -> Assignment {
        try FieldReader.readAnswer(document) { Assignment(reading: $0, modelByteLimit: modelByteLimit) }
    }
}

extension Assignment {
    init?(reading fields: FieldReader, modelByteLimit: Int) {
        let id = fields.checked("id", as: AssignmentID.self)
        let run = fields.checked("run", as: RunID.self)
        round = fields.integer("round", in: 0...1_000_000_000)
        attempt = fields.integer("attempt", default: 1, in: 0...1_000_000_000)
        let kind = fields.word("kind", as: WorkKind.self)
        func file(_ name: String, isRequired: Bool = false) -> ModelFile? {
            guard isRequired || fields.has(name) else { return nil }
            return fields.object(name) { ModelFile(reading: $0, byteLimit: modelByteLimit) }
        }
        let model = file("model", isRequired: true)
        base = file("base")
        control = file("control")
        let described = fields.object("architecture") { fields in
            (model: RunSpecification.Model(assigned: fields), tokenizer: TokenizerFile.read(fields))
        }
        architecture = described.model
        tokenizer = described.tokenizer
        let privacy = fields.object("privacy") { RunSpecification.Privacy(assigned: $0) }
        self.privacy = privacy
        if !fields.has("training") { fields.report("training", "is required") }
        let training = fields.object("training") { RunSpecification.Training(reading: $0) }
        self.training = training
        let tensors = fields.layout("tensors", parameterLimit: modelByteLimit / 4)
        updateTensors =
            fields.has("update_tensors") ? fields.layout("update_tensors", parameterLimit: modelByteLimit / 2) : nil
        let updatePath = fields.checked("update_url", as: ServerPath.self)
        seed = 0
        if let number = UInt64(fields.string("seed", lengthLimit: 20)) {
            seed = number
        } else {
            fields.report("seed", "must be a 64-bit number as a string")
        }
        let deadline = fields.duration("deadline_in_s")
        stateGeneration = fields.optionalInteger("state_generation", in: 0...ClientGeneration.limit)
        lease = fields.optionalDuration("lease_s")
        cohortMinimum = fields.optionalInteger("cohort_minimum", in: 0...1_000_000_000)
        exampleCap = fields.optionalInteger("example_cap", in: 1...(1 << 53))
        weightUnit = fields.optionalWord("weight_unit", as: WeightUnit.self)
        valueBound = fields.optionalNumber("value_bound", in: 0...3e38, excludingLower: true)
        roundCommitted = fields.has("round_committed") ? fields.boolean("round_committed", default: false) : nil
        release = fields.has("release") ? fields.object("release") { Release(reading: $0) } : nil
        ledgerHead = fields.has("ledger_head") ? fields.object("ledger_head", PopulationLedgerHead.init(reading:)) : nil
        protection = fields.has("protection") ? fields.object("protection") { Protection(reading: $0) } : nil
        // What a run file must not combine, an assignment must not either.
        privacy.contradictions(noiseIsGiven: fields.has(at: "privacy/noise_multiplier")).under("privacy")
            .report(to: fields)
        training.contradictions(privacyMode: privacy.mode).under("training").report(to: fields)
        guard let id, let run, let kind, let model, let tensors, let updatePath, let deadline else { return nil }
        (self.id, self.run, self.kind, self.model) = (id, run, kind, model)
        (self.tensors, self.updatePath, self.deadline) = (tensors, updatePath, deadline)
        if kind == .evaluate, model.encoding != .f32 {
            fields.report("model", "what is measured is the model itself: encoding must be f32")
        }
        checkUpdateTensors(fields)
    }

    /// Refuses tensors that no update of the run has, so that no device works on more than its model.
    ///
    /// An update has the model's tensors; with SCAFFOLD those and their control variates; in a vote the vote.
    private func checkUpdateTensors(_ fields: FieldReader) {
        var expected = privacy.areVotes ? PrefixTrie.voteLayout : tensors
        if training.usesControlVariates {
            if let tensor = tensors.tensors.first(where: { $0.name.hasPrefix(ControlVariates.prefix) }) {
                let name = PrintableText.escaped(tensor.name, limit: 100)
                return fields.report("tensors", "'\(name)' begins as the names of control variates do")
            }
            expected = ControlVariates.jointLayout(tensors)
        }
        guard let updateTensors, updateTensors != expected else { return }
        fields.report("update_tensors", "are not those of an update of this run: \(expected.parameterCount) parameters")
    }
}

extension Assignment.ModelFile {
    fileprivate init?(reading fields: FieldReader, byteLimit: Int) {
        let version = fields.integer("version", in: 0...1_000_000_000)
        let path = fields.checked("url", as: ServerPath.self)
        let sha256 = fields.checked("sha256", as: ContentHash.self)
        // Not even an empty model is shorter than the length of its header.
        let sizes = 8...max(8, byteLimit)
        let byteCount = fields.integer("bytes", in: sizes)
        let encoding = fields.optionalWord("encoding", as: ModelEncoding.self) ?? .f32
        let encodedHash = fields.optionalChecked("encoded_sha256", as: ContentHash.self)
        let encodedByteCount = fields.optionalInteger("encoded_bytes", in: sizes)
        guard let path, let sha256 else { return nil }
        guard encoding != .f32, let encodedHash, let encodedByteCount else {
            // A server that does not say which file it means is asked for the one that it does name.
            self.init(
                version: version,
                path: encoding == .f32 ? path : path.withoutQuery,
                sha256: sha256,
                fileHash: sha256,
                fileByteCount: byteCount,
                encoding: .f32
            )
            return
        }
        self.init(
            version: version,
            path: path,
            sha256: sha256,
            fileHash: encodedHash,
            fileByteCount: encodedByteCount,
            encoding: encoding
        )
    }
}

extension Assignment.TokenizerFile {
    /// The reference in an architecture's configuration, where its tokeniser did not come along.
    fileprivate static func read(_ fields: FieldReader) -> Self? {
        guard case .object(let config)? = fields.rawObject("config"),
            case .object(let tokenizer)? = config["tokenizer"],
            tokenizer["url"] != nil || tokenizer["sha256"] != nil
        else { return nil }
        return fields.nested("config/tokenizer", tokenizer) { fields in
            let path = fields.checked("url", as: ServerPath.self)
            let sha256 = fields.checked("sha256", as: ContentHash.self)
            guard let path, let sha256 else { return nil }
            return Self(path: path, sha256: sha256)
        }
    }
}

extension PopulationLedgerHead {
    init?(reading fields: FieldReader) {
        self.init(
            population: fields.string("population", lengthLimit: 200),
            number: fields.integer("number", in: 0...Self.greatestNumber),
            hash: fields.checked("hash", as: ContentHash.self)?.text ?? ""
        )
        guard isWellFormed else {
            fields.report("hash", "is no head of a population's ledger")
            return nil
        }
    }
}

extension Assignment.Protection {
    fileprivate init?(reading fields: FieldReader) {
        let kind = fields.word("kind", as: ProtectionKind.self)
        if kind == ProtectionKind.none { fields.report("kind", "none is said by leaving protection out") }
        bits = fields.integer("bits", in: 16...64)
        if !RunSpecification.Protection.widths.contains(bits) { fields.report("bits", "must be 16, 32 or 64") }
        norm = fields.optionalInteger("norm", in: 1...RunSpecification.Protection.normLimit)
        let document = fields.base64("document", in: 1...Self.documentByteLimit)
        let grant = fields.base64("grant", in: Self.grantByteCount...Self.grantByteCount)
        guard let kind, let document, let grant else { return nil }
        (self.kind, self.document, self.grant) = (kind, document, grant)
    }
}

extension FieldReader {
    /// Bytes as base64; `nil` if they are missing, too few or too many, which is reported before they are decoded.
    fileprivate func base64(_ name: String, in counts: ClosedRange<Int>) -> [UInt8]? {
        let text = string(name, lengthLimit: (counts.upperBound + 2) / 3 * 4)
        guard !text.isEmpty else { return nil }
        guard let data = Data(base64Encoded: text), counts.contains(data.count) else {
            report(
                name,
                "must be base64 of "
                    + (counts.count == 1 ? "\(counts.lowerBound)" : "\(counts.lowerBound) to \(counts.upperBound)")
                    + " bytes"
            )
            return nil
        }
        return Array(data)
    }
}

extension Assignment.Release {
    fileprivate init(reading fields: FieldReader) {
        metrics = fields.stringList("metrics", countLimit: MetricSums.nameLimit) ?? []
        for name in metrics where !MetricSums.admits(name, 0) {
            fields.report("metrics", "'\(PrintableText.escaped(name, limit: 100))' \(MetricSums.rule)")
        }
        if metrics.isEmpty { fields.report("metrics", "must name at least one rate") }
        lossBound = fields.number("loss_bound", in: 0...1e6)
    }
}

extension RunSpecification.Model {
    /// As an assignment names it; what `config` must hold, the architecture says.
    fileprivate init(assigned fields: FieldReader) {
        architecture = Self.architecture(in: fields)
        config = fields.rawObject("config")
        // Where the first version and the base come from: nothing that a client acts on.
        initialization = nil
        base = nil
    }
}

extension RunSpecification.Privacy {
    /// As an assignment states them.
    ///
    /// The mode is never a default: terms that say nothing would be terms that promise nothing.
    fileprivate init(assigned fields: FieldReader) {
        if !fields.has("mode") {
            fields.report("mode", "is required: \(PrivacyMode.allCases.map(\.rawValue).joined(separator: ", "))")
        }
        if fields.isText("mechanism", MechanismWord.gaussianSparseHistogram.rawValue) {
            self.init(votes: fields)
        } else if fields.isText("mechanism", MechanismWord.sampleAndThreshold.rawValue) {
            self.init(sampledVotes: fields)
        } else {
            self.init(reading: fields)
        }
    }
}
