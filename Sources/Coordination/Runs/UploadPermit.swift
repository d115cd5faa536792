import Synchronization
import WireFormat

/// The right to write an assignment's update to the spool, shared by all requests that bring it.
///
/// The coordinator withdraws it in the step that ends the assignment, or its attempt, and removes the files that are noted here. A request
/// asks for it before each block that it writes. So no byte of an update is written after its round, and no file of it is left,
/// however slowly it came.
package final class UploadPermit: Sendable {
    private struct State: Sendable {
        var files: Set<String> = []
        var refusal: CoordinationError?
    }

    private let state = Mutex(State())

    package init() {}

    /// What a request is told that brings an accepted update once more when its round ends.
    static let isAccepted = CoordinationError(
        .conflict,
        "upload_taken_over",
        "another request has brought this update, and it was accepted: send it again to have its receipt"
    )

    /// Why nothing may be written any more; `nil` while the update is wanted.
    package var refusal: CoordinationError? { state.withLock { $0.refusal } }

    /// Lets a block be written.
    ///
    /// - Throws: ``CoordinationError`` saying why the update is not wanted any more.
    package func require() throws(CoordinationError) {
        if let refusal { throw refusal }
    }

    /// Notes a file that bytes of the update go to, before it is made.
    ///
    /// - Throws: ``CoordinationError`` as ``require()``.
    package func begin(_ path: String) throws(CoordinationError) {
        let refusal = state.withLock { state in
            if state.refusal == nil { state.files.insert(path) }
            return state.refusal
        }
        if let refusal { throw refusal }
    }

    /// Does something to a file while bytes may come, so that no withdrawal comes between.
    ///
    /// - Returns: Whether it was done.
    package func ifWanted(_ body: () -> Void) -> Bool {
        state.withLock { state in
            guard state.refusal == nil else { return false }
            body()
            return true
        }
    }

    /// Notes that such a file is gone, or has another name.
    package func end(_ path: String) { state.withLock { _ = $0.files.remove(path) } }

    /// Ends the right.
    ///
    /// - Returns: The files that were noted.
    fileprivate func withdraw(_ refusal: CoordinationError) -> Set<String> {
        state.withLock { state in
            state.refusal = refusal
            defer { state.files = [] }
            return state.files
        }
    }
}

/// The permits of assignments whose updates have begun to come since the server started.
struct UploadPermits: Sendable {
    private var permits: [String: UploadPermit] = [:]

    /// The assignment's own permit.
    mutating func permit(for assignment: String) -> UploadPermit {
        if let known = permits[assignment] { return known }
        let permit = UploadPermit()
        permits[assignment] = permit
        return permit
    }

    /// Ends an assignment's permit.
    ///
    /// - Parameters:
    ///   - assignment: The assignment.
    ///   - refusal: What its requests are told.
    /// - Returns: The files that its update was written to; `nil` where none has begun to come.
    mutating func withdraw(_ assignment: String, _ refusal: CoordinationError) -> Set<String>? {
        permits.removeValue(forKey: assignment)?.withdraw(refusal)
    }

    /// The assignments whose updates have begun to come.
    var assignments: [String] { Array(permits.keys) }
}

extension AssignmentRecord {
    /// What a request that still brings the update of an ended assignment is told; `nil` while the update may be compared with one that
    /// was accepted.
    var uploadRefusal: CoordinationError? {
        state.isLive || state == .accepted ? nil : RoundError.assignmentEnded(state, code: code).refusal
    }
}
