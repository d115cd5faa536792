import Foundation
import MartletTransport
import Synchronization
import WireFormat

/// What a device remembers from one attempt to the next: its registration, how its assignments ended, and its state's generation.
///
/// A change is on the disk before it counts. One attempt at a time has the state (``StateLock``), so the lock guards the values and
/// not the order of changes.
final class DeviceMemory: Sendable {
    private struct Contents {
        var credential: ClientState.Credential?
        var log = AssignmentLog()
        /// Whether the generation of this state is known: not where the log of an older version's state was damaged.
        var knowsGeneration = true
    }
    private let state: ClientState
    /// `nil` before the directory was read.
    private let known = Mutex<Contents?>(nil)

    init(_ state: ClientState) { self.state = state }

    private var contents: Contents {
        get { known.withLock { $0 } ?? Contents() }
        set { known.withLock { $0 = newValue } }
    }

    /// Reads what the state directory holds, once.
    ///
    /// - Parameters:
    ///   - time: Names a damaged file that is put aside.
    ///   - notify: Receives sentences for the owner.
    /// - Throws: `ClientError` of this device's files.
    func open(at time: Date, notify: (String) -> Void) throws {
        guard known.withLock({ $0 == nil }) else { return }
        var next = Contents()
        next.credential = try state.credential(notify: notify)
        do { next.log = try state.files.read(.assignments) ?? AssignmentLog() } catch let error as ClientError
            where error.isStateDamaged
        {
            let file = StateFile.assignments.name
            let name = try state.setAside(file, at: time)
            notify("\(file) was damaged and is now \(name)")
        }
        // A log that is damaged or missing must not make a device look like a copy of itself.
        if let credential = next.credential {
            next.knowsGeneration = next.log != AssignmentLog() || credential.generation != nil
            next.log.generation = max(next.log.generation, credential.generation ?? 0)
        }
        contents = next
    }

    /// Forgets what was read: another client has used the directory.
    func close() { known.withLock { $0 = nil } }

    // MARK: - Registration

    /// What the device has registered as.
    var credential: ClientState.Credential? { contents.credential }

    /// The token of requests; what would end a header field never gets into one.
    var token: BearerToken? { credential.flatMap { BearerToken($0.token) } }

    /// Keeps a registration.
    func keep(_ answer: RegistrationAnswer) throws {
        var next = contents
        let fresh = ClientState.Credential(
            clientId: answer.clientID.text,
            token: answer.token.text,
            format: ClientState.Credential.currentFormat,
            generation: next.log.generation
        )
        try state.files.write(.credential, fresh)
        next.credential = fresh
        next.knowsGeneration = true
        contents = next
    }

    // MARK: - Assignments

    /// The generation of this state; `nil` where it is not known.
    var generation: Int? {
        let contents = contents
        return contents.knowsGeneration ? contents.log.generation : nil
    }

    /// Remembers the generation that came with an assignment, before anything is done for it.
    ///
    /// It is kept beside the credential too: the two files are not damaged together.
    func note(generation: Int) throws {
        var next = contents
        if generation != next.log.generation {
            next.log.generation = generation
            try state.files.write(.assignments, next.log)
        }
        next.knowsGeneration = true
        contents = next
        guard var credential = next.credential, credential.generation != generation else { return }
        credential.generation = generation
        try state.files.write(.credential, credential)
        next.credential = credential
        contents = next
    }

    /// How an assignment ended; `nil` for one that has not.
    func code(of assignment: AssignmentID) -> String? { contents.log.code(of: assignment.text) }

    /// Remembers that an assignment has ended.
    func remember(_ assignment: AssignmentID, code: String) throws {
        var next = contents
        guard next.log.code(of: assignment.text) != code else { return }
        next.log.end(assignment.text, code: code)
        try state.files.write(.assignments, next.log)
        contents = next
    }
}
