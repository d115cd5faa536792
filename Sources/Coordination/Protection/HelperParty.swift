package import Crypto
package import WireFormat

/// The second party of protected runs, as the coordinator asks it; nothing of it runs in the coordinator's queue.
///
/// Every call may be repeated: a helper gives the same session for the same request, and the same sum for the same list.
package protocol HelperParty: Sendable {
    /// Asks for a session.
    ///
    /// - Throws: ``HelperFailure``.
    func createSession(_ request: HelperSessionRequest) async throws -> HelperSessionView

    /// Gives a session up before its sum.
    ///
    /// - Throws: ``HelperFailure``.
    func cancelSession(_ session: String) async throws

    /// Asks for the sum of a list.
    ///
    /// - Parameters:
    ///   - session: The session.
    ///   - list: `pseudonym ‖ sealed` of each update, sorted.
    ///   - byteCount: The bytes that M has; another number is a failure.
    ///   - path: The file that M goes to; one that is there is replaced.
    /// - Throws: ``HelperFailure``; ``CoordinationError`` with code `storage_failed`.
    func makeSum(_ session: String, list: [UInt8], byteCount: Int, to path: String) async throws

    /// Says that a sum is needed no more.
    ///
    /// - Throws: ``HelperFailure``.
    func deleteSum(_ session: String) async throws
}

/// A server's helper: how it is asked, and the key that its grants are checked by.
package struct HelperSetting: Sendable {
    package var party: any HelperParty
    package var key: Curve25519.Signing.PublicKey

    package init(party: any HelperParty, key: Curve25519.Signing.PublicKey) {
        (self.party, self.key) = (party, key)
    }
}

/// Why a helper did not do what it was asked for.
package struct HelperFailure: Error, Equatable, Sendable {
    /// The helper's code, or `network`, `foreign_answer`, `server_invalid` for an answer that is none.
    package var code: String
    package var message: String
    /// Entries of the list that were refused, from 0.
    package var entries: [Int]
    /// Whether the same request may succeed later.
    package var isTemporary: Bool

    package init(code: String, message: String, entries: [Int] = [], isTemporary: Bool) {
        (self.code, self.message, self.entries, self.isTemporary) = (code, message, entries, isTemporary)
    }

    /// Whether the helper said this.
    func `is`(_ code: HelperCode) -> Bool { self.code == code.rawValue }

    /// Whether entries of the list were refused that may be left out.
    var namesSeeds: Bool { !entries.isEmpty && ["seeds_unopened", "participation_cap"].contains(code) }

    /// For operators.
    var sentence: String { "the helper: \(message) (\(code))" }
}
