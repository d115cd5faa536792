package import Tensors

/// The votes of one TrieHH round: which prefixes grow the trie.
///
/// What is published is the set of prefixes with `threshold` votes or more, never a number of votes. One client's vote
/// changes whether one prefix is in the set, and is counted with probability q only. With q = (1 - e^(-ε₁))/θ and independent
/// draws of the clients that is (ε₁, 1/θ!)-differentially private for adding or removing a client: let c others vote for
/// the prefix and X ~ Bin(c, q) of them be drawn. Then `Pr[in with] - Pr[in without] = q Pr[X = θ-1]`, and
/// `q Pr[X = θ-1] / Pr[X = θ] = θ (1-q) / (c-θ+1)`, so the ratio is at most e^(ε₁) where `c - θ + 1 ≥ θ (1-q)/(e^(ε₁) - 1)`. For
/// smaller c, `c + 1 ≤ 1/q`, and the prefix gets in with probability `C(c+1, θ) q^θ ≤ 1/θ!` at most. "Not in" changes by a
/// factor of at most `1/(1-q) ≤ e^(ε₁)`. Other prefixes depend on other clients' coins. What breaks it: a draw that anyone
/// but the server's operators sees, replacing clients that were drawn and did not come, publishing counts.
///
/// Source: Zhu, Kairouz, McMahan, Sun, Li 2020, arXiv:1902.08534, Theorem 1, for a sample of fixed size; its
/// δ = (θ-2)/((θ-3) θ!) is a little more than what is needed here, and is what is charged, once for each round.
package enum TrieVotes {
    /// Adds a level to a trie.
    ///
    /// - Parameters:
    ///   - trie: With all levels before `level`.
    ///   - level: From 1.
    ///   - updates: Files with `PrefixTrie.voteLayout`; what names no possible node is no vote.
    ///   - threshold: Votes that a prefix needs.
    /// - Returns: The trie with the level.
    /// - Throws: ``AggregationError`` for a file that cannot be read.
    package static func grow(
        _ trie: PrefixTrie,
        level: Int,
        by updates: [SpooledUpdate],
        threshold: Int
    ) throws(AggregationError) -> PrefixTrie {
        var votes: [PrefixTrie.Node: Int] = [:]
        var values: [Float] = [0, 0]
        for update in updates {
            do throws(SafetensorsError) {
                let file = try SafetensorsFile(path: update.path)
                guard file.layout == PrefixTrie.voteLayout else { continue }
                try file.read(0..<2, into: &values)
            } catch {
                throw .unreadable(path: update.path, reason: "\(error)")
            }
            guard let node = PrefixTrie.node(parent: values[0], scalar: values[1]),
                trie.isPossible(node, level: level)
            else { continue }
            votes[node, default: 0] += 1
        }
        var grown = trie
        grown.setLevel(level, votes.filter { $0.value >= threshold }.keys)
        return grown
    }
}
