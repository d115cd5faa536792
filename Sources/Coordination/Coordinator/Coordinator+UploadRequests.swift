import Foundation
import WireFormat

/// What a request that brings bytes of an update does to its assignment's lease.
extension Coordinator {
    /// Notes that a request brings bytes for an assignment; until it ends the lease does not run out.
    ///
    /// - Returns: Whether the assignment is one of the client's that may still deliver; then ``endUploadRequest(assignment:)`` is
    ///   owed.
    package func beginUploadRequest(assignment id: String, client: String) -> Bool {
        guard let record = assignments[id], record.clientId == client, record.state.isLive else { return false }
        openUploads[id, default: 0] += 1
        return true
    }

    /// Notes that such a request has ended: with the last one a new lease begins.
    package func endUploadRequest(assignment id: String) {
        guard let count = openUploads[id] else { return }
        openUploads[id] = count > 1 ? count - 1 : nil
        guard count == 1, var record = assignments[id], record.state.isLive else { return }
        keepLease(of: &record)
        keep(record)
    }

    /// Takes a lease that is in memory only, and looks at the assignment when it is over.
    func keep(_ record: AssignmentRecord) {
        assignments[record.id] = record
        runs[record.runId]?.noteExpiry(of: record)
    }

    /// Takes a sign of life: the lease is whole again, and does not run out while bytes come.
    func keepLease(of record: inout AssignmentRecord) {
        guard record.leaseUntil != nil, let run = runs[record.runId] else { return }
        record.leaseUntil =
            openUploads[record.id] != nil ? record.deadline : min(record.deadline, now.addingTimeInterval(run.lease))
    }
}
