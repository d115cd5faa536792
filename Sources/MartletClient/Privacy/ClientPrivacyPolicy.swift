package import StrictJSON

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
    /// The least noise of a helper's session, Σ*/K: its standard deviation over what one device can change.
    ///
    /// 0 permits sessions without noise. It says nothing about work without a helper.
    public var minimumNoise: Double
    /// The helper's domains that the device takes part in; `nil` for the first one that its server names.
    public var domains: [String]?
    /// Whether a device that has taken part may register as a new client, which the server grants everything once more.
    public var mayRegisterAgain: Bool

    /// Creates a policy; the default takes every mode.
    public init(
        acceptedModes: [String] = Self.modes,
        maxParticipations: Int = 1_000_000,
        maxEpsilon: Double = .greatestFiniteMagnitude,
        delta: Double = 1e-5,
        minimumCohort: Int = 0,
        mayRegisterAgain: Bool = true,
        minimumNoise: Double = 0,
        domains: [String]? = nil
    ) {
        self.acceptedModes = acceptedModes
        self.maxParticipations = maxParticipations
        self.maxEpsilon = maxEpsilon
        self.delta = delta
        self.minimumCohort = minimumCohort
        self.mayRegisterAgain = mayRegisterAgain
        self.minimumNoise = minimumNoise
        self.domains = domains
    }

    /// Reads what an earlier version wrote, too.
    public init(from decoder: any Swift.Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        self.init(
            acceptedModes: try values.decode([String].self, forKey: .acceptedModes),
            maxParticipations: try values.decode(Int.self, forKey: .maxParticipations),
            maxEpsilon: try values.decode(Double.self, forKey: .maxEpsilon),
            delta: try values.decode(Double.self, forKey: .delta),
            minimumCohort: try values.decode(Int.self, forKey: .minimumCohort),
            mayRegisterAgain: try values.decodeIfPresent(Bool.self, forKey: .mayRegisterAgain) ?? true,
            minimumNoise: try values.decodeIfPresent(Double.self, forKey: .minimumNoise) ?? 0,
            domains: try values.decodeIfPresent([String].self, forKey: .domains)
        )
    }

    /// Reads a policy file: `accepted_modes`, `max_participations`, `max_epsilon`, `delta`, `minimum_cohort`, `may_register_again`,
    /// `minimum_noise`, `domains`, all optional.
    ///
    /// - Throws: `DocumentError` naming every bad field.
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
            policy.mayRegisterAgain = fields.boolean("may_register_again", default: true)
            policy.minimumNoise = fields.number("minimum_noise", default: 0, in: 0...10_000)
            policy.domains = fields.stringList("domains")
            if policy.domains?.isEmpty == true { fields.report("domains", "names at least one domain") }
            return policy
        }
    }
}
