import Crypto
import DifferentialPrivacy
import Foundation
import SecureAggregation
import Tensors
import Testing

/// Sums without a network: sessions, lists and arithmetic.
struct SumTests {
    /// A session of a key.
    private func document(
        _ key: SessionKey,
        width: RingWidth = .bits64,
        coordinates: UInt64 = 5,
        minimum: UInt32 = 2,
        maximum: UInt32 = 200
    ) -> SessionDocument {
        SessionDocument(
            purpose: .training,
            server: "s",
            domain: "d",
            run: "r",
            round: 1,
            attempt: 1,
            model: [UInt8](repeating: 1, count: 32),
            instructions: [UInt8](repeating: 2, count: 32),
            width: width,
            coordinateCount: coordinates,
            step: 0.5,
            coordinateBound: width == .bits16 ? 100 : 1000,
            norm: 1000,
            noiseDeviation: 0,
            measure: .l2,
            noise: .none,
            minimum: minimum,
            maximum: maximum,
            maxParticipations: 1,
            publicKey: key.publicKey,
            expires: 4_000_000_000
        )
    }

    private func entry(_ index: Int, _ document: SessionDocument) throws -> (entry: SeedList.Entry, seed: Data) {
        let seed = Data(SHA256.hash(data: Data("seed \(index)".utf8)))
        let pseudonym = Array(SHA256.hash(data: Data("pseudonym \(index)".utf8)))
        return (.init(pseudonym: pseudonym, sealed: try .seal(seed, for: document, pseudonym: pseudonym)), seed)
    }

    /// Random cohorts, some of which drop out before the list: the sum is that of the plain integers, to the bit.
    private func sums<Word: RingWord>(_ type: Word.Type, seed: UInt64, count: Int) throws {
        var generator = Xoshiro256StarStar(seed: seed)
        for _ in 0..<count {
            let members = Int(generator.next() % 7) + 1
            let coordinates = Int(generator.next() % 40) + 1
            let reach = Int64(Word.width.reach) / 16
            var masks: [MaskStream] = []
            var sum = [Word](repeating: 0, count: coordinates)
            var plain = [Int64](repeating: 0, count: coordinates)
            for _ in 0..<members {
                let stream = try MaskStream(seed: SymmetricKey(size: .bits256))
                let values = (0..<coordinates).map { _ in Int64(bitPattern: generator.next()) % reach }
                let masked = try Masking.mask(values, as: Word.self, with: stream)
                // A dropped client's update is uploaded, and named by nobody.
                guard generator.next() % 4 > 0 else { continue }
                masks.append(stream)
                try masked.withUnsafeBytes { try Unmasking.add($0, to: &sum) }
                for index in plain.indices { plain[index] += values[index] }
            }
            let noise = (0..<coordinates).map { _ in Int64(bitPattern: generator.next()) % max(1, reach / 4) }
            var helper: [UInt8] = []
            try MaskSum<Word>(masks, coordinateCount: coordinates).write(
                noise: { values, first in for index in values.indices { values[index] += noise[first + index] } },
                to: { helper += $0 }
            )
            #expect(helper.count == coordinates * MemoryLayout<Word>.size)
            let found = try helper.withUnsafeBytes { try Unmasking.finish(sum, helper: $0) }
            #expect(found == zip(plain, noise).map { $0 + $1 })
        }
    }

    @Test func randomCohortsAddUpToTheBit() throws {
        try sums(UInt16.self, seed: 16, count: 334)
        try sums(UInt32.self, seed: 32, count: 333)
        try sums(UInt64.self, seed: 64, count: 333)
    }

