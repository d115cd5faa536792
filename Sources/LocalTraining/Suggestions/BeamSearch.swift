/// Finds likely words of several tokens with a beam of 8 and at most 12 tokens.
///
/// A word's probability is a sum over the ways to write it: for each the product of its tokens' probabilities and of the word's end.
struct BeamSearch {
    static let width = 8
    static let lengthLimit = 12
    /// How much less likely than the best token a token may be to be followed, in nats.
    private static let band: Float = 14

    private struct Beam {
        var context: LanguageContext<Float>
        var scores: [Float]
        /// The bytes written so far, with a leading space if there is one.
        var bytes: [UInt8]
        var logProbability: Double
    }

    private let network: any LanguageNetwork<Float>
    private let forms: TokenForms
    /// The bytes that the word must begin with.
    private let forced: [UInt8]

    init(network: any LanguageNetwork<Float>, forms: TokenForms, forced: [UInt8]) {
        self.network = network
        self.forms = forms
        self.forced = forced
    }

    mutating func words(from context: LanguageContext<Float>, scores: [Float]) -> [String: Double] {
        var beams = [Beam(context: context, scores: scores, bytes: [], logProbability: 0)]
        var words: [String: Double] = [:]
        for _ in 0..<Self.lengthLimit {
            var grown: [(beam: Int, id: Int, logProbability: Double)] = []
            for (index, beam) in beams.enumerated() { expand(beam, index, &grown, &words) }
            guard !grown.isEmpty else { break }
            grown.sort { ($1.logProbability, $0.id) < ($0.logProbability, $1.id) }
            beams = grown.prefix(Self.width).map { step in
                var beam = beams[step.beam]
                beam.scores = network.advance(&beam.context, by: step.id)
                beam.bytes += forms.bytes[step.id]
                beam.logProbability = step.logProbability
                return beam
            }
        }
        return words
    }

    /// Expands one beam by tokens that end its word, that are a word themselves, and that continue it.
    private func expand(
        _ beam: Beam,
        _ index: Int,
        _ grown: inout [(beam: Int, id: Int, logProbability: Double)],
        _ words: inout [String: Double]
    ) {
        let logSum = Suggester.logSum(beam.scores)
        let word = beam.bytes.starts(with: forced) ? Self.word(beam.bytes) : nil
        let isBegun = !beam.bytes.allSatisfy { $0 == 0x20 }
        let least = (beam.scores.max() ?? 0) - Self.band
        var endings = 0.0
        for id in beam.scores.indices {
            let total = beam.logProbability + Double(beam.scores[id]) - logSum
            switch forms.roles[id] {
            case .none: continue
            case .ending: endings += Double.exponential(total)
            case .opening, .whole:
                if isBegun {
                    endings += Double.exponential(total)
                } else if allows(beam.bytes, forms.bytes[id]) {
                    if forms.roles[id] == .opening {
                        if beam.scores[id] >= least { grown.append((index, id, total)) }
                    } else if (beam.bytes + forms.bytes[id]).starts(with: forced),
                        let whole = Self.word(beam.bytes + forms.bytes[id])
                    {
                        words[whole, default: 0] += Double.exponential(total)
                    }
                }
            case .inner:
                guard allows(beam.bytes, forms.bytes[id]) else { continue }
                if beam.scores[id] >= least || beam.bytes.count < forced.count { grown.append((index, id, total)) }
            }
        }
        if isBegun, let word { words[word, default: 0] += endings }
        // In some vocabularies the leading space is a token of its own.
        if beam.bytes.isEmpty, forced.first == 0x20 {
            for id in beam.scores.indices where forms.bytes[id] == [0x20] {
                grown.append((index, id, beam.logProbability + Double(beam.scores[id]) - logSum))
            }
        }
    }

    private func allows(_ written: [UInt8], _ next: [UInt8]) -> Bool {
        guard written.count < forced.count else { return true }
        return zip(forced[written.count...], next).allSatisfy { $0 == $1 }
    }

    /// The word that the bytes write; `nil` if they are not whole characters.
    private static func word(_ bytes: [UInt8]) -> String? {
        let text = String(decoding: bytes.drop { $0 == 0x20 }, as: UTF8.self)
        guard !text.isEmpty, !text.unicodeScalars.contains("\u{FFFD}") else { return nil }
        return text.unicodeScalars.contains(where: TextProfile.isLetter) ? text : nil
    }
}
