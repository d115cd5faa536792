import MartletTransport

extension ClientError {
    /// The code of tensors or counts that are not those of the assignment.
    static let modelMismatch = "model_mismatch"

    /// What a file or the trainer brought does not fit the assignment.
    init(mismatch message: String) { self.init(code: Self.modelMismatch, message: message) }
}
