import Foundation
import WireFormat

/// Where correlated mechanisms keep their state: `noise/RUN-VERSION.state`, one a run.
extension Coordinator {
    private func noiseStatePath(run: String, version: Int) -> String {
        blobs.noiseStatePath(run: run, version: version)
    }

    /// What a round of a correlated mechanism needs beside its updates.
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed` when the key cannot be read or made.
    func correlatedRelease(run: String, version: Int, resultPath: String) throws -> CorrelatedRelease {
        CorrelatedRelease(
            key: try NoiseState.key(path: configuration.noiseKeyPath),
            run: run,
            version: version,
            previousPath: version > 1 ? noiseStatePath(run: run, version: version - 1) : nil,
            nextPath: AggregationJob.noiseResultPath(resultPath)
        )
    }

    /// Gives a result's state its place before the version is published; one of an attempt that was not published goes.
    func keepNoiseState(_ path: String, run: String, version: Int) throws {
        try BlobStore.renameDurably(path, to: noiseStatePath(run: run, version: version))
    }

    /// Drops what the run's newest version no longer needs.
    func dropNoiseStates(run: String, before version: Int) {
        try? FileManager.default.removeItem(atPath: noiseStatePath(run: run, version: version - 1))
    }

    /// Why a run with correlated noise cannot open a round, or `nil` when it can.
    func missingNoiseState(of run: RunState, round: Int) -> String? {
        guard run.specification.privacy.mechanism == "banded_matrix", round > 1,
            !FileManager.default.fileExists(atPath: noiseStatePath(run: run.record.id, version: round - 1))
        else { return nil }
        return NoiseState.lost(run.record.id, "the state of version \(round - 1) is not in the data directory").message
    }
}
