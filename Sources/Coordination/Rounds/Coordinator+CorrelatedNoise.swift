import Crypto
import Foundation
import Logging
import WireFormat

#if canImport(Glibc)
import Glibc
#endif

/// Where correlated mechanisms keep their state: `noise/RUN-VERSION.state`, one a run, until the run has ended.
extension Coordinator {
    var noiseKeyFiles: NoiseKeys { NoiseKeys(sharedPath: configuration.noiseKeyPath) }

    private func noiseStatePath(run: String, version: Int) -> String {
        blobs.noiseStatePath(run: run, version: version)
    }

    /// What a round of a correlated mechanism needs beside its updates.
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed` when the key cannot be read or made, `noise_key_missing` where the
    ///   last state is there and its key is not.
    func correlatedRelease(run: String, version: Int, resultPath: String) throws -> CorrelatedRelease {
        let previous = version > 1 ? noiseStatePath(run: run, version: version - 1) : nil
        var previousKey: SymmetricKey?
        var key: SymmetricKey?
        // That a state is lost is what the arithmetic comes to, and ends the run.
        if let previous, access(previous, F_OK) == 0 {
            let isShared = try NoiseState.hasSharedKey(path: previous, run: run, version: version - 1)
            previousKey = try noiseKeyFiles.known(run: run, isShared: isShared)
            if !isShared { key = previousKey }
        }
        return CorrelatedRelease(
            key: try key ?? noiseKeyFiles.make(run: run),
            run: run,
            version: version,
            previousPath: previous,
            previousKey: previousKey,
            nextPath: AggregationJob.noiseResultPath(resultPath)
        )
    }

    /// Gives a result's state its place before the version is published; one of an attempt that was not published goes.
    func keepNoiseState(_ path: String, run: String, version: Int) throws {
        let target = noiseStatePath(run: run, version: version)
        // A publication that is tried again has moved it before.
        if access(path, F_OK) != 0, errno == ENOENT, access(target, F_OK) == 0 {
            return try BlobStore.removeDurably([], in: blobs.noiseDirectory)
        }
        do {
            try BlobStore.renameDurably(path, to: target, role: .noiseState)
        } catch {
            // So that it is moved again: a sync alone may report success though the first one lost the name.
            if rename(target, path) != 0 { BlobStore.distrust(blobs.noiseDirectory) }
            throw error
        }
    }

    /// Why a run with correlated noise cannot open a round, or `nil` when it can.
    func missingNoiseState(of run: RunState, round: Int) -> String? {
        guard run.specification.privacy.isBanded, round > 1,
            access(noiseStatePath(run: run.record.id, version: round - 1), F_OK) != 0,
            // A disk that does not answer has not lost it.
            errno == ENOENT
        else { return nil }
        return NoiseState.lost(run.record.id, "the state of version \(round - 1) is not in the data directory").message
    }

    // MARK: - Deleting

    /// The states that are there.
    private func noiseStates() -> [(path: String, run: String, version: Int)] {
        let directory = blobs.noiseDirectory
        return ((try? SpooledFile.names(in: directory)) ?? []).compactMap { name in
            guard name.hasSuffix(".state"), let dash = name.lastIndex(of: "-"),
                let version = Int(name[name.index(after: dash)...].dropLast(".state".count))
            else { return nil }
            return (directory + "/" + name, String(name[..<dash]), version)
        }
    }

    /// Deletes the exact sums that a run does not need any more, for good: all of them and their key where it is over, and what its
    /// newest version has replaced where it goes on.
    ///
    /// What the disk refuses is tried again at every tick, and at the next start.
    func dropNoiseStates(run id: String) {
        guard let run = runs[id], run.specification.privacy.isBanded else { return }
        // What the disk refused of another run is not forgotten by this one's success.
        guard !isNoiseLeft else { return dropUnneededNoise() }
        let newest = run.versions.count - 1
        deleteNoise(runs: run.isOver ? [id] : [], states: { $0 == id && (run.isOver || $1 < newest) })
    }

    /// The same for every run, and for what is left of runs that this database does not know; not while the ledger's alarm stands,
    /// when the newest database may still be put back.
    func dropUnneededNoise() {
        let isWhole = !budgets.trust.isInQuestion
        let isOver = { (id: String) in self.runs[id].map(\.isOver) ?? isWhole }
        let keys = noiseKeyFiles.runs().filter(isOver)
        deleteNoise(runs: keys) { run, version in
            isOver(run) || self.runs[run].map { version < $0.versions.count - 1 } ?? false
        }
    }

    /// Tries again what the disk refused.
    func retryDroppingNoise() {
        if isNoiseLeft { dropUnneededNoise() }
    }

    private func deleteNoise(runs ids: [String], states isUnneeded: (_ run: String, _ version: Int) -> Bool) {
        do {
            // What the disk has not confirmed before.
            for directory in Set([blobs.noiseDirectory, noiseKeyFiles.directory]) {
                try BlobStore.removeDurably([], in: directory)
            }
            // The keys first: without them the rest is noise.
            for id in ids { try noiseKeyFiles.destroy(run: id) }
            let states = noiseStates()
            try BlobStore.removeDurably(
                states.filter { isUnneeded($0.run, $0.version) }.map(\.path),
                in: blobs.noiseDirectory
            )
            let others = states.filter { !isUnneeded($0.run, $0.version) }
            // One that cannot be read may need it.
            let needsShared = others.contains {
                (try? NoiseState.hasSharedKey(path: $0.path, run: $0.run, version: $0.version)) ?? true
            }
            if !needsShared { try noiseKeyFiles.destroyShared() }
            isNoiseLeft = false
        } catch {
            if let failure = StorageFailure(error) { storage.note(failure) }
            guard !isNoiseLeft else { return }
            isNoiseLeft = true
            logger.error(
                "Exact sums that are not needed any more cannot be deleted; it is tried again",
                metadata: ["error": "\(error)"]
            )
        }
    }
}
