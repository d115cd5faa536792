package import WireFormat

/// Why the coordinator refused; nothing was changed by the refused call.
package struct CoordinationError: Error, Equatable, Sendable {
    /// What sort of refusal it is; the HTTP layer gives each its status.
    package enum Kind: Sendable {
        case unauthorized, forbidden, notFound, conflict, gone, tooLarge, unprocessable, unavailable
    }

    package var kind: Kind
    /// Stable and machine-readable, such as `budget_exhausted`.
    package var code: String
    /// What was wrong, where, and what to do.
    package var message: String
    /// What the operating system refused, where that is the reason.
    package var storage: StorageFailure?

    /// Whether its code is this one.
    package func `is`(_ code: ProblemCode) -> Bool { self.code == code.rawValue }

    package init(_ kind: Kind, _ code: String, _ message: String) {
        self.kind = kind
        self.code = code
        self.message = message
    }
}

/// For the server's own log and for commands on its machine, which may see paths.
extension CoordinationError: CustomStringConvertible {
    package var description: String {
        guard let storage, !storage.path.isEmpty else { return "\(message) [\(code)]" }
        return "\(message) [\(code), errno \(storage.code), \(storage.path)]"
    }
}
