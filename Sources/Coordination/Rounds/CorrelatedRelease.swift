import Crypto
import DifferentialPrivacy
import Foundation

/// One round of a correlated mechanism, chunk by chunk: the sums and earlier rows in, the released mean and the next state out.
///
/// The row's noise has a key of its own, the attempt's, which is in memory only: what lies on the disk lets nobody draw the row
/// again, so an attempt that is made again after a stop, or on a restored database, never has the noise of another release.
struct CorrelatedRelease: Sendable {
    /// What the next state is sealed with.
    let key: SymmetricKey
    /// What the row's noise is made of.
    var noiseKey = NoiseKey()
    let run: String
    /// The version that the release becomes.
    let version: Int
    /// The state of the version before; `nil` for the first.
    let previousPath: String?
    /// What the state before is sealed with; ``key`` where absent.
    var previousKey: SymmetricKey?
    /// Where the next state is written.
    let nextPath: String
    /// Where a publication moves the next state.
    let keptPath: String

    /// Releases the sums.
    ///
    /// - Parameters:
    ///   - sums: Shape `[d]`, units of the mechanism's data grid.
    ///   - mechanism: The run's mechanism.
    ///   - scale: What a unit of the release is multiplied by.
    /// - Returns: Shape `[d]`.
    /// - Throws: ``CoordinationError`` with code `noise_state_lost`, ``PrivacyError``.
    func release(_ sums: [Int64], _ mechanism: BandedReleases, scale: Double) throws -> [Double] {
        let previous = try previousPath.map {
            try NoiseState(
                path: $0,
                key: previousKey ?? key,
                run: run,
                version: version - 1,
                parameterCount: sums.count
            )
        }
        let band = mechanism.integerCoefficients.count
        let kept = min(version, band - 1)
        guard previous?.rowCount ?? 0 == min(version - 1, band - 1) else {
            throw NoiseState.lost(run, "its state has \(previous?.rowCount ?? 0) rows")
        }
        let writer = try NoiseState.Writer(
            path: nextPath,
            key: key,
            run: run,
            version: version,
            rowCount: kept,
            parameterCount: sums.count
        )
        let sampler = IntegerGaussianSampler(releaseKey: noiseKey.derived(for: .row))
        var result: [Double] = []
        result.reserveCapacity(sums.count)
        for (chunk, start) in stride(from: 0, to: sums.count, by: NoiseState.chunkCount).enumerated() {
            let part = Array(sums[start..<min(sums.count, start + NoiseState.chunkCount)])
            var noise = [Int64](repeating: 0, count: part.count)
            try sampler.addNoise(to: &noise, firstCoordinate: start)
            let earlier = try previous?.rows(chunk: chunk) ?? []
            let row = mechanism.release(part, earlier: earlier, noise: noise)
            try writer.append(Array(([row] + earlier).prefix(kept)))
            result += mechanism.values(of: row).map { $0 * scale }
        }
        try writer.finish()
        return result
    }
}
