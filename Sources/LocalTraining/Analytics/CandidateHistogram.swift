import StrictJSON
package import Tensors

/// `histogram`: how many clients hold each word of a list, as a run of kind `analytics`.
///
/// The model is the counts, which begin with zeros. A client's update has a one for each candidate among its words, for at most
/// k = `words_per_client` of them: those that it uses most, and a shuffle of its own decides ties. The update's L2 norm is at most √k,
/// and the noise is calibrated to that.
package struct CandidateHistogram: ModelArchitecture {
    package static let name = "histogram"
    /// The word of each count.
    package let candidates: [String]
    package let wordsPerClient: Int
    private let unit: ClientWords.Unit

    package init(_ description: ModelDescription) throws {
        self = try description.read { Self(reading: $0) }
    }

    private init(reading fields: FieldReader) {
        wordsPerClient = fields.integer("words_per_client", default: 20, in: 1...100_000)
        let unit = fields.choice("tokens", default: ClientWords.Unit.word)
        self.unit = unit
        guard fields.has("tokenizer") else {
            candidates = []
            fields.report("tokenizer", "is required: {type: word, vocabulary: [the candidates]}")
            return
        }
        candidates = fields.object("tokenizer") { tokenizer in
            _ = tokenizer.choice("type", of: ["word"])
            let candidates = tokenizer.stringList("vocabulary", countLimit: .max) ?? []
            Self.check(candidates, unit, tokenizer)
            return candidates
        }
    }

    /// Refuses candidates that the splitting of texts never produces, and candidates that come twice.
    private static func check(_ candidates: [String], _ unit: ClientWords.Unit, _ tokenizer: FieldReader) {
        if candidates.isEmpty { tokenizer.report("vocabulary", "must hold the candidates") }
        var seen: Set<String> = []
        for (index, word) in candidates.enumerated() {
            let forms = ClientWords.words(of: word, unit: unit)
            if forms != [word] {
                tokenizer.report(
                    at: "vocabulary/\(index)",
                    "'\(word.prefix(40))' is never found, as texts are split and lower-cased; it would be "
                        + (forms.isEmpty
                            ? "nothing" : forms.prefix(4).map { "'\($0.prefix(40))'" }.joined(separator: ", "))
                )
            } else if !seen.insert(word).inserted {
                tokenizer.report(at: "vocabulary/\(index)", "'\(word.prefix(40))' is there twice")
            }
        }
    }

    package var layout: ParameterLayout { ParameterLayout([.init(name: "counts", shape: [candidates.count])]) }

    package func supports(_ task: TrainingTask) -> Bool { task == .train }

    package func initialParameters(seed: UInt64) -> ParameterVector { ParameterVector(zeros: layout) }

    package func makeTrainer(data: LocalData, instructions: TrainingInstructions) throws -> any ArchitectureTrainer {
        guard case .texts(let texts) = data else {
            throw LocalTrainingError.unsuitable("words are counted in texts, and the data are a table")
        }
        return WordAnalysis(words: ClientWords(texts, unit: unit)) { words, model in
            guard model.layout == layout else {
                throw LocalTrainingError.modelMismatch(reason: "the model has not one count for each candidate")
            }
            return counts(of: words, seed: instructions.seed)
        }
    }

    /// Ones for the client's candidates.
    func counts(of words: ClientWords, seed: UInt64) -> ParameterVector {
        var held = candidates.indices.compactMap { index in
            words.counts[candidates[index]].map { (index: index, count: $0) }
        }
        if held.count > wordsPerClient {
            var generator = Xoshiro256StarStar(seed: seed)
            generator.shuffle(&held)
            // Sorting is stable, so words with equal counts stay in the order of the shuffle.
            held.sort { $0.count > $1.count }
        }
        var vector = ParameterVector(zeros: layout)
        for (index, _) in held.prefix(wordsPerClient) { vector.values[index] = 1 }
        return vector
    }
}

/// One client's answer to an analytics run, made of its words.
struct WordAnalysis: ArchitectureTrainer {
    let words: ClientWords
    let answer: (ClientWords, ParameterVector) throws -> ParameterVector

    var exampleCount: Int { 1 }

    /// Returns the answer, also for a client without words: whether it has any must not show.
    func train(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingResult {
        TrainingResult(delta: try answer(words, model), exampleCount: 1)
    }

    func gradient(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingResult {
        throw LocalTrainingError.unsupported(operation: "gradient")
    }

    func evaluate(model: ParameterVector, base: ParameterVector?) throws -> TrainingMetrics {
        throw LocalTrainingError.unsupported(operation: "evaluate")
    }
}
