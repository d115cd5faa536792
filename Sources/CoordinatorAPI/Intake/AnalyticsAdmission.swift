package import Coordination
import Tensors

/// Judges what clients of an analytics run send, beyond what holds for every update.
package enum AnalyticsAdmission {
    /// Checks counts and votes.
    ///
    /// - Throws: ``CoordinationError`` `invalid_counts` or `invalid_vote`.
    package static func check(_ path: String, _ answer: AnalyticsAnswer?) throws {
        switch answer {
        case nil, .noise: return
        case .counts(let limit):
            let file = try SafetensorsFile(path: path)
            var count = 0
            var block = [Float](repeating: 0, count: min(1 << 16, file.layout.parameterCount))
            for start in stride(from: 0, to: file.layout.parameterCount, by: block.count) {
                let range = start..<min(file.layout.parameterCount, start + block.count)
                try file.read(range, into: &block)
                for value in block.prefix(range.count) where value != 0 {
                    guard value == 1 else {
                        throw refusal("counts", "holds \(value); a client's count of a word is 0 or 1")
                    }
                    count += 1
                }
            }
            guard count <= limit else {
                throw refusal("counts", "names \(count) words, more than the run's words_per_client of \(limit)")
            }
        case .vote(let limit):
            let values = try SafetensorsFile(path: path).readAll().values
            guard values.count == 2 else { throw refusal("vote", "must have two numbers") }
            if values == [-1, 0] { return }
            guard let node = PrefixTrie.node(parent: values[0], scalar: values[1]), node.parent < limit else {
                throw refusal(
                    "vote",
                    "must be a prefix's place, from 0 to \(limit - 1), and a Unicode scalar or 0 for the word's end; "
                        + "-1 and 0 where the client has no such word"
                )
            }
        }
    }

    private static func refusal(_ tensor: String, _ detail: String) -> CoordinationError {
        CoordinationError(.unprocessable, "invalid_\(tensor)", "tensor '\(tensor)' \(detail)")
    }
}
