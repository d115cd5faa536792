import CLibrary
import Crypto
import Foundation
import MartletTransport
import SecureAggregation

/// A helper's session that a device may mask an update for: ``HelperCheck`` has compared every field of its document.
struct HelperSession: Sendable {
    let key: HelperKey
    let document: SessionDocument
    /// Computed from the assignment's terms, and equal to the document's.
    let grid: ProtectionGrid
    /// The device's at this helper and in this domain, 32 bytes, on the disk.
    let pseudonym: [UInt8]

    /// Σ*/K, which the device's ledger charges; `nil` for a session without noise.
    var noiseMultiplier: Double? { document.noise == .none ? nil : grid.noiseMultiplier }

    /// Masks an update under a fresh seed and writes the file that is delivered, which is on the disk then.
    ///
    /// Two masked vectors under one seed reveal their difference. So the seed is drawn here, when the integers are final, masks them,
    /// and is forgotten: whatever ends the process before the file has its name, the next attempt draws another one.
    ///
    /// - Parameters:
    ///   - integers: Of ``ProtectionGrid/encode(_:)``.
    ///   - path: A new file.
    ///   - failpoint: Is called between the steps.
    /// - Returns: SHA-256 of the file.
    /// - Throws: ``SecureAggregationError``, or `ClientError` of this device's files.
    func writeMasked(
        _ integers: [Int64],
        to path: String,
        failpoint: () throws -> Void
    ) throws -> Data {
        try failpoint()
        var seed = SymmetricKey(size: .bits256).withUnsafeBytes { Data($0) }
        defer { seed.resetBytes(in: 0..<seed.count) }
        let stream = try MaskStream(seed: seed)
        let words: [UInt8] =
            switch document.width {
            case .bits16: try Masking.mask(integers, as: UInt16.self, with: stream)
            case .bits32: try Masking.mask(integers, as: UInt32.self, with: stream)
            case .bits64: try Masking.mask(integers, as: UInt64.self, with: stream)
            }
        try failpoint()
        let sealed: SealedSeed
        do { sealed = try SealedSeed.seal(seed, for: document, pseudonym: pseudonym) } catch {
            throw SecureAggregationError(.randomSourceFailed, "the seed could not be sealed")
        }
        try failpoint()
        let file = try MaskedUpdateFile(of: document)
        guard words.count == file.wordByteCount else {
            throw SecureAggregationError(.invalidWords, "the update has another length than the session's document")
        }
        let digest = try Self.write(
            [file.prefix(SeedList.Entry(pseudonym: pseudonym, sealed: sealed)), words],
            to: path
        )
        try failpoint()
        return digest
    }

    /// Writes a new file and syncs it.
    private static func write(_ pieces: [[UInt8]], to path: String) throws -> Data {
        let descriptor = PlainFile.open(path, O_WRONLY | O_CREAT | O_EXCL)
        guard descriptor >= 0 else { throw LocalFailure.error("write", path, errno) }
        defer { close(descriptor) }
        var hash = SHA256()
        for piece in pieces {
            try piece.withUnsafeBytes { raw in
                hash.update(bufferPointer: raw)
                var offset = 0
                while offset < raw.count {
                    let count = CLibrary.write(descriptor, raw.baseAddress.map { $0 + offset }, raw.count - offset)
                    if count < 0 && errno == EINTR { continue }
                    guard count > 0 else { throw LocalFailure.error("write", path, count < 0 ? errno : ENOSPC) }
                    offset += count
                }
            }
        }
        guard fsync(descriptor) == 0 else { throw LocalFailure.error("write", path, errno) }
        return Data(hash.finalize())
    }
}
