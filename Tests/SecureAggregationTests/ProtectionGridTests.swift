import Crypto
import DifferentialPrivacy
import Foundation
import SecureAggregation
import Tensors
import Testing

/// The numbers that follow from a run's terms, and the file of a masked update.
struct ProtectionGridTests {
    private func gaussian(
        _ z: Double = 1,
        bits: RingWidth = .bits64,
        count: Int = 100,
        maximum: UInt32 = 1000,
        scale: Int? = nil
    ) throws -> ProtectionGrid {
        try ProtectionGrid(
            .gaussian(clippingNorm: 2, noiseMultiplier: z, scale: scale),
            width: bits,
            coordinateCount: count,
            maximum: maximum
        )
    }

    /// The unprotected run's grid, and B of the specification: 0.16·C for a thousand clients in 32 bits.
    @Test func theGridIsThatOfAnUnprotectedRun() throws {
        let plain = try NoiseGrid(clippingNorm: 2, noiseMultiplier: 1, parameterCount: 100)
        let (wide, narrow) = (try gaussian(), try gaussian(bits: .bits32))
        #expect(wide.step == plain.step && wide.norm == plain.norm && wide.coordinateBound == plain.norm)
        #expect(narrow.norm == plain.norm && narrow.noiseMultiplier >= 1)
        #expect((0.16...0.17).contains(narrow.largestValue / 2), "\(narrow.largestValue)")
        #expect(throws: SecureAggregationError.self) { try gaussian(bits: .bits32, maximum: 4_000_000_000) }
        #expect(throws: SecureAggregationError.self) { try gaussian(bits: .bits16) }
        #expect(throws: SecureAggregationError.self) { try gaussian(0.01) }
        let coarse = try gaussian(scale: 1000)
        #expect(coarse.norm == 1000 && coarse.noiseDeviation == 1000)
    }

    @Test(arguments: RingWidth.allCases)
    func withoutNoiseNoUpdateIsOverItsBounds(width: RingWidth) throws {
        for (count, maximum) in [(1, UInt32(1)), (7, 100), (1_400_000, 300)] {
            let grid = try ProtectionGrid(
                .plain(valueBound: 64, norm: nil),
                width: width,
                coordinateCount: count,
                maximum: maximum
            )
            #expect(grid.coordinateBound <= grid.norm && grid.norm < 1 << 53 && grid.noiseDeviation == 0)
            #expect(UInt128(grid.coordinateBound) * UInt128(maximum) <= UInt128(width.reach))
            #expect(grid.largestValue.isApproximately(64))
            guard count < 100 else { continue }
            let extreme = try grid.encode((0..<count).map { $0 % 2 == 0 ? 1e9 : -64 })
            #expect(extreme.allSatisfy { $0.magnitude == grid.coordinateBound })
        }
        let bounded = try ProtectionGrid(
            .plain(valueBound: 64, norm: 1000),
            width: .bits64,
            coordinateCount: 50,
            maximum: 10
        )
        #expect(bounded.norm == 1000 && bounded.coordinateBound == 1000)
        let measure = try bounded.encode([Float](repeating: 60, count: 50)).reduce(0) { $0 + $1 * $1 }
        #expect(measure <= 1_000_000 && measure > 900_000)
        for value in [Float.nan, .infinity] {
            #expect(throws: SecureAggregationError.self) {
                try bounded.encode([value] + [Float](repeating: 0, count: 49))
            }
        }
    }

    /// A device that copies nothing finds every field that was changed.
    @Test func everyChangedFieldIsNamed() throws {
        let grid = try gaussian()
        let document = try document(grid)
        #expect(grid.differences(in: document).isEmpty)
        let changes: [(inout SessionDocument) -> Void] = [
            { $0.width = .bits32 }, { $0.coordinateCount += 1 }, { $0.maximum -= 1 }, { $0.step = $0.step.nextUp },
            { $0.coordinateBound -= 1 }, { $0.norm += 1 }, { $0.noiseDeviation = $0.noiseDeviation.nextDown },
            { $0.measure = .l1 }, { $0.noise = .laplace },
        ]
        for change in changes {
            var other = document
            change(&other)
            #expect(grid.differences(in: other).count == 1)
        }
    }

    private func document(_ grid: ProtectionGrid) throws -> SessionDocument {
        SessionDocument(
            purpose: .training,
            server: "s",
            domain: "d",
            run: "r",
            round: 1,
            attempt: 1,
            model: [UInt8](repeating: 1, count: 32),
            instructions: [UInt8](repeating: 2, count: 32),
            width: grid.width,
            coordinateCount: UInt64(grid.coordinateCount),
            step: grid.step,
            coordinateBound: grid.coordinateBound,
            norm: grid.norm,
            noiseDeviation: grid.noiseDeviation,
            measure: grid.measure,
            noise: grid.noise,
            minimum: 1,
            maximum: grid.maximum,
            maxParticipations: 1,
            publicKey: try SessionKey().publicKey,
            expires: 4_000_000_000
        )
    }

    @Test(arguments: RingWidth.allCases)
    func theFileIsSafetensorsBehindTheListEntry(width: RingWidth) throws {
        let document = try document(
            ProtectionGrid(.plain(valueBound: 1, norm: nil), width: width, coordinateCount: 13, maximum: 9)
        )
        try document.validate()
        let file = try MaskedUpdateFile(of: document)
        let pseudonym = [UInt8](repeating: 7, count: 32)
        let entry = SeedList.Entry(
            pseudonym: pseudonym,
            sealed: try .seal(Data(repeating: 3, count: 32), for: document, pseudonym: pseudonym)
        )
        let words = (0..<file.wordByteCount).map { UInt8($0 % 251) }
        let bytes = try file.bytes(entry, words: words)
        let list = try SeedList([entry])
        #expect(bytes.count == file.byteCount && Array(bytes.prefix(1200)) == list.bytes)
        #expect(Array(bytes.suffix(words.count)) == words)
        let prefix = Array(bytes.prefix(file.wordOffset))
        #expect(try file.entry(prefix: prefix, fileByteCount: bytes.count) == entry)
        // The other library's reader agrees about the header.
        let length = prefix[1200..<1208].reversed().reduce(0) { $0 << 8 | Int($1) }
        let json = String(decoding: prefix[1208..<1208 + length], as: UTF8.self)
        #expect(json.contains(#""dtype":"U\#(width.rawValue)","shape":[13],"data_offsets":[0,\#(words.count)]"#))
        #expect(length % 8 == 0 && 1208 + length == file.wordOffset)
        // Every other byte of the header, and every other length, is refused.
        for place in 1200..<file.wordOffset {
            var changed = prefix
            changed[place] ^= 1
            #expect(throws: SecureAggregationError.self) {
                try file.entry(prefix: changed, fileByteCount: bytes.count)
            }
        }
        for count in [0, bytes.count - 1, bytes.count + 1] {
            #expect(throws: SecureAggregationError.self) { try file.entry(prefix: prefix, fileByteCount: count) }
        }
        #expect(throws: SecureAggregationError.self) { try file.bytes(entry, words: words.dropLast()) }
    }
}

extension Double {
    fileprivate func isApproximately(_ other: Double) -> Bool { (self - other).magnitude <= 1e-12 * other.magnitude }
}
