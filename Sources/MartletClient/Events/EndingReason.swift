/// Why an assignment ended without an accepted update.
///
/// ``FederatedClient/lastReason`` says it in a sentence for the device's owner.
public enum EndingReason: Hashable, Sendable, CustomStringConvertible {
    /// What this device decides by itself.
    public enum Device: String, Sendable, CaseIterable {
        /// The trainer threw, or brought something that cannot be sent.
        case trainingFailed = "training_failed"
        /// The data gave nothing to train on.
        case noData = "no_data"
        /// The trainer does not do this kind of work.
        case notEligible = "not_eligible"
        /// The work was not wanted any more when the trainer ended.
        case cancelled
        /// The owner's policy or the device's ledger forbids it.
        case privacyRefused = "privacy_refused"
        /// There was too little memory.
        case outOfMemory = "out_of_memory"
        /// The server's privacy ledger is another one than this device has seen before.
        case ledgerForked = "ledger_forked"
        /// What the server said does not fit the protocol.
        case serverInvalid = "server_invalid"
        /// A file that came is not the one that was named.
        case digestMismatch = "digest_mismatch"
        /// The finished update is damaged.
        case stateDamaged = "state_damaged"
        /// This device's disk is full.
        case diskFull = "disk_full"
        /// This device's file system refuses.
        case storage
        /// Nobody acknowledged the update until an hour after its deadline.
        case deadlinePassed = "deadline_passed"
        /// This device has done the work before, and its update was accepted.
        case alreadyAccepted = "accepted"
    }

    /// What the server decides.
    public enum Server: String, Sendable, CaseIterable {
        /// The round has as many updates as it wants.
        case roundFull = "round_full"
        /// The round is over.
        case roundClosed = "round_closed"
        /// The client gave no sign of life for too long.
        case leaseExpired = "lease_expired"
        /// The assignment is over.
        case assignmentEnded = "assignment_ended"
        /// The run is over.
        case runEnded = "run_ended"
        /// The model has moved on too far.
        case tooStale = "too_stale"
        /// Another update of this assignment was accepted.
        case updateDiffers = "update_differs"
        /// The server does not know the assignment.
        case notFound = "not_found"
        /// The update has not the one length that all updates of a private run have.
        case lengthMismatch = "length_mismatch"
        /// The update's tensors are not the run's.
        case tensorMismatch = "tensor_mismatch"
        /// The update's encoding is not the run's.
        case encodingMismatch = "encoding_mismatch"
        /// The update is of another kind than the run's.
        case kindMismatch = "kind_mismatch"
        /// The update was made from another model.
        case baseMismatch = "base_mismatch"
        /// What goes beside the tensors cannot be read.
        case metadataInvalid = "metadata_invalid"
        /// A value is not finite.
        case notFinite = "not_finite"
        /// A value is beyond the run's bound.
        case valueOutOfRange = "value_out_of_range"
        /// A sparse update's indices cannot be used.
        case indicesInvalid = "indices_invalid"
        /// A quantised update's scales cannot be used.
        case scaleInvalid = "scale_invalid"
        /// Fewer examples than the run asks for.
        case tooFewExamples = "too_few_examples"
        /// Counts that cannot be.
        case invalidCounts = "invalid_counts"
        /// A vote that cannot be.
        case invalidVote = "invalid_vote"
        /// The update does not name its model.
        case baseMissing = "base_missing"
        /// The update counts something else than the run weighs by.
        case weightUnitMismatch = "weight_unit_mismatch"
        /// The update is longer than the server takes.
        case tooLarge = "too_large"
        /// The server does not take this kind of file.
        case unsupportedMediaType = "unsupported_media_type"
        /// The server cannot read what was sent.
        case invalidDocument = "invalid_document"
        /// A measurement lacks what the run asks for.
        case metricsMissing = "metrics_missing"
        /// A measurement cannot be.
        case metricsImplausible = "metrics_implausible"
    }

    /// This device has decided.
    case device(Device)
    /// The server has decided.
    case server(Server)
    /// What a newer server says.
    case unknown(String)

    /// Reads the word of the protocol.
    public init(code: String) {
        if let reason = Device(rawValue: code) {
            self = .device(reason)
        } else if let reason = Server(rawValue: code) {
            self = .server(reason)
        } else {
            self = .unknown(code)
        }
    }

    /// The word of the protocol.
    public var code: String {
        switch self {
        case .device(let reason): reason.rawValue
        case .server(let reason): reason.rawValue
        case .unknown(let code): code
        }
    }

    /// The word of the protocol.
    public var description: String { code }
}
