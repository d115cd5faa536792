import Foundation
import MartletTransport
import WireFormat

/// A finished update that nobody has acknowledged: a note and the bytes it names, both on the disk.
///
/// There is no value without its note: ``init(_:of:on:)`` writes one, and ``left(on:)`` finds the one of an earlier attempt. So a
/// restart changes nothing: the same bytes are sent until the server's receipt or its refusal is there.
struct PendingDelivery: Sendable {
    /// What is on the disk of it.
    struct Note: Codable, Sendable {
        var assignment: String
        var updateUrl: String
        /// Of the bytes, in Base64.
        var sha256: String
        /// The run whose control variate `control.next` is, when the update was accepted and its round commits (SCAFFOLD).
        var controlRun: String?
        /// What `residual.next` becomes when the update was accepted (sparse updates).
        var residualFile: String?
        /// `nil` for a safetensors file.
        var contentType: String?
        /// What the outcome is told with.
        var run: String?
        var round: Int?
        /// When the server stops waiting, in seconds since 1970 by this device's clock.
        var deadline: Double?
        /// Whether signs of life may say what is done; absent where that is not known.
        var isPrivate: Bool?
        /// The file, where it outlives this note (``KeptReport``).
        var file: String?
        /// The assignment whose event pays, where that is another.
        var payer: String?
        /// The key of the helper whom the update is masked for, hexadecimal; absent for an update that the server can read.
        var helper: String?

        /// The name of the file that is sent.
        var fileName: String { file ?? ClientState.updateFile }
    }

    /// What an earlier attempt has left.
    enum Leftover {
        case nothing
        /// A note that names what it may not name: it is put aside.
        case unusable
        case delivery(PendingDelivery)
    }

    let note: Note
    let assignment: AssignmentID
    let device: Device
    private let target: ServerPath
    /// Whether an earlier attempt has left it: the server may have bytes of it already, and the disk may have lost some.
    private let isRepeated: Bool

    /// Seconds after the server's deadline in which bytes that nobody acknowledged are still offered.
    private static let lateSeconds = 3600.0

    /// Writes the note of an update whose bytes are complete.
    init(_ note: Note, of assignment: Assignment, on device: Device) throws {
        try device.files.write(.delivery, note)
        self.note = note
        self.assignment = assignment.id
        self.device = device
        target = assignment.updatePath
        isRepeated = false
    }

    private init?(found note: Note, on device: Device) {
        guard let assignment = AssignmentID(note.assignment), let target = ServerPath(note.updateUrl),
            note.residualFile.map(StateFileName.isResidual) ?? true, StateFileName.isPlain(note.fileName)
        else { return nil }
        self.note = note
        self.assignment = assignment
        self.device = device
        self.target = target
        isRepeated = true
    }

    /// Finds the finished update that an earlier attempt has left.
    ///
    /// A note that is damaged is put aside: nothing was sent that is not in the ledger.
    static func left(on device: Device) throws -> Leftover {
        let note: Note
        do {
            guard var found = try device.files.read(.delivery) else { return .nothing }
            if found.deadline == nil {
                found.deadline = device.now.timeIntervalSince1970
                try device.files.write(.delivery, found)
            }
            note = found
        } catch let error as ClientError where error.isStateDamaged {
            let name = try device.state.setAside(StateFile.delivery.name, at: device.now)
            device.voice.notify(ofState: "\(error.message); it is now \(name), and its update will not be sent")
            return .nothing
        }
        guard let delivery = PendingDelivery(found: note, on: device) else {
            // Noted by a version that did not check what a server said, or damaged.
            let name = try device.state.setAside(StateFile.delivery.name, at: device.now)
            device.voice.notify(ofState: "the note of a finished update is not usable and is now \(name)")
            return .unusable
        }
        return .delivery(delivery)
    }

    var files: StateFiles { device.files }

    /// Sends the finished update until the server's receipt or its refusal is there.
    ///
    /// - Throws: `ClientError` when nobody who counts has answered: the bytes stay, and the next attempt sends them.
    func deliver() async throws -> ParticipationOutcome {
        if isRepeated, let damage = try damage() { return try await giveUp(damage) }
        device.voice.tell(.phase(.uploading))
        let receipt: ReceiptAnswer
        do {
            try files.failpoint()
            let sent = try await device.session.keepingLease(
                of: assignment,
                leaseSeconds: nil,
                phase: note.isPrivate == false ? .uploading : nil,
                prefersResult: true
            ) { try await send() }
            try files.failpoint()
            switch sent {
            case .unwanted(let code): return try drop(code, "the server no longer waits for this update")
            case .done(let answer): receipt = answer
            }
        } catch let error as ClientError {
            return try await end(after: error)
        }
        device.status.bytesUp += receipt.byteCount
        try accept()
        // A ledger that was forked meanwhile is told now, and refused when the next work comes.
        _ = try? await ServerLedgerCheck(device).refusal(receipt.ledgerHead, isPrivate: false)
        let (run, round) = (note.run ?? "", note.round ?? 0)
        device.voice.tell(.accepted(run: run, round: round, byteCount: receipt.byteCount))
        return .accepted(run: run, round: round)
    }

    private func send() async throws -> ReceiptAnswer {
        // A server that reads a byte now and then gets no more time than one that reads none.
        try await device.session.upload(
            files.path(note.fileName),
            to: target,
            contentType: note.contentType,
            expected: ExpectedReceipt(assignment: note.assignment, sha256: note.sha256),
            isRepeated: isRepeated,
            within: max(60, end - device.now.timeIntervalSince1970)
        )
    }

    /// When the bytes are not offered any more, in seconds since 1970 by this device's clock.
    private var end: Double { (note.deadline ?? 0) + Self.lateSeconds }

    private func end(after error: ClientError) async throws -> ParticipationOutcome {
        guard let verdict = error.verdict, verdict != .clientIsOut else {
            guard error.isTemporary, device.now.timeIntervalSince1970 > end else { throw error }
            return try drop(
                "deadline_passed",
                "nobody acknowledged the update until an hour after its deadline; the last answer: \(error.message)"
            )
        }
        let outcome = try drop(error.code, error.message)
        if verdict == .workCannotBeDelivered {
            // The server waits for it still: the place is for another client.
            try await device.session.report(.init(code: .trainingFailed, detail: error.code), for: assignment)
        }
        return outcome
    }
}
