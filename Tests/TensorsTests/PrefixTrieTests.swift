import Tensors
import Testing

struct PrefixTrieTests {
    /// "to", "tea", and the beginning "ted".
    private var trie: PrefixTrie {
        var trie = PrefixTrie(levelCount: 4, nodeLimit: 3)
        func code(_ text: Unicode.Scalar) -> UInt32 { text.value }
        trie.setLevel(1, [.init(parent: 0, scalar: code("t"))])
        trie.setLevel(2, [.init(parent: 0, scalar: code("o")), .init(parent: 0, scalar: code("e"))])
        trie.setLevel(
            3,
            [
                .init(parent: 1, scalar: 0), .init(parent: 0, scalar: code("d")), .init(parent: 0, scalar: code("a")),
            ]
        )
        trie.setLevel(4, [.init(parent: 0, scalar: 0), .init(parent: 1, scalar: code("d"))])
        return trie
    }

    @Test func wordsAreReadAlongTheirParents() {
        #expect(trie.words == ["tea", "to"] && trie.unfinished == ["tedd"])
        #expect(trie.prefixes(level: 3) == ["tea", "ted", "to"] && trie.prefixes(level: 0) == [""])
    }

    @Test func tensorsAndTrieAreOneAndTheSame() throws {
        let vector = trie.vector
        #expect(vector.layout == PrefixTrie.layout(levelCount: 4, nodeLimit: 3))
        #expect(try #require(PrefixTrie(vector)) == trie)
        #expect(PrefixTrie(PrefixTrie(levelCount: 2, nodeLimit: 2).vector)?.words == [])
    }

    @Test func whatIsNoTrieIsNotReadAsOne() {
        #expect(PrefixTrie(ParameterVector(zeros: .init([.init(name: "w", shape: [2, 3])]))) == nil)
        // Parents are the first 12 values, scalars the others; row 2 of the third level ends a word.
        let broken: [(Int, Float)] = [
            (0, 5), (0, .nan), (0, 0.5), (3, 7), (6, 2), (9, 2), (12, 0xD800), (12, 9), (12, 1.5), (12, 0),
        ]
        for (index, value) in broken {
            var vector = trie.vector
            vector.values[index] = value
            #expect(PrefixTrie(vector) == nil, "\(index) \(value)")
        }
    }

    /// A trie has one form: nodes sorted and distinct, free rows behind them and empty.
    @Test func anotherFormOfATrieIsNotRead() {
        let third = (parents: 6, scalars: 18)
        let d = Float(UnicodeScalar("d").value)
        let forms: [(String, [(Int, Float)])] = [
            ("a node twice", [(third.scalars, d)]),
            ("two nodes exchanged", [(third.scalars, d), (third.scalars + 1, Float(UnicodeScalar("a").value))]),
            ("a free row between nodes", [(third.parents + 1, -1), (third.scalars + 1, 0)]),
            ("a scalar in a free row", [(13, 0x61)]),
        ]
        for (name, changes) in forms {
            var vector = trie.vector
            for (index, value) in changes { vector.values[index] = value }
            #expect(PrefixTrie(vector) == nil, "\(name)")
        }
    }

    @Test func aLevelKeepsWhatTheTensorsHold() {
        var small = PrefixTrie(levelCount: 1, nodeLimit: 2)
        small.setLevel(1, (0x61...0x65).map { .init(parent: 0, scalar: $0) })
        #expect(small.levels[0].map(\.scalar) == [0x61, 0x62])
    }
}
