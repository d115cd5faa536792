package import StrictJSON
package import Tensors

/// `POST /v1/clients`: what a client says when it registers.
package struct RegistrationRequest: Codable, Equatable, Sendable {
    package var name: String?
    package var labels: [String: String]
    package var capabilities: ClientCapabilities?

    package init(name: String?, labels: [String: String] = [:], capabilities: ClientCapabilities? = nil) {
        self.name = name
        self.labels = labels
        self.capabilities = capabilities
    }

    package static func read(_ document: JSONValue) throws(DocumentError) -> Self {
        try FieldReader.read(document) { fields in
            Self(
                name: fields.optionalName("name"),
                labels: fields.labels("labels"),
                capabilities: ClientCapabilities.read("capabilities", in: fields)
            )
        }
    }
}

/// The answer to a registration; the token is shown this once.
package struct RegistrationResponse: Codable, Equatable, Sendable {
    package var clientId: String
    package var token: String

    package init(clientId: String, token: String) {
        self.clientId = clientId
        self.token = token
    }
}

/// `POST /v1/checkins`.
package struct CheckInRequest: Codable, Equatable, Sendable {
    package var runs: [String]?
    package var numExamples: Int?
    /// Replaces what the client said before.
    package var capabilities: ClientCapabilities?
    /// The last `state_generation` that the device has written down; an old one tells of a copy of its state.
    package var stateGeneration: Int?

    package init(
        runs: [String]? = nil,
        numExamples: Int? = nil,
        capabilities: ClientCapabilities? = nil,
        stateGeneration: Int? = nil
    ) {
        self.runs = runs
        self.numExamples = numExamples
        self.capabilities = capabilities
        self.stateGeneration = stateGeneration
    }

    package static func read(_ document: JSONValue) throws(DocumentError) -> Self {
        try FieldReader.read(document) { fields in
            Self(
                runs: fields.stringList("runs"),
                numExamples: fields.optionalInteger("num_examples", in: 0...UpdateMetadata.countLimit),
                capabilities: ClientCapabilities.read("capabilities", in: fields),
                stateGeneration: fields.optionalInteger("state_generation", in: 0...ClientGeneration.limit)
            )
        }
    }
}

/// The answer to a check-in: an assignment (201), or the reason why there is none and when to ask again (200).
package struct CheckInResponse: Codable, Equatable, Sendable {
    package struct RetryWindow: Codable, Equatable, Sendable {
        package var minS: Double
        package var maxS: Double

        package init(minS: Double, maxS: Double) {
            self.minS = minS
            self.maxS = maxS
        }
    }
    private var boxedAssignment: Boxed<AssignmentBody>?
    package var reason: String?
    package var retryWindow: RetryWindow?

    package var assignment: AssignmentBody? {
        get { boxedAssignment?.value }
        set { boxedAssignment = newValue.map(Boxed.init) }
    }
    /// The same without a copy of the whole assignment.
    package var hasAssignment: Bool { boxedAssignment != nil }

    private enum CodingKeys: String, CodingKey {
        case boxedAssignment = "assignment"
        case reason, retryWindow
    }

    package init(assignment: AssignmentBody?, reason: String? = nil, retryWindow: RetryWindow? = nil) {
        boxedAssignment = assignment.map(Boxed.init)
        self.reason = reason
        self.retryWindow = retryWindow
    }

    /// The document of an answer without an assignment, the same bytes as `WireCoding` gives it: most answers are one, and an
    /// encoder costs more than all the rest of them.
    package var awayDocument: [UInt8] {
        var fields: [(String, String)] = []
        if let reason { fields.append(("reason", JSONText.quoted(reason))) }
        if let retryWindow {
            let window = [
                ("max_s", JSONValue(retryWindow.maxS).text), ("min_s", JSONValue(retryWindow.minS).text),
            ]
            fields.append(("retry_window", JSONText.object(window)))
        }
        return Array(JSONText.object(fields).utf8)
    }
}

