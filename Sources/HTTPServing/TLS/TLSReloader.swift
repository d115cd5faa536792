import Synchronization

/// Holds the current certificate; existing connections keep theirs when it is replaced.
package final class TLSReloader: Sendable {
    private let configuration: TLSConfiguration
    private let present: Mutex<TLSContext>

    package init(_ configuration: TLSConfiguration) throws(TLSError) {
        self.configuration = configuration
        present = Mutex(try TLSContext(configuration))
    }

    package var context: TLSContext { present.withLock { $0 } }

    /// Reads the files again; the current certificate stays in use if they are wrong.
    ///
    /// - Throws: ``TLSError``.
    package func reload() throws(TLSError) {
        let next = try TLSContext(configuration)
        present.withLock { $0 = next }
    }
}
