import Aggregation
import Foundation
import Tensors

/// A vote as intake leaves it.
struct SpooledVote {
    private let update: SpooledUpdate

    init(_ vote: ParameterVector, _ path: String) throws {
        try SafetensorsWriter.encode(vote).write(to: URL(fileURLWithPath: path))
        update = SpooledUpdate(path: path, weight: 1)
    }

    static func count(_ trie: PrefixTrie, level: Int, _ votes: [Self]) throws -> [PrefixTrie.Node: Int] {
        try TrieVotes.count(votes.map(\.update), level: level, in: trie)
    }
}
