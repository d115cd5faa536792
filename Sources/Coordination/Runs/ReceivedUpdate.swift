import WireFormat

/// An update that passed intake: on disk, synced, its contents checked.
package struct ReceivedUpdate: Sendable {
    package var path: String
    package var sha256: String
    package var byteCount: Int
    package var exampleCount: Int
    /// Sums that came with it.
    package var metrics: [String: Double]
    /// The squared L2 norm of the decoded values, where intake measured it.
    package var squaredNorm: Double?
    /// Of a masked update: 32 bytes, hexadecimal.
    package var pseudonym: String?

    package init(
        path: String,
        sha256: String,
        byteCount: Int,
        exampleCount: Int,
        metrics: [String: Double] = [:],
        squaredNorm: Double? = nil,
        pseudonym: String? = nil
    ) {
        self.pseudonym = pseudonym
        self.metrics = metrics
        self.squaredNorm = squaredNorm
        self.path = path
        self.sha256 = sha256
        self.byteCount = byteCount
        self.exampleCount = exampleCount
    }
}

extension FailureReport {
    /// Codes that say nothing about data: the device's policy and abilities, and its owner's wish.
    private static let dataFreeCodes: Set<FailureCode> = [.privacyRefused, .notEligible, .cancelled]
    /// What is kept of a failure where something is promised about the data: devices of this version report none that
    /// depends on them.
    var privateCode: FailureCode { Self.dataFreeCodes.contains(code) ? code : .trainingFailed }
}
