import Crypto
import DifferentialPrivacy
import Foundation

#if canImport(Glibc)
import Glibc
#endif

/// What a correlated mechanism keeps between rounds: its last rows, as an encrypted file.
///
/// The rows hold exact sums, which are secret, so every chunk is sealed with AES-256-GCM under a key that lies in a file of
/// its own, and bound to run, version and place: a chunk of another state does not open. Without its state a mechanism ends, and with
/// the run its state and its key do; see ``NoiseKeys``.
struct NoiseState: Sendable {
    /// Coordinates of one chunk.
    static let chunkCount = 1 << 16
    private static let magic = Data("MARTLET-NOISE-2\n".utf8)
    /// Of states that earlier versions sealed with one key for all runs.
    private static let sharedKeyMagic = Data("MARTLET-NOISE-1\n".utf8)

    let key: SymmetricKey
    let run: String
    /// The version whose release was the newest row.
    let version: Int
    let rowCount: Int
    let parameterCount: Int
    private let file: Descriptor

    private static func associatedData(_ run: String, _ version: Int, _ rows: Int, _ count: Int, _ chunk: Int) -> Data {
        Data("\(run)/\(version)/\(rows)/\(count)/\(chunk)".utf8)
    }

    /// Opens a state.
    ///
    /// - Throws: ``CoordinationError`` with code `noise_state_lost`, or `storage_failed` where the disk does not give it.
    init(path: String, key: SymmetricKey, run: String, version: Int, parameterCount: Int) throws {
        let file = try Self.open(path, run: run, version: version)
        let header = try file.read(Self.magic.count + 4, at: 0)
        guard [Self.magic, Self.sharedKeyMagic].contains(header.prefix(Self.magic.count)),
            header.count == Self.magic.count + 4
        else { throw Self.lost(run, "the file of version \(version) is no noise state") }
        self.file = file
        rowCount = header.suffix(4).reduce(0) { $0 << 8 | Int($1) }
        self.key = key
        self.run = run
        self.version = version
        self.parameterCount = parameterCount
    }

    private static func open(_ path: String, run: String, version: Int) throws -> Descriptor {
        do {
            return try Descriptor(reading: path, role: .noiseState)
        } catch {
            guard error.storage?.isMissing == true else { throw error }
            throw lost(run, "the file of version \(version) is missing")
        }
    }

    /// Whether a file is a state of an earlier version, sealed with the key that all runs shared.
    ///
    /// - Throws: ``CoordinationError`` as ``init(path:key:run:version:parameterCount:)`` does.
    static func hasSharedKey(path: String, run: String, version: Int) throws -> Bool {
        try open(path, run: run, version: version).read(magic.count, at: 0) == sharedKeyMagic
    }

    /// The rows of one chunk, newest first.
    ///
    /// - Throws: ``CoordinationError`` with code `noise_state_lost`.
    func rows(chunk: Int) throws -> [BandedReleases.Row] {
        let full = Self.chunkCount
        let count = min(full, parameterCount - chunk * full)
        let overhead = 28
        let offset = Self.magic.count + 4 + chunk * (16 * rowCount * full + overhead)
        let sealed = try file.read(16 * rowCount * count + overhead, at: offset)
        guard let box = try? AES.GCM.SealedBox(combined: sealed),
            let plain = try? AES.GCM.open(
                box,
                using: key,
                authenticating: Self.associatedData(run, version, rowCount, parameterCount, chunk)
            )
        else { throw Self.lost(run, "its file is of another state, or the key is another one") }
        let values = plain.withUnsafeBytes { raw in
            (0..<(2 * rowCount * count)).map { raw.loadUnaligned(fromByteOffset: $0 * 8, as: Int64.self) }
        }
        return (0..<rowCount).map { row in
            let start = 2 * row * count
            return .init(
                sums: Array(values[start..<(start + count)]),
                released: Array(values[(start + count)..<(start + 2 * count)])
            )
        }
    }

    static func lost(_ run: String, _ why: String) -> CoordinationError {
        CoordinationError(
            .conflict,
            "noise_state_lost",
            "the correlated noise of run \(run) cannot go on: \(why). What it has released stays charged; make a new run of "
                + "architecture external whose initial model is the last version; it is charged as a mechanism of its own"
        )
    }

    /// Writes the next state chunk by chunk, under a name that a start removes; it appears at its path when it is whole.
    final class Writer {
        private let file: Descriptor
        private let partialPath: String
        private let path: String
        private let key: SymmetricKey
        private let run: String
        private let version: Int
        private let rowCount: Int
        private let parameterCount: Int
        private var chunk = 0

        /// - Throws: ``CoordinationError`` with code `storage_failed`.
        init(path: String, key: SymmetricKey, run: String, version: Int, rowCount: Int, parameterCount: Int) throws {
            self.path = path
            partialPath = path + ".part-" + Secrets.identifier("w")
            file = try Descriptor(creating: partialPath, role: .noiseState)
            (self.key, self.run, self.version) = (key, run, version)
            (self.rowCount, self.parameterCount) = (rowCount, parameterCount)
            var header = NoiseState.magic
            for shift in [24, 16, 8, 0] { header.append(UInt8(truncatingIfNeeded: rowCount >> shift)) }
            try file.append(header)
        }

        deinit { unlink(partialPath) }

        func append(_ rows: [BandedReleases.Row]) throws {
            precondition(rows.count == rowCount, "every chunk has the same rows")
            var plain = Data()
            for row in rows {
                row.sums.withUnsafeBytes { plain.append(contentsOf: $0) }
                row.released.withUnsafeBytes { plain.append(contentsOf: $0) }
            }
            let data = NoiseState.associatedData(run, version, rowCount, parameterCount, chunk)
            guard let sealed = try AES.GCM.seal(plain, using: key, authenticating: data).combined else {
                throw PrivacyError.randomSourceFailed
            }
            try file.append(sealed)
            chunk += 1
        }

        func finish() throws {
            try file.sync()
            try DurableFiles.rename(partialPath, to: path, role: .noiseState)
        }
    }
}
