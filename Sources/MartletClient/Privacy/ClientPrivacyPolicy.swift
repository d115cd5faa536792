import DifferentialPrivacy

/// What the owner of a device allows; a round whose terms go beyond it is refused with `privacy_refused`.
public struct ClientPrivacyPolicy: Codable, Equatable, Sendable {
    /// Modes that are taken: `none`, `local`, `central`.
    public var acceptedModes: [String]
    /// Rounds of one run in which the device takes part, at most.
    public var maxParticipations: Int
    /// For mode `local`: the largest ε that the device's reports may add up to, at `delta`.
    public var maxEpsilon: Double
    /// δ of `maxEpsilon`.
    public var delta: Double

    /// Creates a policy; the default takes every mode.
    public init(
        acceptedModes: [String] = ["none", "local", "central"],
        maxParticipations: Int = 1_000_000,
        maxEpsilon: Double = .greatestFiniteMagnitude,
        delta: Double = 1e-5
    ) {
        self.acceptedModes = acceptedModes
        self.maxParticipations = maxParticipations
        self.maxEpsilon = maxEpsilon
        self.delta = delta
    }
}

/// The device's own record of what its reports have cost, kept whatever the server keeps.
struct ClientLedger: Codable, Equatable, Sendable {
    struct Event: Codable, Equatable, Sendable {
        var run: String
        var round: Int
        var mode: String
        var noiseMultiplier: Double
    }

    var events: [Event] = []

    /// Why the policy does not allow one more event, or `nil` when it does.
    func refusal(of event: Event, policy: ClientPrivacyPolicy) -> String? {
        guard policy.acceptedModes.contains(event.mode) else {
            return "mode \(event.mode) is not accepted on this device"
        }
        let participations = events.filter { $0.run == event.run }.count
        guard participations < policy.maxParticipations else {
            return "this device has taken part \(participations) times already"
        }
        guard event.mode == "local" else { return nil }
        let inverseSquare = (events + [event]).filter { $0.mode == "local" }
            .reduce(0.0) { $0 + 1 / ($1.noiseMultiplier * $1.noiseMultiplier) }
        let total = GaussianAccountant.epsilon(delta: policy.delta, noiseMultiplier: (1 / inverseSquare).squareRoot())
        return total <= policy.maxEpsilon ? nil : "epsilon would reach \(total) of \(policy.maxEpsilon)"
    }
}
