extension LocalTrainingError {
    /// Data of a kind that the model cannot learn from; owner and server read the same sentence.
    static func unsuitable(_ rule: String) -> Self { .unusableData(reason: rule, rule: rule) }
}