    /// Blocks, threads and the place in the stream do not matter.
    @Test func aLongSumIsTheSameAsItsParts() throws {
        let count = (1 << 19) + 77_777
        let streams = try (0..<3).map { index in try MaskStream(seed: Data(SHA256.hash(data: Data("\(index)".utf8)))) }
        var bytes: [UInt8] = []
        try MaskSum<UInt32>(streams, coordinateCount: count).write(noise: { _, _ in }, to: { bytes += $0 })
        #expect(bytes.count == count * 4)
        for first in [0, 65_535, 65_536, (1 << 19) - 1, count - 9] {
            var words = [UInt32](repeating: 0, count: 9)
            for stream in streams {
                try words.withUnsafeMutableBufferPointer { try stream.add(to: $0, first: UInt64(first)) }
            }
            let found = (0..<min(9, count - first)).map { index in
                bytes.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: (first + index) * 4, as: UInt32.self) }
            }
            #expect(found == Array(words.prefix(found.count)))
        }
    }

    /// χ² of the bytes of one-hot updates, 255 degrees of freedom; the seeds are fixed, so this passes or fails for good.
    @Test func maskedUpdatesLookUniformAndShareNothing() throws {
        var counts = [Double](repeating: 0, count: 256)
        var seen = Set<[UInt8]>()
        var values = [Int64](repeating: 0, count: 64)
        values[7] = 1
        for index in 0..<1000 {
            let stream = try MaskStream(seed: Data(SHA256.hash(data: Data("uniform \(index)".utf8))))
            let masked = try Masking.mask(values, as: UInt32.self, with: stream)
            for byte in masked { counts[Int(byte)] += 1 }
            seen.insert(masked)
        }
        #expect(seen.count == 1000)
        let expected = 1000.0 * 256 / 256
        let statistic = counts.reduce(0) { $0 + ($1 - expected) * ($1 - expected) / expected }
        // The 0.1 % and 99.9 % points.
        #expect((190...330).contains(statistic), "\(statistic)")
    }

    @Test func aSeedOpensForItsSessionPseudonymAndKeyOnly() throws {
        let key = try SessionKey()
        let document = document(key)
        let (entry, seed) = try entry(1, document)
        #expect(key.open(entry.sealed, session: document.session, pseudonym: entry.pseudonym) == seed)
        var other = document
        other.attempt = 2
        #expect(key.open(entry.sealed, session: other.session, pseudonym: entry.pseudonym) == nil)
        #expect(key.open(entry.sealed, session: document.session, pseudonym: Array(entry.pseudonym.reversed())) == nil)
        #expect(try SessionKey().open(entry.sealed, session: document.session, pseudonym: entry.pseudonym) == nil)
        for place in stride(from: 0, to: SealedSeed.byteCount, by: 97) {
            var bytes = entry.sealed.bytes
            bytes[place] ^= 0x40
            let changed = try SealedSeed(bytes)
            #expect(key.open(changed, session: document.session, pseudonym: entry.pseudonym) == nil)
        }
        // A key that was stored and read again is the same one.
        #expect(
            try SessionKey(stored: key.stored).open(entry.sealed, session: document.session, pseudonym: entry.pseudonym)
                == seed
        )
    }

    @Test func listsAreSortedWholeAndWithoutRepeats() throws {
        let key = try SessionKey()
        let document = document(key, maximum: 4)
        let entries = try (0..<5).map { try entry($0, document).entry }
        let list = try SeedList(Array(entries.prefix(4)))
        #expect(try SeedList(parsing: list.bytes, of: document) == list)
        func code(_ bytes: [UInt8]) -> SecureAggregationError.Code? {
            do throws(SecureAggregationError) {
                _ = try SeedList(parsing: bytes, of: document)
                return nil
            } catch {
                return error.code
            }
        }
        // A further field, be it a weight or a digest, is another length.
        #expect(code(list.bytes + [1]) == .invalidList)
        #expect(code(list.entries.flatMap { $0.pseudonym + $0.sealed.bytes + [0, 1] }) == .invalidList)
        #expect(code(Array(list.bytes.prefix(1200))) == .cohortTooSmall)
        #expect(code([]) == .cohortTooSmall)
        #expect(code(try SeedList(entries).bytes) == .cohortTooLarge)
        #expect(code(list.entries.reversed().flatMap { $0.pseudonym + $0.sealed.bytes }) == .invalidList)
        let twice = [list.entries[0], list.entries[0]].flatMap { $0.pseudonym + $0.sealed.bytes }
        #expect(code(twice) == .duplicatePseudonym)
        #expect(throws: SecureAggregationError.self) { try SeedList([entries[0], entries[1], entries[0]]) }
    }

    /// All seeds that do not open are named in one answer.
    @Test func seedsThatDoNotOpenAreNamedAtOnce() throws {
        let key = try SessionKey()
        let document = document(key)
        var list = try (0..<4).map { try entry($0, document).entry }.sorted {
            $0.pseudonym.lexicographicallyPrecedes($1.pseudonym)
        }
        for place in [1, 3] { list[place].sealed.bytes[1150] ^= 1 }
        let broken = try SeedList(list)
        let error = #expect(throws: SecureAggregationError.self) {
            try broken.masks(with: key, session: document.session)
        }
        #expect(error?.code == .seedsUnopened && error?.places == [1, 3])
    }

    /// The ring holds n_max contributions at ±B with noise, and not one more.
    @Test(arguments: [RingWidth.bits32, .bits64])
    func noAdmittedSumLeavesTheRing(_ width: RingWidth) throws {
        var document = document(try SessionKey(), width: width, maximum: 1000)
        document.noise = .gaussian
        document.noiseDeviation = IntegerGaussianSampler.standardDeviation
        document.norm = 12_585_643
        document.coordinateBound = SessionDocument.largestCoordinateBound(
            width: width,
            norm: document.norm,
            noise: document.noise,
            noiseDeviation: document.noiseDeviation,
            maximum: document.maximum
        )
        try document.validate()
        guard width == .bits32 else { return #expect(document.coordinateBound == document.norm) }
        // 0.16 of the bound at noise multiplier 1.
        #expect((0.16..<0.17).contains(Double(document.coordinateBound) / Double(document.norm)))
        document.maximum += 1
        #expect(throws: SecureAggregationError.self) { try document.validate() }
    }

    /// Laplace noise has longer tails: its margin is 25Σ*, so that it fails as seldom as 8Σ* of Gaussian noise.
    @Test func theMarginOfLaplaceNoiseIsWider() throws {
        let scale = 0x1p32
        var document = document(try SessionKey(), maximum: 1000)
        document.measure = .l1
        document.noise = .laplace
        document.noiseDeviation = 2.0.squareRoot() * scale
        document.norm = (1 << 62) - 1
        document.coordinateBound = SessionDocument.largestCoordinateBound(
            width: .bits64,
            norm: document.norm,
            noise: .laplace,
            noiseDeviation: document.noiseDeviation,
            maximum: 1000
        )
        try document.validate()
        let room = UInt64(1) << 63 - 1 - document.coordinateBound * 1000
        // The chance that a coordinate of Laplace noise of this scale is beyond the room.
        #expect(exp(-Double(room) / scale) <= 1.3e-15, "\(room)")
        document.coordinateBound += 1
        #expect(throws: SecureAggregationError.self) { try document.validate() }
    }

    /// The largest bound is one that a session admits, also where doubles cannot hold it.
    @Test(arguments: RingWidth.allCases, [1, 2, 3, 4, 1000, .max] as [UInt32])
    func theLargestCoordinateBoundIsAdmitted(_ width: RingWidth, _ maximum: UInt32) throws {
        var document = document(try SessionKey(), width: width, minimum: 1, maximum: maximum)
        document.norm = (1 << 62) - 1
        document.coordinateBound = SessionDocument.largestCoordinateBound(
            width: width,
            norm: document.norm,
            noise: .none,
            noiseDeviation: 0,
            maximum: maximum
        )
        guard document.coordinateBound > 0 else { return #expect(UInt64(maximum) > width.reach) }
        try document.validate()
        #expect(
            document.coordinateBound == document.norm
                || (document.coordinateBound + 1).multipliedReportingOverflow(by: UInt64(maximum)).partialValue
                    > width.reach
        )
    }

    /// A peer's bytes are summed only if there are as many words as coordinates.
    @Test func anotherNumberOfWordsIsRefused() throws {
        for count in [0, 4, 11, 13, 16] {
            let bytes = [UInt8](repeating: 1, count: count)
            var sum = [UInt32](repeating: 0, count: 3)
            let added = #expect(throws: SecureAggregationError.self) {
                try bytes.withUnsafeBytes { try Unmasking.add($0, to: &sum) }
            }
            let finished = #expect(throws: SecureAggregationError.self) {
                try bytes.withUnsafeBytes { try Unmasking.finish(sum, helper: $0) }
            }
            #expect(added?.code == .invalidWords && finished?.code == .invalidWords && sum == [0, 0, 0])
        }
    }

    /// Bounds are exact in integers whatever is contributed.
    @Test func contributionsKeepTheirBounds() throws {
        let grid = try NoiseGrid(clippingNorm: 1, noiseMultiplier: 1, parameterCount: 65)
        let encoder = ContributionEncoder(grid: grid, coordinateBound: 2_000_000)
        var generator = Xoshiro256StarStar(seed: 5)
        for scale in [1e-6, 0.1, 1, 10, 1e30] as [Float] {
            for _ in 0..<50 {
                let update = (0..<64).map { _ in (Float(generator.next() >> 40) / Float(1 << 23) - 1) * scale }
                let values = try encoder.encode([.init(update, share: 0.9), .init([0.5 * scale], share: 0.1)])
                let squares = values.reduce(UInt128(0)) { $0 + UInt128($1.magnitude) * UInt128($1.magnitude) }
                #expect(squares <= UInt128(grid.norm) * UInt128(grid.norm))
                #expect(values.count == 65 && values.allSatisfy { $0.magnitude <= 2_000_000 })
            }
        }
        #expect(throws: SecureAggregationError.self) { try encoder.encode([.init([.nan])]) }
        #expect(throws: SecureAggregationError.self) { try encoder.encode([.init([0]), .init([0], share: 0.01)]) }
    }

    /// In L1 shares are of K, not of its square: two halves fit, and fill the bound.
    @Test func blocksShareAnL1Bound() throws {
        let grid = try NoiseGrid(clippingNorm: 1, noiseMultiplier: 1, parameterCount: 3, distribution: .laplace)
        let encoder = ContributionEncoder(grid: grid, coordinateBound: grid.norm)
        let values = try encoder.encode([.init([5, -5], share: 0.5), .init([7], share: 0.5)])
        let sum = values.reduce(UInt64(0)) { $0 + UInt64($1.magnitude) }
        #expect(sum <= grid.norm && Double(sum) > 0.99 * Double(grid.norm))
        #expect(Double(values[2]) > 0.49 * Double(grid.norm))
    }

    /// A document's noise is one that the samplers make, of the deviation that it names; anything else is refused by name.
    @Test func documentsNameTheNoiseThatIsMade() throws {
        var document = document(try SessionKey(), coordinates: 4096)
        #expect(try SessionNoise(of: document) == .none)
        document.noise = .gaussian
        for (deviation, noise) in [
            (IntegerGaussianSampler.standardDeviation, SessionNoise.gaussian), (30, .discreteGaussian(deviation: 30)),
        ] {
            document.noiseDeviation = deviation
            let found = try SessionNoise(of: document)
            #expect(found == noise && found.multiplier(norm: 10) == deviation / 10)
            var values = [Int64](repeating: 0, count: 4096)
            try found.add(to: &values, first: 0, key: SymmetricKey(data: SHA256.hash(data: Data("noise".utf8))))
            let size = (values.reduce(0.0) { $0 + Double($1) * Double($1) } / 4096).squareRoot()
            // Eight of the estimate's own deviations; the key is fixed.
            #expect(abs(size / deviation - 1) < 0.09)
            // The place in the sum, not the block, decides.
            var second = [Int64](repeating: 0, count: 512)
            try found.add(to: &second, first: 512, key: SymmetricKey(data: SHA256.hash(data: Data("noise".utf8))))
            #expect(second == Array(values[512..<1024]))
        }
        for deviation in [0.5, 1001, IntegerGaussianSampler.standardDeviation.nextUp] {
            document.noiseDeviation = deviation
            let error = #expect(throws: SecureAggregationError.self) { try SessionNoise(of: document) }
            #expect(error?.code == .noiseUnknown)
        }
        document.noiseDeviation = 30
        document.coordinateCount = SessionNoise.exactCoordinateLimit + 1
        #expect(throws: SecureAggregationError.self) { try SessionNoise(of: document) }
    }
}
