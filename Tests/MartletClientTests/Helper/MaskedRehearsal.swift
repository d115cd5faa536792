import Crypto
import DifferentialPrivacy
import Foundation
import LocalTraining
import MartletClient
import SecureAggregation
import StrictJSON
import Synchronization
import Tensors
import TestSupport
import Testing
import WireFormat

/// A rehearsal whose server relays sessions of a helper, and the helper: its key, and the key of each session.
final class MaskedRehearsal: Transport {
    /// A request as somebody sees it who does not look into bodies.
    struct Seen: Equatable, Sendable {
        var request: String
        var fields: [String]
        var byteCount: Int
        /// Of everything but the update.
        var body: String?
    }

    struct Session: Sendable {
        var document: SessionDocument
        var key: SessionKey
    }

    /// What an upload opens to.
    struct Opened: Sendable {
        var assignment: String
        var pseudonym: [UInt8]
        var seed: Data
        var words: Data
        var integers: [Int64]
        var byteCount: Int
    }

    /// What was asked for when the device was told.
    struct Changes: Sendable {
        /// The assignment, before the session is asked for: what the helper grants is for this.
        var work: @Sendable (inout AssignmentBody) -> Void = { _ in }
        /// The document, before it is signed.
        var document: @Sendable (inout SessionDocument) -> Void = { _ in }
        /// The assignment, after it was signed.
        var told: @Sendable (inout AssignmentBody) -> Void = { _ in }
    }

    let helper = Curve25519.Signing.PrivateKey()
    let terms: Changes
    private let bits: Int
    private let shared: Shared
    private let requests = Mutex<[Seen]>([])
    let server: RehearsalServer

    /// What the server's closure sees.
    private final class Shared: Sendable {
        /// By round and attempt.
        let sessions = Mutex<[String: Session]>([:])
        let bySession = Mutex<[[UInt8]: Session]>([:])
        /// The session of each assignment that was handed out.
        let handedOut = Mutex<[String: [UInt8]]>([:])
    }

    init(mode: String = "central", bits: Int = 64, changes: Changes = .init()) {
        self.bits = bits
        terms = changes
        let shared = Shared()
        self.shared = shared
        let helper = helper
        server = RehearsalServer(
            mode: mode,
            change: { body, _ in
                do { try Self.protect(&body, bits, helper, shared, changes) } catch { Issue.record(error) }
            }
        )
    }

    var pinned: HelperKey { get throws { try HelperKey(rawRepresentation: helper.publicKey.rawRepresentation) } }
    var transcript: [Seen] { requests.withLock { $0 } }
    var session: Session? { shared.bySession.withLock { $0.values.first } }

    func send(_ request: TransportRequest) async throws -> TransportResponse {
        var body = Data()
        switch request.body {
        case .none: break
        case .bytes(let data): body = data
        case .file(let path, let offset):
            body = (FileManager.default.contents(atPath: path) ?? Data()).dropFirst(offset)
        }
        let isUpload = request.url.hasSuffix("/update")
        let hidden: Set<String> = ["Content-Digest", "Idempotency-Key"]
        let seen = Seen(
            request: "\(request.method) \(request.url)",
            fields: request.headers.map { hidden.contains($0.key) ? $0.key : "\($0.key)=\($0.value)" }.sorted(),
            byteCount: body.count,
            body: isUpload ? nil : String(decoding: body, as: UTF8.self)
        )
        requests.withLock { $0.append(seen) }
        return try await server.send(request)
    }

    /// What the helper reads in everything that was sent as an update, whoever received it.
    func opened() throws -> [Opened] {
        let (sent, handedOut) = (server.state.withLock { $0.sent }, shared.handedOut.withLock { $0 })
        return try sent.sorted { $0.key < $1.key }.flatMap { assignment, versions in
            try versions.map { bytes in
                let name = try #require(handedOut[assignment])
                let session = try #require(shared.bySession.withLock { $0[name] })
                return try open(bytes, of: assignment, session)
            }
        }
    }

