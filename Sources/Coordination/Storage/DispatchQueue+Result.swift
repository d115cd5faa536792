package import Dispatch

extension DispatchQueue {
    /// Does work that blocks its thread, such as reading a whole file, on this queue; the caller's task waits, and its thread does not.
    ///
    /// - Parameter body: The work.
    /// - Returns: What it returns.
    /// - Throws: What it throws.
    package func result<Success: Sendable>(of body: @escaping @Sendable () throws -> Success) async throws -> Success {
        try await withCheckedThrowingContinuation { continuation in
            async { continuation.resume(with: Result { try body() }) }
        }
    }
}
