extension LocalTrainingError {
    /// Data of a kind that the model does not learn from; owner and server read the same.
    static func unsuitable(_ rule: String) -> Self { .unusableData(reason: rule, rule: rule) }
}
