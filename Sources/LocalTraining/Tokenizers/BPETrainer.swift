/// Learns byte pairs from counted pieces of text: of public text, or from counts that were released under differential privacy.
public struct BPETrainer {
    private var counts: [[UInt8]: Int] = [:]

    /// Creates a trainer without text.
    public init() {}

    /// Counts the pieces of a text, `count` times each.
    public mutating func add(_ text: String, count: Int = 1) {
        for piece in GPT2PreTokenizer.pieces(of: text) { counts[piece, default: 0] += count }
    }

    /// Merges the most frequent pair inside pieces until the vocabulary is full; among equals the smallest pair of byte strings.
    ///
    /// - Parameter vocabularySize: V, with the four specials and 256 bytes.
    /// - Returns: A tokeniser with the ids of four specials, the bytes 0 to 255, then merges by rank. It has fewer than V tokens if no more
    ///   pairs occur twice.
    public func train(vocabularySize: Int) -> ByteLevelBPE {
        var tokens: [[UInt8]] = [[], [], [], []] + (0...255).map { [UInt8($0)] }
        var merges: [ByteLevelBPE.Merge] = []
        let pieces = counts.filter { $0.key.count > 1 }.sorted { $0.key.lexicographicallyPrecedes($1.key) }
        var words = pieces.map { $0.key.map { Int($0) + 4 } }
        let weights = pieces.map(\.value)
        var pairCounts: [Pair: Int] = [:]
        var places: [Pair: Set<Int>] = [:]
        for (index, word) in words.enumerated() {
            for pair in zip(word, word.dropFirst()).map(Pair.init) {
                pairCounts[pair, default: 0] += weights[index]
                places[pair, default: []].insert(index)
            }
        }
        var heap = Heap(pairCounts.map { ($0.key, $0.value) }, tokens: tokens)
        while tokens.count < vocabularySize, let (pair, count) = heap.popFirst(tokens: tokens) {
            let current = pairCounts[pair] ?? 0
            guard current == count else {
                if current > 1 { heap.insert(pair, current, tokens: tokens) }
                continue
            }
            guard count > 1 else { break }
            let result = tokens.count
            tokens.append(tokens[pair.left] + tokens[pair.right])
            merges.append(.init(left: pair.left, right: pair.right, result: result))
            var changed: Set<Pair> = []
            for index in places[pair] ?? [] {
                let old = words[index]
                let new = Self.replacing(pair, by: result, in: old)
                for former in zip(old, old.dropFirst()).map(Pair.init) {
                    pairCounts[former, default: 0] -= weights[index]
                }
                for later in zip(new, new.dropFirst()).map(Pair.init) {
                    pairCounts[later, default: 0] += weights[index]
                    places[later, default: []].insert(index)
                    if later.left == result || later.right == result { changed.insert(later) }
                }
                words[index] = new
            }
            pairCounts[pair] = nil
            places[pair] = nil
            for pair in changed { heap.insert(pair, pairCounts[pair] ?? 0, tokens: tokens) }
        }
        return ByteLevelBPE(
            tokens: tokens,
            merges: merges,
            added: SpecialTokens.names.enumerated().map { .init(id: $0, content: $1, isSpecial: true) },
            specials: .init(pad: 0, unknown: nil, begin: 2, end: 3, ordinary: 4..<tokens.count)
        )
    }

    private struct Pair: Hashable {
        var left: Int
        var right: Int
        init(_ pair: (Int, Int)) { (left, right) = pair }
    }

    private static func replacing(_ pair: Pair, by result: Int, in word: [Int]) -> [Int] {
        var new: [Int] = []
        var index = 0
        while index < word.count {
            if index + 1 < word.count && word[index] == pair.left && word[index + 1] == pair.right {
                new.append(result)
                index += 2
            } else {
                new.append(word[index])
                index += 1
            }
        }
        return new
    }

    /// A heap with the most frequent pair on top.
    ///
    /// Entries may be stale, and the caller checks them.
    private struct Heap {
        private var entries: [(pair: Pair, count: Int)]

        init(_ entries: [(Pair, Int)], tokens: [[UInt8]]) {
            self.entries = []
            for (pair, count) in entries where count > 1 { insert(pair, count, tokens: tokens) }
        }

        mutating func insert(_ pair: Pair, _ count: Int, tokens: [[UInt8]]) {
            entries.append((pair, count))
            var child = entries.count - 1
            while child > 0, precedes(entries[child], entries[(child - 1) / 2], tokens) {
                entries.swapAt(child, (child - 1) / 2)
                child = (child - 1) / 2
            }
        }

        mutating func popFirst(tokens: [[UInt8]]) -> (Pair, Int)? {
            guard let first = entries.first else { return nil }
            entries.swapAt(0, entries.count - 1)
            entries.removeLast()
            var parent = 0
            while true {
                var best = parent
                for child in [2 * parent + 1, 2 * parent + 2]
                where child < entries.count && precedes(entries[child], entries[best], tokens) {
                    best = child
                }
                guard best != parent else { break }
                entries.swapAt(parent, best)
                parent = best
            }
            return (first.pair, first.count)
        }

        private func precedes(_ a: (pair: Pair, count: Int), _ b: (pair: Pair, count: Int), _ tokens: [[UInt8]]) -> Bool
        {
            if a.count != b.count { return a.count > b.count }
            if tokens[a.pair.left] != tokens[b.pair.left] {
                return tokens[a.pair.left].lexicographicallyPrecedes(tokens[b.pair.left])
            }
            return tokens[a.pair.right].lexicographicallyPrecedes(tokens[b.pair.right])
        }
    }
}
