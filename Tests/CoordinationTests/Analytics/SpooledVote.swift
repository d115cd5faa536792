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

    static func grow(_ trie: PrefixTrie, level: Int, _ votes: [Self], threshold: Int) throws -> PrefixTrie {
        try TrieVotes.grow(trie, level: level, by: votes.map(\.update), threshold: threshold)
    }
}
