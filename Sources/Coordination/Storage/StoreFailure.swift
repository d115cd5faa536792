/// Why a store did not take a transaction, or cannot be used; nothing of the transaction is stored.
package struct StoreFailure: Error, Equatable, Sendable {
    package enum Cause: String, Sendable {
        /// Another process holds the database.
        case locked
        /// There is no space, or the file may not grow.
        case full
        /// The file is not what was written, or no database.
        case damaged
        case other
    }

    package var cause: Cause
    /// The store's own words.
    package var detail: String

    package init(_ cause: Cause, detail: String) {
        self.cause = cause
        self.detail = detail
    }

    /// What is the matter and what to do, for a caller or an operator.
    package var explanation: String {
        switch cause {
        case .locked:
            "another process holds the database; end it (a shell of sqlite3, a copy tool) and try again: what was "
                + "acknowledged is stored"
        case .full: "the disk is full; free some space and try again: what was acknowledged is stored"
        case .damaged: "the database file is damaged (\(detail)); stop the server and run martlet doctor"
        case .other: "the database could not be written; try again later"
        }
    }
}
