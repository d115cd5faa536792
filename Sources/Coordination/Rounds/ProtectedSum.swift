import Aggregation
import DifferentialPrivacy
import Foundation
import SecureAggregation
import Synchronization
import Tensors

/// The server's half of a protected sum: Σ y − M, its own noise, and the step to the next model.
///
/// The sum before the server's noise is in memory only: a helper that had it could take its own noise off.
struct ProtectedSum: Sendable {
    /// How many coordinates are read of each update at a time.
    static let blockCount = 1 << 15

    let grid: ProtectionGrid
    /// The masked updates that the helper's list named.
    let paths: [String]
    /// The file of M.
    let maskPath: String
    /// What the sum is divided by: the planned number of updates with noise, else the number that came.
    let divisor: Double

    /// The list that asks for a sum, of the beginnings of update files.
    ///
    /// - Returns: The list, and which file each of its entries is of.
    /// - Throws: ``CoordinationError`` `storage_failed`, `update_lost`.
    static func list(
        of updates: [(assignment: String, path: String)],
        _ file: MaskedUpdateFile
    ) throws -> (bytes: [UInt8], assignments: [String]) {
        var entries: [(assignment: String, entry: SeedList.Entry)] = []
        for update in updates {
            let source = try Descriptor(reading: update.path, role: .update)
            let prefix = Array(try source.read(SeedList.entryByteCount, at: 0))
            guard prefix.count == SeedList.entryByteCount,
                let sealed = try? SealedSeed(Array(prefix[SeedList.pseudonymByteCount...]))
            else { throw lost }
            let pseudonym = Array(prefix.prefix(SeedList.pseudonymByteCount))
            entries.append((update.assignment, SeedList.Entry(pseudonym: pseudonym, sealed: sealed)))
        }
        entries.sort { $0.entry.pseudonym.lexicographicallyPrecedes($1.entry.pseudonym) }
        do throws(SecureAggregationError) {
            return (try SeedList(entries.map(\.entry)).bytes, entries.map(\.assignment))
        } catch {
            throw CoordinationError(.unprocessable, error.code.rawValue, error.description)
        }
    }

    private static var lost: CoordinationError {
        CoordinationError(.unavailable, "update_lost", "an accepted update is not as long as it was")
    }

    /// The sum with both parties' noise, grid units.
    ///
    /// - Parameter noise: Adds the server's noise; absent without privacy.
    /// - Returns: Shape `[coordinateCount]`.
    /// - Throws: ``HelperFailure`` `helper_inconsistent` for a sum that no updates with noise have; what files cannot be read for.
    func noisedSum(_ noise: ((inout [Int64]) throws -> Void)?) throws -> [Int64] {
        var sum: [Int64]
        switch grid.width {
        case .bits16: sum = try unmasked(UInt16.self)
        case .bits32: sum = try unmasked(UInt32.self)
        case .bits64: sum = try unmasked(UInt64.self)
        }
        if let noise {
            // Whatever the helper has sent, adding the noise must not overflow.
            let reach: Int64 = 1 << 62
            for index in sum.indices { sum[index] = max(-reach, min(reach, sum[index])) }
            try noise(&sum)
        }
        // After the noise: what is checked before it would be a release of its own.
        let margin = 2 * (8 * grid.noiseDeviation).rounded(.up)
        let limit = Double(paths.count) * Double(grid.coordinateBound) + margin
        guard sum.allSatisfy({ Double($0.magnitude) <= limit }) else {
            throw HelperFailure(
                code: "helper_inconsistent",
                message: "its sum does not belong to these updates: what is left has coordinates that no updates have",
                isTemporary: false
            )
        }
        return sum
    }

    /// Gives the mean away in blocks, in parallel; see `FixedPointMean.Receiver`.
    func deliver(_ sum: [Int64], to receiver: FixedPointMean.Receiver) {
        let (step, divisor) = (grid.step, divisor)
        Parallel.blocks(of: sum.count, size: FixedPointMean.defaultBlockElementCount) { range in
            withUnsafeTemporaryAllocation(of: Double.self, capacity: range.count) { means in
                for index in range {
                    means.initializeElement(at: index - range.lowerBound, to: Double(sum[index]) * step / divisor)
                }
                if let base = means.baseAddress { receiver(range, base) }
            }
        }
    }

    /// Σ y − M, read in blocks.
    private func unmasked<Word: RingWord>(_ type: Word.Type) throws -> [Int64] {
        let file = try MaskedUpdateFile(width: grid.width, coordinateCount: grid.coordinateCount)
        // As the fold of plain updates: of many updates each read opens its file.
        let opened =
            paths.count <= BlockFold.openFileLimit ? try paths.map { try Descriptor(reading: $0, role: .update) } : []
        let masks = try Descriptor(reading: maskPath, role: .result)
        var result = [Int64](repeating: 0, count: grid.coordinateCount)
        try result.withUnsafeMutableBufferPointer { buffer in
            try Parallel.blocks(of: buffer, size: Self.blockCount) { (block, part) throws in
                var words = [Word](repeating: 0, count: block.count)
                let byteCount = block.count * MemoryLayout<Word>.size
                let start = block.lowerBound * MemoryLayout<Word>.size
                for (place, path) in paths.enumerated() {
                    let update = try opened.isEmpty ? Descriptor(reading: path, role: .update) : opened[place]
                    let bytes = try update.read(byteCount, at: file.wordOffset + start)
                    guard bytes.count == byteCount else { throw Self.lost }
                    try bytes.withUnsafeBytes { try Unmasking.add($0, to: &words) }
                }
                let mask = try masks.read(byteCount, at: start)
                let values = try mask.withUnsafeBytes { try Unmasking.finish(words, helper: $0) }
                for index in part.indices { part[index] = values[index] }
            }
        }
        return result
    }
}
