import Tensors

/// Finds records that are nearly the same, by MinHash of their shingles and locality-sensitive hashing.
///
/// There are 128 permutations in 16 bands of 8 rows. A pair of similarity 0.8 is found with probability 0.95, one of 0.5 with 0.06.
/// A pair that was found counts as near if the estimate from all 128 is 0.8 or more. Source: Broder 1997; Leskovec et al., Mining of
/// Massive Datasets, section 3.4.
package struct NearDuplicates {
    /// The most records of one pass; each needs 512 bytes.
    package static let passLimit = 50_000
    private static let permutationCount = 128
    private static let bandCount = 16
    private static let prime: UInt64 = (1 << 61) - 1
    private static let threshold = 0.8

    private static let coefficients: [(a: UInt64, b: UInt64)] = {
        var generator = Xoshiro256StarStar(seed: 0x6D61_7274_6C65_7401)
        return (0..<permutationCount).map { _ in
            (1 + generator.next() % (prime - 1), generator.next() % prime)
        }
    }()

    private var signatures: [[UInt32]] = []
    private var buckets: [UInt64: [Int]] = [:]

    package init() {}

    /// Adds a record.
    ///
    /// - Returns: Whether it was added; `false` if it is nearly the same as an earlier one.
    package mutating func insert(_ text: String) -> Bool {
        let signature = Self.signature(text)
        let keys = (0..<Self.bandCount).map { Self.bandKey(signature, $0) }
        for key in keys {
            for other in buckets[key] ?? [] where Self.similarity(signature, signatures[other]) >= Self.threshold {
                return false
            }
        }
        for key in keys { buckets[key, default: []].append(signatures.count) }
        signatures.append(signature)
        return true
    }

    /// The smallest hash of the text's shingles under each permutation.
    package static func signature(_ text: String) -> [UInt32] {
        let hashes = Set(shingles(of: text).map(hash))
        var signature = [UInt32](repeating: .max, count: permutationCount)
        for hash in hashes {
            let x = hash % prime
            for index in 0..<permutationCount {
                let (a, b) = coefficients[index]
                signature[index] = min(signature[index], UInt32(truncatingIfNeeded: multiplyAdd(a, x, b)))
            }
        }
        return signature
    }

    /// The estimated Jaccard similarity of two texts' shingles.
    package static func similarity(_ left: [UInt32], _ right: [UInt32]) -> Double {
        Double(zip(left, right).reduce(0) { $0 + ($1.0 == $1.1 ? 1 : 0) }) / Double(permutationCount)
    }

    /// The shingles of a text: three words each, or five characters in scripts without spaces.
    ///
    /// A shorter text is one shingle.
    package static func shingles(of text: String) -> [String] {
        if TextProfile(text).isUnspaced {
            let characters = Array(text.unicodeScalars).filter(TextProfile.isWordPart)
            guard characters.count > 5 else { return [String(String.UnicodeScalarView(characters))] }
            return (0...(characters.count - 5)).map {
                String(String.UnicodeScalarView(characters[$0..<($0 + 5)]))
            }
        }
        let words = WordTokenizer.tokens(of: text).filter { $0.unicodeScalars.contains(where: TextProfile.isWordPart) }
        guard words.count > 3 else { return [words.joined(separator: " ")] }
        return (0...(words.count - 3)).map { words[$0..<($0 + 3)].joined(separator: " ") }
    }

    // MARK: -

    /// FNV-1a, mixed once more.
    private static func hash(_ text: String) -> UInt64 {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in text.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
        var mixer = SplitMix64(state: hash)
        return mixer.next()
    }

    /// `(a x + b) mod (2^61 - 1)`.
    private static func multiplyAdd(_ a: UInt64, _ x: UInt64, _ b: UInt64) -> UInt64 {
        let (high, low) = a.multipliedFullWidth(by: x)
        var sum = (low & prime) + (low >> 61 | high << 3) + b
        sum = (sum & prime) + (sum >> 61)
        return sum >= prime ? sum - prime : sum
    }

    private static func bandKey(_ signature: [UInt32], _ band: Int) -> UInt64 {
        var key = UInt64(band) &* 0x9E37_79B9_7F4A_7C15
        let rows = permutationCount / bandCount
        for value in signature[(band * rows)..<((band + 1) * rows)] {
            key = (key ^ UInt64(value)) &* 0x100_0000_01B3
            key ^= key >> 29
        }
        return key
    }
}
