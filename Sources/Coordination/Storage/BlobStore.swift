package import Foundation
import WireFormat

#if canImport(Glibc)
import Glibc
#endif

/// Where models lie for good, named by the SHA-256 of their bytes, and updates until their round is over.
///
/// A blob never changes. ``DirectoryBlobStore`` keeps all of it in one directory. A form that keeps blobs elsewhere gives the paths of
/// local copies, and has the same local directory for what is in progress.
package protocol BlobStore: Sendable {
    /// Which files may be believed.
    var verifier: BlobVerifier { get }

    /// The local directory; what is in progress lies in its `spool` and `noise`.
    var directory: String { get }

    /// Where a blob lies.
    func path(sha256: String) -> String

    /// Writes bytes durably and gives their SHA-256.
    func put(_ data: Data) throws -> String

    /// Moves a finished spool file, already synced, among the blobs.
    func adopt(spoolFile: String, sha256: String) throws

    /// Gives a synced spool file its second name among the blobs; the spool's name goes when the caller has committed.
    ///
    /// Nothing is read, however large it is. A blob that is there already, an equal model's or a damaged one, gives its name to this
    /// file, whose bytes were hashed while they were written.
    func link(spoolFile: String, sha256: String) throws

    /// The names in the spool, without those that were discarded.
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed` where the disk does not give all of them.
    func listSpool() throws(CoordinationError) -> [String]

    /// Removes files that nothing refers to any more, soon: the caller does not wait for it. What a stop leaves over a start removes.
    func discard(_ paths: [String])

    /// Removes files that nothing refers to any more, before this returns.
    func removeAtOnce(_ paths: [String])

    /// Notes that files get these names now, so that no removal that failed is tried again with them.
    func want(_ paths: [String])

    /// Tries again, soon, to remove what the disk has not let go.
    ///
    /// - Parameter note: Is told what it still does not let go, once for each sort of file.
    func retryRemovals(noting note: @escaping @Sendable (StorageFailure) -> Void)
}

extension BlobStore {
    /// ``listSpool()`` for tests, which look at a spool that is there.
    package func spoolNames() -> [String] { (try? listSpool()) ?? [] }

    /// Where updates and results lie until their round is over.
    var spoolDirectory: String { directory + "/spool" }

    /// A file of the spool.
    package func spoolPath(_ name: String) -> String { spoolDirectory + "/" + name }

    /// What an attempt's arithmetic comes to; its companions have this name and ``AggregationJob/resultSuffixes``.
    func resultPath(run: String, round: Int, attempt: Int) -> String { spoolPath("\(run)-\(round)-\(attempt).result") }

    /// The file of an accepted update.
    package func updatePath(of assignment: String) -> String { spoolPath(assignment + ".update") }

    /// What is known about an accepted update of a private run.
    package func receiptPath(of assignment: String) -> String { spoolPath(assignment + SpooledReceipt.suffix) }

    /// Where the states of correlated noise lie.
    var noiseDirectory: String { directory + "/noise" }

    /// The state of a run's correlated noise after a version.
    package func noiseStatePath(run: String, version: Int) -> String { noiseDirectory + "/\(run)-\(version).state" }

    /// Why names in the data directory cannot be brought to the disk; `nil` where they can.
    package func directorySyncProblem() -> StorageFailure? {
        let place = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard place >= 0 else { return StorageFailure(.open, path: directory, role: .directory) }
        defer { close(place) }
        guard fsync(place) != 0 else { return nil }
        return StorageFailure(.sync, path: directory, role: .directory)
    }
}
