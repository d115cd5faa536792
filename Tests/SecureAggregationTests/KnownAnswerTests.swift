import Crypto
import Foundation
import SecureAggregation
import Testing

/// What `Tests/Python/helper_vectors.py` says, byte for byte.
struct KnownAnswerTests {
    private struct Answers: Decodable {
        struct Fields: Decodable {
            var server, domain, run, model, instructions: String
            var purpose, bits, measure, noise: UInt8
            var round, attempt, minimum, maximum, participations: UInt32
            var coordinates, bound, norm, expires: UInt64
            var step, deviation: Double
        }
        struct Client: Decodable {
            var seed, pseudonym, sealed: String
            var contribution: [Int64]
            var masked: [UInt32]
        }
        struct Mask: Decodable {
            var bits: UInt8
            var first: UInt64
            var words: [String]
        }
        var secret, `public`, signer, document, session, grant: String
        var fields: Fields
        var clients: [Client]
        var noise: [Int64]
        var helper: [UInt32]
        var sum: [Int64]
        var masks: [Mask]
    }

    private let answers: Answers
    private let document: SessionDocument

    init() throws {
        let url = try #require(
            Bundle.module.url(forResource: "helper-v1", withExtension: "json", subdirectory: "Fixtures")
        )
        answers = try JSONDecoder().decode(Answers.self, from: Data(contentsOf: url))
        let fields = answers.fields
        document = SessionDocument(
            purpose: try #require(SessionDocument.Purpose(rawValue: fields.purpose)),
            server: fields.server,
            domain: fields.domain,
            run: fields.run,
            round: fields.round,
            attempt: fields.attempt,
            model: Array(hexadecimal: fields.model),
            instructions: Array(hexadecimal: fields.instructions),
            width: try #require(RingWidth(rawValue: fields.bits)),
            coordinateCount: fields.coordinates,
            step: fields.step,
            coordinateBound: fields.bound,
            norm: fields.norm,
            noiseDeviation: fields.deviation,
            measure: try #require(SessionDocument.Measure(rawValue: fields.measure)),
            noise: try #require(SessionDocument.Noise(rawValue: fields.noise)),
            minimum: fields.minimum,
            maximum: fields.maximum,
            maxParticipations: fields.participations,
            publicKey: Array(hexadecimal: answers.public),
            expires: fields.expires
        )
    }

    @Test func theDocumentItsNameAndItsGrant() throws {
        #expect(document.bytes == Array(hexadecimal: answers.document))
        #expect(document.session == Array(hexadecimal: answers.session))
        #expect(try SessionDocument(parsing: document.bytes) == document)
        let key = try Curve25519.Signing.PublicKey(rawRepresentation: Data(hexadecimal: answers.signer))
        try SessionGrant.verify(Data(hexadecimal: answers.grant), of: document, by: key)
    }

    /// Every single bit counts, for the reader or for the name.
    @Test func everyByteOfTheDocumentCounts() throws {
        let key = try Curve25519.Signing.PublicKey(rawRepresentation: Data(hexadecimal: answers.signer))
        let bytes = document.bytes
        // All fields, and a thirteenth of the public key.
        for place in bytes.indices where place < 250 || place % 13 == 0 || place > bytes.count - 10 {
            var changed = bytes
            changed[place] ^= 1
            guard let other = try? SessionDocument(parsing: changed) else { continue }
            #expect(other.session != document.session)
            #expect(throws: SecureAggregationError.self) {
                try SessionGrant.verify(Data(hexadecimal: answers.grant), of: other, by: key)
            }
        }
        for count in stride(from: 0, to: bytes.count, by: 11) {
            #expect(throws: SecureAggregationError.self) { try SessionDocument(parsing: Array(bytes[..<count])) }
        }
        #expect(throws: SecureAggregationError.self) { try SessionDocument(parsing: bytes + [0]) }
    }

    @Test func masksOfEveryWidthAlsoFarBeyondFourBillionBlocks() throws {
        let stream = try MaskStream(seed: Data(hexadecimal: answers.clients[0].seed))
        func words<Word: RingWord>(_ type: Word.Type, _ mask: Answers.Mask) throws -> [String] {
            var words = [Word](repeating: 0, count: mask.words.count)
            try words.withUnsafeMutableBufferPointer { try stream.add(to: $0, first: mask.first) }
            return words.map { String($0) }
        }
        #expect(answers.masks.count == 15)
        for mask in answers.masks {
            switch mask.bits {
            case 16: #expect(try words(UInt16.self, mask) == mask.words)
            case 32: #expect(try words(UInt32.self, mask) == mask.words)
            default: #expect(try words(UInt64.self, mask) == mask.words)
            }
        }
    }

    /// A whole sum: Python masked and sealed, this opens, adds and takes off.
    @Test func aSumOfAnotherImplementationsUpdates() throws {
        let key = try SessionKey(stored: Data(hexadecimal: answers.secret))
        #expect(key.publicKey == document.publicKey)
        let list = try SeedList(
            answers.clients.map {
                .init(
                    pseudonym: Array(hexadecimal: $0.pseudonym),
                    sealed: try SealedSeed(Array(hexadecimal: $0.sealed))
                )
            }
        )
        #expect(list.bytes.count == 3 * 1200)
        let masks = try SeedList(parsing: list.bytes, of: document).masks(with: key, session: document.session)
        var helper: [UInt8] = []
        try MaskSum<UInt32>(masks, coordinateCount: Int(document.coordinateCount)).write(
            noise: { values, first in
                for index in values.indices { values[index] += answers.noise[first + index] }
            },
            to: { helper += $0 }
        )
        #expect(helper == answers.helper.flatMap { word in withUnsafeBytes(of: word.littleEndian, Array.init) })
        var sum = [UInt32](repeating: 0, count: answers.sum.count)
        for client in answers.clients {
            let stream = try MaskStream(seed: Data(hexadecimal: client.seed))
            let masked = try Masking.mask(client.contribution, as: UInt32.self, with: stream)
            #expect(masked == client.masked.flatMap { word in withUnsafeBytes(of: word.littleEndian, Array.init) })
            try masked.withUnsafeBytes { try Unmasking.add($0, to: &sum) }
        }
        #expect(try helper.withUnsafeBytes { try Unmasking.finish(sum, helper: $0) } == answers.sum)
    }
}

extension RangeReplaceableCollection where Element == UInt8 {
    /// Two digits a byte.
    init(hexadecimal text: String) {
        self.init()
        var rest = text[...]
        while let digits = rest.isEmpty ? nil : rest.prefix(2) {
            append(UInt8(digits, radix: 16) ?? 0)
            rest = rest.dropFirst(2)
        }
    }
}
