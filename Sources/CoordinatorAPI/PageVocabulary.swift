import StrictJSON
import WireFormat

/// The protocol's words for the page's scripts: `Word.runPhase.running`, so that no script spells one by itself.
enum PageVocabulary {
    /// The words by set, each under its name in Swift.
    static let sets: [(name: String, words: [String])] = [
        ("runKind", of(RunKind.self)), ("roundKind", of(RoundKind.self)), ("runPhase", of(RunPhase.self)),
        ("roundPhase", of(RoundPhase.self)), ("cohortPolicy", of(CohortPolicy.self)),
        ("algorithm", of(TrainingAlgorithm.self)), ("submission", of(Submission.self)),
        ("aggregationMode", of(AggregationMode.self)), ("rule", of(AggregationRule.self)),
        ("serverOptimizer", of(ServerOptimizerName.self)), ("analyticsMethod", of(AnalyticsMethod.self)),
        ("privacyMode", of(PrivacyMode.self)), ("mechanism", of(MechanismWord.self)),
        ("clippingPolicy", of(ClippingPolicy.self)), ("amplification", of(Amplification.self)),
        ("role", of(StaffRole.self)),
    ]

    /// `const Word = {…};`.
    static let script: String = {
        let sets = Self.sets.map { name, words in
            (name, JSONText.object(words.map { ($0, JSONText.quoted($0)) }))
        }
        let sources = ("source", JSONText.object([("heldOut", JSONText.quoted(MetricsReport.heldOut))]))
        return "const Word = \(JSONText.object(sets + [sources]));"
    }()

    private static func of<Word: ClosedWord>(_ type: Word.Type) -> [String] { type.allCases.map(\.rawValue) }
}
