package import Foundation

/// Where a helper keeps what it has, and its limits.
package struct HelperConfiguration: Sendable {
    package var dataDirectory: String
    /// The ledger's second record.
    package var ledgerHeadPath: String
    /// Whether a second record may be made for a ledger that has rows.
    package var mayMakeLedgerHead = false
    /// Bytes of lists that may be in memory at a time.
    package var listByteLimit = 256 << 20
    /// Bytes of sums that may be kept in all.
    package var sumByteLimit = 64 << 30
    package var now: @Sendable () -> Date = { Date() }

    package init(dataDirectory: String) {
        self.dataDirectory = dataDirectory
        ledgerHeadPath = dataDirectory + "/ledger.head"
    }

    var databasePath: String { dataDirectory + "/helper.sqlite" }
    /// The Ed25519 key that signs grants.
    var signingKeyPath: String { dataDirectory + "/helper.key" }
    /// The private keys of sessions; in no backup.
    var keyDirectory: String { dataDirectory + "/keys" }
    /// Sums that servers may fetch.
    var sumDirectory: String { dataDirectory + "/sums" }

    func keyPath(_ session: String) -> String { keyDirectory + "/" + session + ".key" }
    func sumPath(_ name: String) -> String { sumDirectory + "/" + name }
}
