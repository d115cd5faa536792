import Synchronization

/// What an app can ask a client about, written by whichever part of the client knows it.
@dynamicMemberLookup
final class ClientStatus: Sendable {
    struct Values: Sendable {
        /// Why the last assignment ended that was not accepted.
        var reason: OwnerSentence?
        /// Why the policy or the ledger of the device forbade the last assignment that ended with `privacy_refused`.
        var refusal: OwnerSentence?
        /// Why the data gave nothing to the last private assignment.
        var shortfall: OwnerSentence?
        /// What the owner has to know of the server's privacy ledger.
        var ledgerNotice: OwnerSentence?
        /// Bytes of updates that were accepted.
        var bytesUp = 0
        /// Whether this device's disk has failed since it was last seen to work.
        var hasStorageTrouble = false
    }
    private let values = Mutex(Values())

    subscript<Value: Sendable>(dynamicMember path: WritableKeyPath<Values, Value>) -> Value {
        get { values.withLock { $0[keyPath: path] } }
        set { values.withLock { $0[keyPath: path] = newValue } }
    }
}
