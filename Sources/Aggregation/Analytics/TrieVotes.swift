package import Tensors

/// The votes of one level of a trie: what they add up to, and what the level becomes.
///
/// Between the two lies what makes the release private, and is not known here: ``count(_:level:in:)`` gives exact numbers, of which
/// nothing may be published or decided, and ``grow(_:level:by:)`` takes noised ones. Whoever has counts of all children of public
/// prefixes from elsewhere, such as a helper that adds up masked votes, gives those.
package enum TrieVotes {
    /// Adds up votes.
    ///
    /// - Parameters:
    ///   - updates: Files with `PrefixTrie.voteLayout`, one a client; what names no possible node is no vote.
    ///   - level: From 1.
    ///   - trie: With all levels before `level`.
    /// - Returns: Votes of each node that has any.
    /// - Throws: ``AggregationError`` for a file that cannot be read.
    package static func count(
        _ updates: [SpooledUpdate],
        level: Int,
        in trie: PrefixTrie
    ) throws(AggregationError) -> [PrefixTrie.Node: Int] {
        var votes: [PrefixTrie.Node: Int] = [:]
        var values: [Float] = [0, 0]
        for update in updates {
            do throws(SafetensorsError) {
                let file = try SafetensorsFile(path: update.path)
                guard file.layout == PrefixTrie.voteLayout else { continue }
                try file.read(0..<2, into: &values)
            } catch {
                throw .init(reading: update.path, error)
            }
            guard let node = PrefixTrie.node(parent: values[0], scalar: values[1]),
                trie.isPossible(node, level: level)
            else { continue }
            votes[node, default: 0] += 1
        }
        return votes
    }

    /// Adds a level to a trie.
    ///
    /// - Parameters:
    ///   - trie: With all levels before `level`.
    ///   - level: From 1.
    ///   - published: Nodes that are published, with noised counts in any unit: where there are more than the trie has room for, the
    ///     largest are kept, and of equals the first in the public order of nodes.
    /// - Returns: The trie with the level.
    package static func grow(
        _ trie: PrefixTrie,
        level: Int,
        by published: [(node: PrefixTrie.Node, noisedCount: Int64)]
    ) -> PrefixTrie {
        var grown = trie
        let kept = published.filter { trie.isPossible($0.node, level: level) }
            .sorted { ($1.noisedCount, $0.node) < ($0.noisedCount, $1.node) }
        grown.setLevel(level, kept.prefix(trie.nodeLimit).map(\.node))
        return grown
    }
}
