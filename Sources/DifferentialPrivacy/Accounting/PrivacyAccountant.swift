/// Adds up what releases cost together.
///
/// All accountants here give upper bounds. The exact Gaussian accountant and ``PrivacyFilter`` may enforce a budget even if later
/// events are chosen after earlier outputs were seen, because both are privacy filters (Smith and Thakurta 2022, arXiv:2210.17520;
/// Feldman and Zrnic 2021, arXiv:2008.11193). Loss distributions and the best of many Rényi orders may enforce one only if all
/// events were fixed beforehand.
public protocol PrivacyAccountant: Sendable {
    /// The accountant's name in documents: `gaussian`, `rdp`, `pld`, `filter`, `zcdp` or `basic`.
    static var name: String { get }
    /// Whether the bound holds if events are chosen after earlier outputs were seen.
    static var isFilter: Bool { get }

    /// An accountant without events.
    init()

    /// Adds `count` releases of an event.
    ///
    /// - Throws: ``PrivacyError/unsupportedEvent(event:accountant:)`` and
    ///   ``PrivacyError/invalidParameter(name:value:allowed:)``; then nothing was added.
    mutating func add(_ event: PrivacyEvent, count: Int) throws(PrivacyError)

    /// The smallest ε that is proven at δ; 0 without events, infinity if none is proven.
    ///
    /// - Throws: ``PrivacyError/invalidParameter(name:value:allowed:)`` unless δ is between 0 and 1.
    func epsilon(delta: Double) throws(PrivacyError) -> Double

    /// The smallest δ that is proven at ε.
    ///
    /// - Throws: ``PrivacyError``.
    func delta(epsilon: Double) throws(PrivacyError) -> Double
}

extension PrivacyAccountant {
    /// Adds one release.
    public mutating func add(_ event: PrivacyEvent) throws(PrivacyError) { try add(event, count: 1) }

    /// Whether `count` more releases stay within (ε, δ); nothing is added.
    public func canAfford(
        _ event: PrivacyEvent,
        count: Int = 1,
        epsilon: Double,
        delta: Double
    ) throws(PrivacyError) -> Bool {
        var trial = self
        try trial.add(event, count: count)
        return try trial.epsilon(delta: delta) <= epsilon
    }

    func unsupported(_ event: PrivacyEvent) -> PrivacyError {
        .unsupportedEvent(event: event.kind, accountant: Self.name)
    }
}

/// The accountants by name.
public enum AccountantKind: String, CaseIterable, Codable, Sendable {
    /// Exact composition of Gaussian mechanisms.
    case gaussian
    /// Rényi divergences at the best of many orders.
    case rdp
    /// Numerical composition of privacy loss distributions.
    case pld
    /// Filters with shares of δ, for releases that are chosen after earlier ones were seen.
    case filter
    /// Zero-concentrated differential privacy.
    case zcdp
    /// Sums of ε and δ.
    case basic

    /// A fresh accountant.
    public func make() -> any PrivacyAccountant {
        switch self {
        case .gaussian: GaussianCompositionAccountant()
        case .rdp: RenyiAccountant()
        case .pld: LossDistributionAccountant()
        case .filter: PrivacyFilter()
        case .zcdp: ZeroConcentratedAccountant()
        case .basic: BasicAccountant()
        }
    }

    /// An accountant with these events.
    ///
    /// - Throws: ``PrivacyError``.
    public func accountant(
        of events: [(event: PrivacyEvent, count: Int)]
    ) throws(PrivacyError) -> any PrivacyAccountant {
        switch self {
        case .gaussian: try Self.filled(GaussianCompositionAccountant(), events)
        case .rdp: try Self.filled(RenyiAccountant(), events)
        case .pld: try Self.filled(LossDistributionAccountant(), events)
        case .filter: try Self.filled(PrivacyFilter(), events)
        case .zcdp: try Self.filled(ZeroConcentratedAccountant(), events)
        case .basic: try Self.filled(BasicAccountant(), events)
        }
    }

    private static func filled<Accountant: PrivacyAccountant>(
        _ empty: Accountant,
        _ events: [(event: PrivacyEvent, count: Int)]
    ) throws(PrivacyError) -> any PrivacyAccountant {
        var accountant = empty
        for (event, count) in events { try accountant.add(event, count: count) }
        return accountant
    }
}