/// One client's work in one round, as the client is told.
package struct AssignmentBody: Codable, Equatable, Sendable {
    package struct Model: Codable, Equatable, Sendable {
        package var version: Int
        package var url: String
        package var sha256: String
        package var bytes: Int
        /// How the file at `url` is written, where not in F32; `sha256` and `bytes` are those of the F32 file even so.
        package var encoding: ModelEncoding?
        /// SHA-256 of the file at `url`, where it is not in F32.
        package var encodedSha256: String?
        /// Size of the file at `url`, where it is not in F32.
        package var encodedBytes: Int?

        package init(version: Int, url: String, sha256: String, bytes: Int, encoding: ModelEncoding? = nil) {
            self.encoding = encoding
            self.version = version
            self.url = url
            self.sha256 = sha256
            self.bytes = bytes
        }
    }
    /// What of an evaluation is published, noised, with differential privacy.
    package struct Release: Codable, Equatable, Sendable {
        /// Rates: sums that none of them needs are not to be sent.
        package var metrics: [String]
        package var lossBound: Double

        package init(metrics: [String], lossBound: Double) {
            self.metrics = metrics
            self.lossBound = lossBound
        }
    }
    /// The helper's session whose sum the update is for.
    package struct Protection: Codable, Equatable, Sendable {
        package var kind: ProtectionKind
        package var bits: Int
        package var norm: Int?
        /// D, base64.
        package var document: String
        /// The helper's signature of D, base64.
        package var grant: String

        package init(kind: ProtectionKind, bits: Int, norm: Int? = nil, document: String, grant: String) {
            (self.kind, self.bits, self.norm, self.document, self.grant) = (kind, bits, norm, document, grant)
        }
    }
    package var id: String
    package var run: String
    package var round: Int
    package var attempt: Int
    package var state: AssignmentState
    package var model: Model
    package var architecture: RunSpecification.Model
    /// The other model that this one needs, such as the frozen base of adapters.
    package var base: Model?
    package var training: RunSpecification.Training
    package var privacy: RunSpecification.Privacy
    package var maxParticipations: Int
    package var tensors: ParameterLayout
    /// The tensors of the update, where they are not the model's: SCAFFOLD's control variates beside them.
    package var updateTensors: ParameterLayout?
    /// The server's control variate (SCAFFOLD); absent in the first round: zero.
    package var control: Model?
    package var updateUrl: String
    /// Seed for the client's shuffling, as a decimal string.
    package var seed: String
    /// RFC 3339, UTC.
    package var deadline: String
    package var deadlineInS: Double
    package var kind: WorkKind
    /// Seconds until another client gets the work unless a heartbeat comes; absent before the first heartbeat of a run
    /// that sets none.
    package var leaseS: Double?
    /// Updates that a round needs to count, at least.
    package var cohortMinimum: Int?
    /// Examples of one client that count, at most, where updates weigh by examples; then their number is sent.
    package var exampleCap: Int?
    /// What the number counts: `examples` (absent: those), or `tokens`.
    package var weightUnit: WeightUnit?
    /// Largest absolute value of one coordinate that the server takes.
    package var valueBound: Double?
    /// Of an accepted update: whether its attempt became a model version; absent while that is open.
    package var roundCommitted: Bool?
    /// Of kind `evaluate` with central privacy.
    package var release: Release?
    /// Where the population's privacy ledger stands; absent where it has none.
    package var ledgerHead: PopulationLedgerHead?
    /// What the device writes down before it begins, and says at its next check-in; absent where it said none.
    package var stateGeneration: Int?
    /// Bytes that the update has whatever is in it, in a private run and with protection.
    package var updateBytes: Int?
    /// Present where updates are masked.
    package var protection: Protection?

    package init(
        id: String,
        run: String,
        round: Int,
        attempt: Int,
        state: AssignmentState,
        model: Model,
        architecture: RunSpecification.Model,
        training: RunSpecification.Training,
        privacy: RunSpecification.Privacy,
        maxParticipations: Int,
        tensors: ParameterLayout,
        updateTensors: ParameterLayout? = nil,
        control: Model? = nil,
        updateUrl: String,
        seed: String,
        deadline: String,
        deadlineInS: Double,
        kind: WorkKind = .train,
        leaseS: Double? = nil
    ) {
        self.id = id
        self.run = run
        self.round = round
        self.attempt = attempt
        self.state = state
        self.model = model
        self.architecture = architecture
        self.training = training
        self.privacy = privacy
        self.maxParticipations = maxParticipations
        self.tensors = tensors
        self.updateTensors = updateTensors
        self.control = control
        self.updateUrl = updateUrl
        self.seed = seed
        self.deadline = deadline
        self.deadlineInS = deadlineInS
        self.kind = kind
        self.leaseS = leaseS
    }
}

/// The answer to an accepted update.
package struct UpdateReceipt: Codable, Equatable, Sendable {
    package var assignment: String
    package var state: AssignmentState
    /// Of the update that was accepted; where ``compared`` is false the one that the request announced.
    package var sha256: String
    package var bytes: Int
    /// Where the population's privacy ledger stands; absent where it has none.
    package var ledgerHead: PopulationLedgerHead?
    /// Whether the request's bytes were compared with the accepted ones.
    ///
    /// False once a private round has ended: nothing about its updates is kept then. The answer is final all the same.
    /// Absent from older servers.
    package var compared: Bool?

    package init(assignment: String, state: AssignmentState, sha256: String, bytes: Int, compared: Bool? = true) {
        self.assignment = assignment
        self.state = state
        self.sha256 = sha256
        self.bytes = bytes
        self.compared = compared
    }
}

/// `POST /v1/assignments/{id}/failure`.
package struct FailureReport: Codable, Equatable, Sendable {
    package var code: FailureCode
    package var detail: String?

    package init(code: FailureCode, detail: String? = nil) {
        self.code = code
        self.detail = detail
    }

    package static func read(_ document: JSONValue) throws(DocumentError) -> Self {
        try FieldReader.read(document) { fields in
            if !fields.has("code") {
                let codes = FailureCode.allCases.map(\.rawValue).joined(separator: ", ")
                fields.report("code", "is required: \(codes)")
            }
            return Self(
                code: fields.choice("code", default: .cancelled),
                detail: fields.optionalString("detail", lengthLimit: 1000)
            )
        }
    }
}

/// RFC 9457 problem document.
package struct ProblemDocument: Codable, Equatable, Sendable {
    package var type: String
    package var title: String
    package var status: Int
    package var detail: String
    package var code: String
    package var requestId: String?
    package var errors: [DocumentError.Problem]?

    package init(
        title: String,
        status: Int,
        detail: String,
        code: String,
        requestId: String? = nil,
        errors: [DocumentError.Problem]? = nil
    ) {
        type = "about:blank"
        self.title = title
        self.status = status
        self.detail = detail
        self.code = code
        self.requestId = requestId
        self.errors = errors
    }
}
