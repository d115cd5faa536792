import Coordination
import Dispatch

/// Threads for what reads whole files, so that it holds up no thread that serves requests.
enum DiskQueue {
    private static let queue = DispatchQueue(label: "martlet.disk", attributes: .concurrent)

    static func run<Result: Sendable>(_ body: @escaping @Sendable () throws -> Result) async throws -> Result {
        try await queue.result(of: body)
    }
}
