package import StrictJSON

/// `POST /v1/assignments/{id}/heartbeat`: the client is at work.
package struct HeartbeatRequest: Codable, Equatable, Sendable {
    package static let phases = ["downloading", "training", "uploading"]
    package var phase: String
    /// Share of the phase that is done, from 0 to 1.
    package var progress: Double?

    package init(phase: String, progress: Double? = nil) {
        self.phase = phase
        self.progress = progress
    }

    package static func read(_ document: JSONValue) throws(DocumentError) -> Self {
        try FieldReader.read(document) { fields in
            Self(
                phase: fields.choice("phase", of: phases, default: "training"),
                progress: fields.optionalNumber("progress", in: 0...1)
            )
        }
    }
}

/// The answer to a heartbeat.
package struct HeartbeatResponse: Codable, Equatable, Sendable {
    package var state: String
    /// Seconds until the assignment is given to another client, unless a heartbeat comes before.
    package var leaseS: Double
    /// Seconds until the round stops waiting, whatever the heartbeats.
    package var deadlineInS: Double

    package init(state: String, leaseS: Double, deadlineInS: Double) {
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

    package static func read(_ document: JSONValue) throws(DocumentError) -> Self {
        try FieldReader.read(document) { fields in
            let metrics = fields.object("metrics") { sums in
                var values: [String: Double] = [:]
                for name in sums.names.sorted() {
                    let value = sums.number(name, in: -1e300...1e300)
                    if !MetricSums.admits(name, value) { sums.report(name, MetricSums.rule) }
                    values[name] = value
                }
                return values
            }
            if metrics.isEmpty { fields.report("metrics", "must name at least one sum, such as nll") }
            if metrics.count > MetricSums.nameLimit {
                fields.report("metrics", "may hold at most \(MetricSums.nameLimit) sums")
            }
            return Self(numExamples: fields.integer("num_examples", in: 1...1_000_000_000), metrics: metrics)
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
            let labels = fields.strings("labels")
            return Self(
                name: fields.optionalString("name"),
                labels: hasLabels ? labels : nil,
                capabilities: ClientCapabilities.read("capabilities", in: fields)
            )
        }
    }
}
