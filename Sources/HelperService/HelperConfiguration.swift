package import Foundation

#if canImport(Glibc)
import Glibc
#endif

/// Where a helper keeps what it has, and its limits.
package struct HelperConfiguration: Sendable {
    package var dataDirectory: String
    /// The ledger's second record.
    package var ledgerHeadPath: String
    /// Whether a second record may be made for a ledger that has rows.
    package var mayMakeLedgerHead = false
    /// Bytes of lists that one domain may have in memory at a time; one list always has room.
    package var listByteLimit = 64 << 20
    /// Bytes of sums that may be kept or in work in all.
    package var sumByteLimit = 64 << 30
    /// How many lists of a session may be refused after its seeds were opened.
    package var refusedListLimit = 32
    package var now: @Sendable () -> Date = { Date() }
    /// Seconds since the machine's start, of its sleep too; nobody sets them.
    package var uptime: @Sendable () -> Double = {
        var time = timespec()
        clock_gettime(CLOCK_BOOTTIME, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
    }
    /// How a transaction that is about to be stored fails; of tests alone.
    package var storeFault: @Sendable () -> StoreFault? = { nil }

    package init(dataDirectory: String) {
        self.dataDirectory = dataDirectory
        ledgerHeadPath = dataDirectory + "/ledger.head"
    }

    /// Bytes of sums that one domain may have kept or in work; one sum always has room.
    var domainSumByteLimit: Int { sumByteLimit / 4 }

    /// How far a clock may be set back before open sessions end: what is older than its creation cannot be told from what is new.
    static let clockToleranceSeconds = 3600.0

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
