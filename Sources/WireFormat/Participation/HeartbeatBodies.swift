package import Foundation
package import StrictJSON

/// `POST /v1/assignments/{id}/heartbeat`: the client is at work.
package struct HeartbeatRequest: Codable, Equatable, Sendable {
    /// Absent in private runs, like the progress: when a client is how far depends on its data.
    package var phase: WorkPhase?
    /// Share of the phase that is done, from 0 to 1.
    package var progress: Double?

    package init(phase: WorkPhase?, progress: Double? = nil) {
        self.phase = phase
        self.progress = progress
    }

    package static func read(_ document: JSONValue) throws(DocumentError) -> Self {
        try FieldReader.read(document) { fields in
            Self(
                phase: fields.choice("phase", default: .training),
                progress: fields.optionalNumber("progress", in: 0...1)
            )
        }
    }
}

/// The answer to a heartbeat.
package struct HeartbeatResponse: Codable, Equatable, Sendable {
    package var state: AssignmentState
    /// Seconds until the assignment is given to another client, unless a heartbeat comes before.
    package var leaseS: Double
    /// Seconds until the round stops waiting, whatever the heartbeats.
    package var deadlineInS: Double

    package init(state: AssignmentState, leaseS: Double, deadlineInS: Double) {
        self.state = state
        self.leaseS = leaseS
        self.deadlineInS = deadlineInS
    }
}

/// What a client measured of a model on its own held-out data: sums, so that they add over clients.
package struct EvaluationResult: Codable, Equatable, Sendable {
    package var numExamples: Int
    /// Sums over the examples, such as `nll`, `tokens`, `hit1`.
    package var metrics: [String: Double]

    package init(numExamples: Int, metrics: [String: Double]) {
        self.numExamples = numExamples
        self.metrics = metrics
    }

    /// Bytes of every client's measurements in a private run: the sums of eight rates of the longest names fit.
    package static let privateByteCount = 2048

    /// The document, padded by spaces to ``privateByteCount``.
    ///
    /// Its digits are as many as the client's data make them; its length is the same for everybody.
    ///
    /// - Throws: `EncodingError`.
    package func privateDocument() throws -> Data {
        var data = try WireCoding.encode(self)
        let rest = data.count % Self.privateByteCount
        if rest > 0 { data.append(contentsOf: [UInt8](repeating: 0x20, count: Self.privateByteCount - rest)) }
        return data
    }

    /// Reads sums.
    ///
    /// - Parameters:
    ///   - document: The body.
    ///   - isPrivate: Whether 0 examples are an answer: with privacy a device whose data gave nothing sends it, and adds
    ///     nothing to any sum. Then sums are cut to what can be added instead of refused: a refusal would be an answer by data.
    /// - Returns: The sums.
    /// - Throws: ``DocumentError``.
    package static func read(_ document: JSONValue, isPrivate: Bool = false) throws(DocumentError) -> Self {
        try FieldReader.read(document) { fields in
            let metrics = fields.object("metrics") { sums in
                var values: [String: Double] = [:]
                for name in sums.names(limit: MetricSums.nameLimit) {
                    let number = sums.number(name, in: isPrivate ? -.infinity ... .infinity : -1e300...1e300)
                    let value = isPrivate ? MetricSums.cut(number) : number
                    if !MetricSums.admits(name, value) { sums.report(name, MetricSums.rule) }
                    values[name] = value
                }
                return values
            }
            if metrics.isEmpty { fields.report("metrics", "must name at least one sum, such as nll") }
            let least = isPrivate ? 0 : 1
            return Self(
                numExamples: fields.integer("num_examples", in: least...UpdateMetadata.countLimit),
                metrics: metrics
            )
        }
    }
}

/// `PATCH /v1/clients/{id}`: what of a client may change; absent fields stay.
package struct ClientChange: Codable, Equatable, Sendable {
    package var name: String?
    package var labels: [String: String]?
    package var capabilities: ClientCapabilities?

    package init(name: String? = nil, labels: [String: String]? = nil, capabilities: ClientCapabilities? = nil) {
        self.name = name
        self.labels = labels
        self.capabilities = capabilities
    }

    package static func read(_ document: JSONValue) throws(DocumentError) -> Self {
        try FieldReader.read(document) { fields in
            let hasLabels = fields.has("labels")
            let labels = fields.labels("labels")
            return Self(
                name: fields.optionalName("name"),
                labels: hasLabels ? labels : nil,
                capabilities: ClientCapabilities.read("capabilities", in: fields)
            )
        }
    }
}
