import Crypto
import Foundation
import Tensors
import WireFormat

#if canImport(Glibc)
import Glibc
#endif

/// What a result in the spool was made of, and every file that belongs to it; written last, so that a result without it is none.
///
/// A result is believed only if all its files are what was written, and if it was made of the base and the updates that the attempt
/// has in the database. A backup may hold the result of another moment than its database, and part of a result is none.
struct ResultManifest: Codable, Equatable, Sendable {
    /// A file of the result.
    struct File: Codable, Equatable, Sendable {
        /// What follows the result's path in the file's name.
        var suffix: String
        var sha256: String
        var byteCount: Int
    }

    /// What stands in a manifest of this form.
    static let format = 1
    /// What follows the result's path in the manifest's name.
    static let suffix = ".manifest"

    var version = Self.format
    /// The SHA-256 of the model that the sum was added to.
    var base: String
    /// See ``digest(of:)``.
    var inputs: String
    var files: [File]
    /// What the arithmetic found of single updates; absent with privacy.
    var scores: [UpdateScoreRecord]?
    var cuts: CohortCuts?

    /// One hash over the ids of accepted assignments, with the hashes of their updates where the database has them.
    ///
    /// With privacy it has none, so that nothing of an update outlives it here either.
    static func digest(of accepted: some Sequence<AssignmentRecord>) -> String {
        var hash = SHA256()
        for line in accepted.map({ "\($0.id) \($0.updateSha256 ?? "")\n" }).sorted() {
            hash.update(data: Data(line.utf8))
        }
        return hash.finalize().hexadecimal
    }

    /// Reads the manifest of a result.
    ///
    /// - Parameter path: The result's path.
    /// - Returns: `nil` where there is none, or none that can be read as one.
    /// - Throws: ``CoordinationError`` with code `storage_failed` where the disk does not give it.
    static func read(result path: String) throws(CoordinationError) -> Self? {
        guard let data = try DurableFiles.readIfPresent(path + suffix, role: .result),
            let manifest = try? WireCoding.decode(Self.self, from: data), manifest.version == format,
            manifest.files.contains(where: { $0.suffix.isEmpty }),
            // Names of files are made of these.
            manifest.files.allSatisfy({ AggregationJob.resultSuffixes.contains($0.suffix) && $0.suffix != suffix })
        else { return nil }
        return manifest
    }

    /// Writes the manifest, after everything that it names is on the disk.
    ///
    /// - Parameter path: The result's path.
    /// - Throws: ``CoordinationError`` with code `storage_failed`; there is no result then.
    func write(result path: String) throws {
        do {
            try DurableFiles.write(WireCoding.encode(self), to: path + Self.suffix, role: .result)
        } catch {
            // It may have its name already, which a power cut may take away again.
            unlink(path + Self.suffix)
            throw error
        }
    }

    /// Where the files are, if all of them are what was written.
    ///
    /// - Parameters:
    ///   - path: The result's path.
    ///   - others: Where a file may lie instead, by its suffix: a state of noise that a publication has moved.
    /// - Returns: Paths by suffix; `nil` if one is missing or is not what was written.
    /// - Throws: ``CoordinationError`` with code `storage_failed` where the disk does not give one.
    func wholeFiles(
        result path: String,
        orElse others: [String: String] = [:]
    ) throws(CoordinationError) -> [String: String]? {
        var found: [String: String] = [:]
        for file in files {
            for place in [path + file.suffix, others[file.suffix]].compactMap({ $0 }) where found[file.suffix] == nil {
                if try isWhole(file, at: place) { found[file.suffix] = place }
            }
            guard found[file.suffix] != nil else { return nil }
        }
        return found
    }

    private func isWhole(_ file: File, at path: String) throws(CoordinationError) -> Bool {
        guard try DurableFiles.byteCount(path, role: .result) == file.byteCount else { return false }
        return try SpooledFile.measure(path).sha256 == file.sha256
    }
}
