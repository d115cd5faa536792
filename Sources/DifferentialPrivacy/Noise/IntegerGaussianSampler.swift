package import Crypto
import CryptoExtras
import Foundation
import Tensors

/// Integer noise with standard deviation Σ* ≈ 1.2586·10⁷: a discrete Gaussian by two levels of convolution.
///
/// `x = (b₀ + 48 b₁) + 2048 (b₂ + 48 b₃)` with four discrete Gaussians of standard deviation 128, each from 16 bytes of
/// an AES-256-CTR stream. Each coordinate has 64 bytes at a fixed place in the stream, so the result does not depend on chunks or
/// threads. No floating point is involved (Mironov 2012). Sources: Micciancio and Walter 2017 for the
/// convolution, Canonne, Kamath and Steinke 2020, arXiv:2004.00010, for the mechanism.
public struct IntegerGaussianSampler: Sendable {
    /// Σ*², an integer.
    public static let variance: UInt64 = 158_398_431_641_600
    /// Σ*.
    public static var standardDeviation: Double { Double(variance).squareRoot() }

    private let key: SymmetricKey
    private static let coordinatesPerChunk = 8192

    /// A sampler with a fresh key, for one release.
    ///
    /// The key is never stored, and two releases never share noise.
    public init() {
        key = SymmetricKey(size: .bits256)
    }

    /// A sampler with the key of one release, derived from its ``NoiseKey``.
    package init(releaseKey: SymmetricKey) {
        key = releaseKey
    }

    /// A sampler with a known key: for tests only.
    package init(testKey: SymmetricKey) {
        key = testKey
    }

    /// Adds one noise integer to each element; element `i` is coordinate `firstCoordinate + i`.
    ///
    /// Runs on all cores. The result depends on the key and the coordinates only.
    ///
    /// - Parameters:
    ///   - sums: Integers in units of the grid step.
    ///   - firstCoordinate: The coordinate of the first element.
    /// - Throws: ``PrivacyError/randomSourceFailed``. Then only some elements have noise, and the sums must not be used.
    public func addNoise(to sums: inout [Int64], firstCoordinate: Int = 0) throws(PrivacyError) {
        try sums.withUnsafeMutableBufferPointer { (buffer) throws(PrivacyError) in
            try Parallel.blocks(of: buffer, size: Self.coordinatesPerChunk) { (chunk, part) throws(PrivacyError) in
                var stream = try streamBytes(fromCoordinate: firstCoordinate + chunk.lowerBound, count: part.count)
                // The random bytes are erased: with them the noise could be removed.
                defer { stream.resetBytes(in: 0..<stream.count) }
                stream.withUnsafeBytes { raw in
                    Self.table.withUnsafeBufferPointer { table in
                        for index in part.indices { part[index] += Self.sample(raw, at: index * 64, table) }
                    }
                }
            }
        }
    }

    private func streamBytes(fromCoordinate first: Int, count: Int) throws(PrivacyError) -> Data {
        // 64 bytes a coordinate are four cipher blocks; the nonce is the big-endian number of the first block.
        var block = UInt64(first) * 4
        var nonce = [UInt8](repeating: 0, count: 16)
        for position in stride(from: 15, through: 8, by: -1) {
            nonce[position] = UInt8(truncatingIfNeeded: block)
            block >>= 8
        }
        do {
            return try AES._CTR.encrypt(Data(count: count * 64), using: key, nonce: AES._CTR.Nonce(nonceBytes: nonce))
        } catch {
            throw .randomSourceFailed
        }
    }

    private static func sample(
        _ raw: UnsafeRawBufferPointer,
        at offset: Int,
        _ table: UnsafeBufferPointer<Threshold>
    ) -> Int64 {
        let near = base(raw, at: offset, table) + 48 * base(raw, at: offset + 16, table)
        let far = base(raw, at: offset + 32, table) + 48 * base(raw, at: offset + 48, table)
        return near + 2048 * far
    }

    /// One base sample from 16 little-endian bytes: bit 127 is the sign, the rest is compared with the table.
    static func base(_ raw: UnsafeRawBufferPointer, at offset: Int) -> Int64 {
        table.withUnsafeBufferPointer { base(raw, at: offset, $0) }
    }

    @inline(__always)
    private static func base(
        _ raw: UnsafeRawBufferPointer,
        at offset: Int,
        _ table: UnsafeBufferPointer<Threshold>
    ) -> Int64 {
        let low = UInt64(littleEndian: raw.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
        let top = UInt64(littleEndian: raw.loadUnaligned(fromByteOffset: offset + 8, as: UInt64.self))
        let high = top & 0x7FFF_FFFF_FFFF_FFFF
        var magnitude = firstCandidate[Int(high >> 55)]
        while magnitude < table.count {
            let threshold = table[magnitude]
            guard threshold.high < high || (threshold.high == high && threshold.low <= low) else { break }
            magnitude += 1
        }
        return top >> 63 == 1 ? -Int64(magnitude) : Int64(magnitude)
    }

    private typealias Threshold = (high: UInt64, low: UInt64)
    private static let table = DiscreteGaussianTable.halves
    /// For each value of the top byte, how many thresholds are at or below every magnitude that begins with it.
    private static let firstCandidate: [Int] = (0..<256).map { byte in
        table.firstIndex { $0.high > UInt64(byte) << 55 || ($0.high == UInt64(byte) << 55 && $0.low > 0) }
            ?? table.count
    }
}
