import Crypto
import Foundation
import Logging
import WireFormat

#if canImport(Glibc)
import Glibc
#endif

/// Where correlated mechanisms keep their state: `noise/RUN-VERSION.state`, one a run, until the run has ended.
struct NoiseStateFiles: Sendable {
    let blobs: any BlobStore
    let keys: NoiseKeys
    let storage: StorageHealth
    let logger: Logger
    /// Whether exact sums of correlated noise wait to be deleted, because the disk refused it.
    private(set) var isLeft = false

    init(blobs: any BlobStore, keys: NoiseKeys, storage: StorageHealth, logger: Logger) {
        (self.blobs, self.keys, self.storage, self.logger) = (blobs, keys, storage, logger)
    }

    private func path(run: String, version: Int) -> String { blobs.noiseStatePath(run: run, version: version) }

    /// What a round of a correlated mechanism needs beside its updates.
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed` when the key cannot be read or made, `noise_key_missing` if the
    ///   last state is there and its key is not.
    func release(run: String, version: Int, resultPath: String) throws -> CorrelatedRelease {
        let previous = version > 1 ? path(run: run, version: version - 1) : nil
        var previousKey: SymmetricKey?
        var key: SymmetricKey?
        // That a state is lost is what the arithmetic comes to, and ends the run.
        if let previous, try DurableFiles.exists(previous, role: .noiseState) {
            let isShared = try NoiseState.hasSharedKey(path: previous, run: run, version: version - 1)
            previousKey = try keys.known(run: run, isShared: isShared)
            if !isShared { key = previousKey }
        }
        return CorrelatedRelease(
            key: try key ?? keys.make(run: run),
            run: run,
            version: version,
            previousPath: previous,
            previousKey: previousKey,
            nextPath: AggregationJob.noiseResultPath(resultPath),
            keptPath: path(run: run, version: version)
        )
    }

    /// Gives a result's state its place before the version is published; one of an attempt that was not published goes.
    func keep(_ result: String, run: String, version: Int) throws {
        let target = path(run: run, version: version)
        // A publication that is tried again has moved it before.
        if try !DurableFiles.exists(result, role: .noiseState), try DurableFiles.exists(target, role: .noiseState) {
            return try DurableFiles.remove([], in: blobs.noiseDirectory)
        }
        do {
            try DurableFiles.rename(result, to: target, role: .noiseState)
        } catch {
            // So that it is moved again: a sync alone may report success though the first one lost the name.
            if rename(target, result) != 0 { DurableFiles.distrust(blobs.noiseDirectory) }
            throw error
        }
    }

    /// Why a run with correlated noise cannot open a round, or `nil` when it can.
    func missing(of run: RunState, round: Int) -> String? {
        guard run.specification.privacy.isBanded, round > 1,
            // A disk that does not answer has not lost it.
            (try? DurableFiles.exists(path(run: run.record.id, version: round - 1))) == false
        else { return nil }
        return NoiseState.lost(run.record.id, "the state of version \(round - 1) is not in the data directory").message
    }

    // MARK: - Deleting

    /// The states that are there.
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed` where the disk does not say: a list that is empty for that reason would
    ///   leave exact sums behind, and destroy the key of those that are needed.
    private func states() throws(CoordinationError) -> [(path: String, run: String, version: Int)] {
        let directory = blobs.noiseDirectory
        return try SpooledFile.names(in: directory).compactMap { name in
            guard name.hasSuffix(".state"), let dash = name.lastIndex(of: "-"),
                let version = Int(name[name.index(after: dash)...].dropLast(".state".count))
            else { return nil }
            return (directory + "/" + name, String(name[..<dash]), version)
        }
    }

    /// Deletes the exact sums that a run does not need any more, for good: all of them and their key if it is over, and what its newest
    /// version has replaced if it goes on.
    ///
    /// What the disk refuses is tried again at every tick, and at the next start.
    mutating func drop(run id: String, _ runs: RunTable, isWhole: Bool) {
        guard let run = runs[id], run.specification.privacy.isBanded else { return }
        // What the disk refused of another run is not forgotten by this one's success.
        guard !isLeft else { return dropUnneeded(runs, isWhole: isWhole) }
        let newest = run.versions.count - 1
        delete(keysOf: { run.isOver ? [id] : [] }, states: { $0 == id && (run.isOver || $1 < newest) })
    }

    /// The same for every run.
    ///
    /// - Parameters:
    ///   - runs: All runs.
    ///   - isWhole: Whether what is left of runs that are not known goes too: not while the ledger's alarm stands, when the newest
    ///     database may still be put back.
    mutating func dropUnneeded(_ runs: RunTable, isWhole: Bool) {
        let isOver = { (id: String) in runs[id].map(\.isOver) ?? isWhole }
        delete(
            keysOf: { [keys] () throws(CoordinationError) in try keys.runs().filter(isOver) },
            states: { run, version in isOver(run) || runs[run].map { version < $0.versions.count - 1 } ?? false }
        )
    }

    /// Tries again what the disk refused.
    mutating func retry(_ runs: RunTable, isWhole: Bool) {
        if isLeft { dropUnneeded(runs, isWhole: isWhole) }
    }

    private mutating func delete(
        keysOf ids: () throws(CoordinationError) -> [String],
        states isUnneeded: (_ run: String, _ version: Int) -> Bool
    ) {
        do {
            // What the disk has not confirmed before.
            for directory in Set([blobs.noiseDirectory, keys.directory]) {
                try DurableFiles.remove([], in: directory)
            }
            // The keys first: without them the rest is noise.
            for id in try ids() { try keys.destroy(run: id) }
            let states = try self.states()
            try DurableFiles.remove(
                states.filter { isUnneeded($0.run, $0.version) }.map(\.path),
                in: blobs.noiseDirectory
            )
            let others = states.filter { !isUnneeded($0.run, $0.version) }
            // One that cannot be read may need it.
            let needsShared = others.contains {
                (try? NoiseState.hasSharedKey(path: $0.path, run: $0.run, version: $0.version)) ?? true
            }
            if !needsShared { try keys.destroyShared() }
            isLeft = false
        } catch {
            if let failure = StorageFailure(error) { storage.note(failure) }
            guard !isLeft else { return }
            isLeft = true
            logger.error(
                "Exact sums that are not needed any more cannot be deleted; it is tried again",
                metadata: ["error": "\(error)"]
            )
        }
    }
}
