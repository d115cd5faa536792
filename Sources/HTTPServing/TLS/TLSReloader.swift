import Synchronization

/// The present certificate; connections that exist keep theirs when it is replaced.
package final class TLSReloader: Sendable {
    private let configuration: TLSConfiguration
    private let present: Mutex<TLSContext>

    package init(_ configuration: TLSConfiguration) throws(TLSError) {
        self.configuration = configuration
        present = Mutex(try TLSContext(configuration))
    }

    package var context: TLSContext { present.withLock { $0 } }

    /// Reads the files again; the present certificate stays in use when they are not right.
    package func reload() throws(TLSError) {
        let next = try TLSContext(configuration)
        present.withLock { $0 = next }
    }
}
