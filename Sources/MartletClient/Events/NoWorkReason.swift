/// Why a check-in brought no work.
public enum NoWorkReason: Hashable, Sendable, CustomStringConvertible {
    /// No run of the population is open.
    case noRun
    /// No run has a place for this client now.
    case noOpenSlot
    /// The client has taken part as often as the open runs allow; the next run may want it.
    case participationLimit
    /// The client took part too recently for the open runs.
    case tooSoon
    /// The open runs ask for something that this client does not have.
    case notEligible
    /// The open runs ask for a newer client.
    case clientTooOld
    /// A cohort is being chosen.
    case inSelection
    /// The next attempt of a round has not begun yet.
    case betweenAttempts
    /// The server's operator lets this client wait.
    case quarantined
    /// A proxy in front of the server ended the wait before there was work.
    case gatewayTimeout
    /// What a newer server says.
    case unknown(String)

    private static let words: [(Self, String)] = [
        (.noRun, "no_run"), (.noOpenSlot, "no_open_slot"), (.participationLimit, "participation_limit"),
        (.tooSoon, "too_soon"), (.notEligible, "not_eligible"), (.clientTooOld, "client_too_old"),
        (.inSelection, "in_selection"), (.betweenAttempts, "between_attempts"), (.quarantined, "quarantined"),
        (.gatewayTimeout, "gateway_timeout"),
    ]

    /// Reads the word of the protocol.
    public init(code: String) { self = Self.words.first { $0.1 == code }?.0 ?? .unknown(code) }

    /// The word of the protocol.
    public var code: String {
        if case .unknown(let code) = self { return code }
        return Self.words.first { $0.0 == self }?.1 ?? ""
    }

    /// The word of the protocol.
    public var description: String { code }
}
