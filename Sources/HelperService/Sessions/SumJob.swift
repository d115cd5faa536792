import Coordination
import Crypto
import Foundation
import SecureAggregation
import Tensors

#if canImport(Glibc)
import Glibc
#endif

/// Opens the seeds of a list and writes `M = Σ PRG(s) − N` into a new file, synced with its directory.
struct SumJob: Sendable {
    let document: SessionDocument
    let list: SeedList
    /// SHA-256 of the list, hexadecimal.
    let listDigest: String
    let keyPath: String
    let path: String

    struct Result: Sendable {
        var sha256: String
        var byteCount: Int
    }

    /// - Throws: `SecureAggregationError` `seeds_unopened` with all places, before a file is made; `CoordinationError`
    ///   `storage_failed`.
    func run() throws -> Result {
        let (key, noiseKey) = try keys()
        let masks = try list.masks(with: key, session: document.session)
        let noise = try SessionNoise(of: document)
        Failpoint.reach()
        let descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw DurableFiles.failure(.create, path, .file) }
        defer { close(descriptor) }
        var hasher = SHA256()
        var byteCount = 0
        func write<Word: RingWord>(_ type: Word.Type) throws {
            try MaskSum<Word>(masks, coordinateCount: Int(document.coordinateCount)).write(
                noise: { try noise.add(to: &$0, first: $1, key: noiseKey) },
                to: { bytes in
                    hasher.update(bufferPointer: bytes)
                    byteCount += bytes.count
                    guard DurableFiles.writeAll(bytes, to: descriptor) else {
                        throw DurableFiles.failure(.write, path, .file)
                    }
                }
            )
        }
        switch document.width {
        case .bits16: try write(UInt16.self)
        case .bits32: try write(UInt32.self)
        case .bits64: try write(UInt64.self)
        }
        guard fsync(descriptor) == 0 else { throw DurableFiles.failure(.sync, path, .file) }
        try DurableFiles.syncDirectory((path as NSString).deletingLastPathComponent, role: .file)
        return Result(sha256: hasher.finalize().hexadecimal, byteCount: byteCount)
    }

    /// Erases the file of a sum that was not committed: beside another sum of the session it would tell their difference.
    func erase() throws { try SecretFile.erase(path) }

    /// The session's key, and the key of the noise, which is made of it and of the list.
    ///
    /// So a sum that is made again after a stop has the same noise, whatever a disk still holds of the first, and another list has noise of
    /// its own. With the session's key the way to make the noise again is gone.
    private func keys() throws -> (SessionKey, SymmetricKey) {
        var stored = try DurableFiles.read(keyPath)
        defer { stored.resetBytes(in: 0..<stored.count) }
        guard let key = try? SessionKey(stored: stored), key.publicKey == document.publicKey else {
            throw CoordinationError(
                .unavailable,
                "session_key_damaged",
                "the session's key is not what was written: cancel the session and ask for another attempt"
            )
        }
        let noiseKey = HKDF<SHA256>.deriveKey(
            inputKeyMaterial: SymmetricKey(data: stored),
            info: Data("martlet-helper/1 noise".utf8) + Data(document.session) + Data(listDigest.utf8),
            outputByteCount: 32
        )
        return (key, noiseKey)
    }
}