    private func open(_ bytes: Data, of assignment: String, _ session: Session) throws -> Opened {
        let file = try MaskedUpdateFile(of: session.document)
        let entry = try file.entry(prefix: Array(bytes.prefix(file.wordOffset)), fileByteCount: bytes.count)
        let seed = try #require(
            session.key.open(entry.sealed, session: session.document.session, pseudonym: entry.pseudonym)
        )
        let words = Data(bytes.dropFirst(file.wordOffset))
        let stream = try MaskStream(seed: seed)
        let integers: [Int64] =
            switch session.document.width {
            case .bits16: try Self.unmasked(words, stream, as: UInt16.self)
            case .bits32: try Self.unmasked(words, stream, as: UInt32.self)
            case .bits64: try Self.unmasked(words, stream, as: UInt64.self)
            }
        return Opened(
            assignment: assignment,
            pseudonym: entry.pseudonym,
            seed: seed,
            words: words,
            integers: integers,
            byteCount: bytes.count
        )
    }

    private static func unmasked<Word: RingWord>(
        _ bytes: Data,
        _ stream: MaskStream,
        as type: Word.Type
    ) throws -> [Int64] {
        var words = bytes.withUnsafeBytes { raw in
            (0..<raw.count / MemoryLayout<Word>.size).map {
                Word(littleEndian: raw.loadUnaligned(fromByteOffset: $0 * MemoryLayout<Word>.size, as: Word.self))
            }
        }
        try words.withUnsafeMutableBufferPointer { try stream.subtract(from: $0) }
        return words.map(\.centred)
    }

    // MARK: - The helper

    /// The grid of the rehearsal's terms.
    static func grid(_ body: AssignmentBody, bits: Int, maximum: UInt32 = 1000) throws -> ProtectionGrid {
        var terms = ProtectionGrid.Terms.plain(valueBound: body.valueBound ?? 1, norm: nil)
        if body.privacy.mode == .central {
            terms = .gaussian(
                clippingNorm: body.privacy.clipping.norm,
                noiseMultiplier: body.privacy.noiseMultiplier,
                scale: nil
            )
        }
        return try ProtectionGrid(
            terms,
            width: try #require(RingWidth(rawValue: UInt8(bits))),
            coordinateCount: RehearsalServer.layout.parameterCount,
            maximum: maximum
        )
    }

    private static func protect(
        _ body: inout AssignmentBody,
        _ bits: Int,
        _ helper: Curve25519.Signing.PrivateKey,
        _ shared: Shared,
        _ changes: Changes
    ) throws {
        if body.privacy.mode == .none { body.valueBound = 8 }
        changes.work(&body)
        let name = "\(body.round)/\(body.attempt)"
        let known = shared.sessions.withLock { $0[name] }
        let key = try known?.key ?? SessionKey()
        body.protection = .init(
            kind: .helper,
            bits: bits,
            document: "AA==",
            grant: Data(count: 64).base64EncodedString()
        )
        let document = try document(body, bits, key, changes)
        let session = Session(document: document, key: key)
        shared.sessions.withLock { $0[name] = session }
        shared.bySession.withLock { $0[document.session] = session }
        shared.handedOut.withLock { [id = body.id] in $0[id] = document.session }
        body.protection?.document = Data(document.bytes).base64EncodedString()
        body.protection?.grant = try SessionGrant.sign(document, with: helper).base64EncodedString()
        changes.told(&body)
    }

    /// The document of a server that reads its own assignment as the device will.
    private static func document(
        _ body: AssignmentBody,
        _ bits: Int,
        _ key: SessionKey,
        _ changes: Changes
    ) throws -> SessionDocument {
        let read = try Assignment.read(
            try JSONValue.parse(Array(try WireCoding.encode(body))),
            modelByteLimit: 1 << 20
        )
        let grid = try grid(body, bits: bits)
        var document = SessionDocument(
            purpose: .training,
            server: "srv_1",
            domain: "keyboards",
            run: body.run,
            round: UInt32(body.round),
            attempt: UInt32(body.attempt),
            model: Array(SHA256.hash(data: RehearsalServer.model)),
            instructions: try read.instructionsHash(),
            width: grid.width,
            coordinateCount: UInt64(grid.coordinateCount),
            step: grid.step,
            coordinateBound: grid.coordinateBound,
            norm: grid.norm,
            noiseDeviation: grid.noiseDeviation,
            measure: grid.measure,
            noise: grid.noise,
            minimum: 20,
            maximum: grid.maximum,
            maxParticipations: 1000,
            publicKey: key.publicKey,
            expires: 1_800_000_000 + 604_800
        )
        changes.document(&document)
        return document
    }
}

extension RehearsalDevice {
    /// The next process of this device, which pins the rehearsal's helper.
    func masked(
        _ rehearsal: MaskedRehearsal,
        _ trainer: any LocalTrainer,
        policy: ClientPrivacyPolicy = .init(),
        failpoint: (@Sendable () throws -> Void)? = nil
    ) throws -> FederatedClient {
        try client(rehearsal, trainer, policy: policy, helper: rehearsal.pinned, failpoint: failpoint)
    }
}
