/// A trie of prefixes as the tensors of a model: what a TrieHH run publishes after each of its rounds.
///
/// Level `j` holds prefixes of `j` Unicode scalars, of which the last may be the end of the word. A node is a row of
/// `parents` and `scalars`, both of shape `[levels, nodeLimit]`: its parent's place in the level before (0 in level 1), or
/// -1 for a row that is free; and its scalar, 0 for the end. Nodes of a level are sorted, so that a trie has one form.
package struct PrefixTrie: Equatable, Sendable {
    package struct Node: Hashable, Comparable, Sendable {
        /// Place in the level before; 0 in the first level.
        package var parent: Int
        /// 0 ends the word.
        package var scalar: UInt32

        package init(parent: Int, scalar: UInt32) {
            self.parent = parent
            self.scalar = scalar
        }

        package static func < (left: Self, right: Self) -> Bool {
            (left.parent, left.scalar) < (right.parent, right.scalar)
        }
    }

    package let levelCount: Int
    package let nodeLimit: Int
    /// Shape `[levelCount][nodes]`.
    package private(set) var levels: [[Node]]

    /// A vote's tensors: the parent's place and the scalar, or -1 and 0 from a client without a vote.
    package static let voteLayout = ParameterLayout([.init(name: "vote", shape: [2])])

    /// The tensors of a trie.
    package static func layout(levelCount: Int, nodeLimit: Int) -> ParameterLayout {
        ParameterLayout(
            ["parents", "scalars"].map { .init(name: "trie." + $0, shape: [levelCount, nodeLimit]) }
        )
    }

    /// An empty trie.
    package init(levelCount: Int, nodeLimit: Int) {
        self.levelCount = levelCount
        self.nodeLimit = nodeLimit
        levels = Array(repeating: [], count: levelCount)
    }

    /// Reads a trie's tensors; `nil` if they are no trie in its one form.
    ///
    /// A device reads a server's trie: with a node twice, or out of order, votes of one prefix would name different places.
    package init?(_ vector: ParameterVector) {
        guard vector.layout.tensors.count == 2, let shape = vector.layout.tensors.first?.shape, shape.count == 2,
            vector.layout == Self.layout(levelCount: shape[0], nodeLimit: shape[1])
        else { return nil }
        self.init(levelCount: shape[0], nodeLimit: shape[1])
        let scalarOffset = vector.layout.offsets[1]
        for level in 0..<levelCount {
            var isFree = false
            for row in 0..<nodeLimit {
                let (parent, scalar) = (
                    vector.values[level * nodeLimit + row], vector.values[scalarOffset + level * nodeLimit + row]
                )
                if parent == -1 && scalar == 0 {
                    isFree = true
                    continue
                }
                guard !isFree, let node = Self.node(parent: parent, scalar: scalar),
                    isPossible(node, level: level + 1), levels[level].last.map({ $0 < node }) ?? true
                else { return nil }
                levels[level].append(node)
            }
        }
    }

    /// Two floats as a node; `nil` unless both are whole numbers and the scalar is 0 or a Unicode scalar from U+0020 on.
    package static func node(parent: Float, scalar: Float) -> Node? {
        guard parent >= 0, parent < 0x1p24, parent == parent.rounded(), scalar >= 0, scalar < 0x11_0000,
            scalar == scalar.rounded()
        else { return nil }
        let code = UInt32(scalar)
        guard code == 0 || (code >= 0x20 && Unicode.Scalar(code) != nil) else { return nil }
        return Node(parent: Int(parent), scalar: code)
    }

    /// Whether a node's parent is in the trie and does not end a word; levels count from 1.
    package func isPossible(_ node: Node, level: Int) -> Bool {
        guard level > 1 else { return node.parent == 0 && node.scalar != 0 }
        let before = levels[level - 2]
        return node.parent < before.count && before[node.parent].scalar != 0
    }

    /// Replaces the nodes of a level, sorted; nodes beyond ``nodeLimit`` are left out.
    package mutating func setLevel(_ level: Int, _ nodes: some Sequence<Node>) {
        levels[level - 1] = Array(nodes.sorted().prefix(nodeLimit))
    }

    /// The trie as tensors.
    package var vector: ParameterVector {
        var vector = ParameterVector(zeros: Self.layout(levelCount: levelCount, nodeLimit: nodeLimit))
        let scalarOffset = vector.layout.offsets[1]
        for index in 0..<scalarOffset { vector.values[index] = -1 }
        for (level, nodes) in levels.enumerated() {
            for (row, node) in nodes.enumerated() {
                vector.values[level * nodeLimit + row] = Float(node.parent)
                vector.values[scalarOffset + level * nodeLimit + row] = Float(node.scalar)
            }
        }
        return vector
    }

    /// The text of each node of a level, without the end.
    package func prefixes(level: Int) -> [String] {
        guard level > 0 else { return [""] }
        var texts = [""]
        for nodes in levels[..<level] {
            texts = nodes.map { node in
                var text = texts[node.parent]
                if let scalar = Unicode.Scalar(node.scalar), node.scalar != 0 { text.unicodeScalars.append(scalar) }
                return text
            }
        }
        return texts
    }

    /// The words that have ended, sorted by their scalars.
    package var words: [String] {
        (1...max(1, levelCount)).flatMap { level -> [String] in
            guard level <= levelCount else { return [] }
            return zip(levels[level - 1], prefixes(level: level)).filter { $0.0.scalar == 0 }.map(\.1)
        }
        .sorted { $0.unicodeScalars.lexicographicallyPrecedes($1.unicodeScalars) }
    }

    /// Prefixes of the last level that have not ended: beginnings of words that are longer than the trie.
    package var unfinished: [String] {
        guard levelCount > 0 else { return [] }
        return zip(levels[levelCount - 1], prefixes(level: levelCount)).filter { $0.0.scalar != 0 }.map(\.1)
    }
}
