import Foundation
import WireFormat

/// What `martlet restore` leaves in the directory that it made of a backup, until the first start has done what follows from it.
struct RestoredNote: Sendable {
    /// How many rows the ledger of the backup had; 0 if the note does not say.
    var rowCount = 0
    /// Whether its contents are not what `martlet restore` writes, so that they say nothing.
    var isDamaged = false

    /// Reads the note.
    ///
    /// - Returns: `nil` where there is none, so that this directory was made of no backup.
    /// - Throws: ``CoordinationError`` with code `storage_failed` where the disk does not say.
    static func read(path: String) throws(CoordinationError) -> Self? {
        struct Contents: Decodable { var ledgerRows: Int? }
        guard let data = try DurableFiles.readIfPresent(path, role: .restoredNote) else { return nil }
        guard let contents = try? WireCoding.decode(Contents.self, from: data) else { return Self(isDamaged: true) }
        return Self(rowCount: contents.ledgerRows ?? 0)
    }
}
