package import StrictJSON
package import WireFormat

/// What the owner of a device allows; a round whose terms go beyond it is refused with `privacy_refused`.
public struct ClientPrivacyPolicy: Codable, Equatable, Sendable {
    /// All modes that there are.
    public static let modes = ["none", "local", "central"]
    /// Modes that are taken: `none`, `local`, `central`.
    public var acceptedModes: [String]
    /// Rounds of one run in which the device takes part, at most.
    public var maxParticipations: Int
    /// The largest ε that the device's participations may add up to at `delta`: its local reports, and its central rounds
    /// as the server states them, each for themselves.
    public var maxEpsilon: Double
    /// δ of `maxEpsilon`.
    public var delta: Double
    /// Rounds that publish what fewer clients sent are refused.
    public var minimumCohort: Int

    /// Creates a policy; the default takes every mode.
    public init(
        acceptedModes: [String] = Self.modes,
        maxParticipations: Int = 1_000_000,
        maxEpsilon: Double = .greatestFiniteMagnitude,
        delta: Double = 1e-5,
        minimumCohort: Int = 0
    ) {
        self.acceptedModes = acceptedModes
        self.maxParticipations = maxParticipations
        self.maxEpsilon = maxEpsilon
        self.delta = delta
        self.minimumCohort = minimumCohort
    }

    /// Reads a policy file: `accepted_modes`, `max_participations`, `max_epsilon`, `delta`, `minimum_cohort`, all optional.
    ///
    /// - Throws: ``DocumentError`` naming every bad field.
    package static func read(_ document: JSONValue) throws(DocumentError) -> Self {
        try FieldReader.read(document) { fields in
            var policy = Self()
            if let modes = fields.stringList("accepted_modes") {
                policy.acceptedModes = modes
                for mode in modes where !Self.modes.contains(mode) {
                    fields.report("accepted_modes", "'\(mode)' is no mode: \(Self.modes.joined(separator: ", "))")
                }
            }
            policy.maxParticipations = fields.integer("max_participations", default: 1_000_000, in: 0...1_000_000)
            policy.maxEpsilon = fields.number("max_epsilon", default: .greatestFiniteMagnitude, in: 0...1e308 * 1.7)
            policy.delta = fields.number("delta", default: 1e-5, in: 1e-15...0.1)
            policy.minimumCohort = fields.integer("minimum_cohort", default: 0, in: 0...1_000_000_000)
            return policy
        }
    }
}
