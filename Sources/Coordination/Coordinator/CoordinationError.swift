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

    package init(_ kind: Kind, _ code: String, _ message: String) {
        self.kind = kind
        self.code = code
        self.message = message
    }
}
