package import Tensors

/// Counts the votes for one level of a trie, and grows the trie by that level.
///
/// The caller makes the counts private in between. Nothing may be published or decided by the exact numbers of ``count(_:level:in:)``, and
/// ``grow(_:level:by:)`` takes noised ones. A helper that adds up masked votes can give noised counts without ``count(_:level:in:)``.
package enum TrieVotes {
    /// Adds up votes.
    ///
    /// - Parameters:
    ///   - updates: Files with `PrefixTrie.voteLayout`, one of each client. A file with another layout, or that names no possible node, is
    ///     no vote.
    ///   - level: The level that is voted for, from 1.
    ///   - trie: The trie with all levels before `level`.
    /// - Returns: The number of votes of each node that has any.
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
    ///   - trie: The trie with all levels before `level`.
    ///   - level: The new level, from 1.
    ///   - published: The nodes that are published, with noised counts in any unit. If they are more than the trie has room for, those
    ///     with the largest counts are kept, and among equal counts the first in the order of nodes.
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
