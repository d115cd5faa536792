public import MartletTransport

/// What a client does, as it happens.
public enum ClientEvent: Sendable, Equatable {
    /// What the client is at now.
    public enum Phase: String, Sendable, CaseIterable {
        /// Asks the server for a token.
        case registering
        /// Asks for work, or waits until it may.
        case waiting
        /// Fetches what the work needs.
        case downloading
        /// The trainer works.
        case training
        /// Sends the update.
        case uploading
    }

    /// Another phase begins.
    case phase(Phase)
    /// Work has come; `evaluates` for a measurement rather than training.
    case assigned(run: String, round: Int, evaluates: Bool)
    /// How far the trainer is, from 0 to 1, where it says so.
    case progress(Double)
    /// Bytes of the transfer that is under way.
    case bytes(TransferProgress)
    /// The server has the update; so many bytes were sent.
    case accepted(run: String, round: Int, byteCount: Int)
    /// The work ended without an accepted update; the sentence is for the device's owner alone.
    case refused(EndingReason, sentence: String?)
    /// There was no work.
    case noWork(NoWorkReason, retrySeconds: Double)
    /// This client was revoked.
    case finished
    /// The server is away or back, or the state was mended.
    case notice(ClientNotice)

    /// Whether a newer one of its kind says all that it says.
    var isPassing: Bool {
        switch self {
        case .progress, .bytes: true
        default: false
        }
    }

    /// Whether two events are of one kind.
    func isSameKind(as other: ClientEvent) -> Bool {
        switch (self, other) {
        case (.progress, .progress), (.bytes, .bytes): true
        default: false
        }
    }
}
