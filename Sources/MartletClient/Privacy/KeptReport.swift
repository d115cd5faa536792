import Foundation
import MartletTransport
import WireFormat

/// The one report that a device makes of a model version with mode `local`, kept until the round is over.
///
/// Noise is drawn once for each run and version: a further turn, or another attempt at the round, sends the same bytes under the same
/// event of the device's ledger, and where the server has refused their contents there are no others. The note is on disk
/// before the event, and speaks of bytes only when they are complete: what it says nothing of has not left the device.
struct KeptReport: Sendable {
    struct Note: Codable, Equatable, Sendable {
        /// Pays for the report, for whichever assignments it is sent.
        var event: ClientLedger.Event
        /// The round's last attempt that it was made or sent for.
        var attempt: Int
        /// The model version.
        var model: String
        /// What the bytes depend on beside what the event says.
        var terms: String
        /// Until when the bytes are kept, in seconds since 1970 by this device's clock.
        var until: Double
        /// SHA-256 of the bytes in base64; absent before they are complete.
        var sha256: String?
        /// Whether a control variate goes with it (SCAFFOLD).
        var hasControl: Bool?
        /// What the server refused it with.
        var refusal: String?
    }

    /// What there is of a report when work comes.
    enum Standing {
        /// Nothing: noise may be drawn, under an event of its own.
        case none
        /// An event, and nothing that could have left the device: noise may be drawn under it.
        case begun(payer: String)
        /// Bytes to send again.
        case made(Note)
        /// No report, and why.
        case refused(String)

        /// The assignment whose event pays for what is sent.
        var payer: String? {
            switch self {
            case .begun(let payer): payer
            case .made(let note): note.event.assignment
            case .none, .refused: nil
            }
        }
    }

    /// Seconds after the deadline for which the bytes wait for another attempt.
    static let waitSeconds = 2 * 86_400.0
    /// Runs whose bytes are kept.
    static let runLimit = 4

    let files: StateFiles
    private let run: RunID
    private let fresh: Note

    /// The report on the version that an assignment names; `nil` where the device draws no noise.
    ///
    /// A masked update is never kept for another turn or attempt: it is for one session, and another one needs a mask of its own.
    init?(_ assignment: Assignment, files: StateFiles, now: Date) {
        guard assignment.privacy.mode == .local, assignment.kind != .evaluate, assignment.protection == nil else {
            return nil
        }
        self.files = files
        run = assignment.run
        let clipping = assignment.privacy.clipping
        fresh = Note(
            event: .init(assignment),
            attempt: assignment.attempt,
            model: assignment.model.sha256.text,
            terms: "\(clipping.policy) \(clipping.norm) \(assignment.training.encoding) \(assignment.training.submit)",
            until: now.timeIntervalSince1970 + assignment.deadline.seconds + Self.waitSeconds
        )
    }

    /// The name of the bytes.
    var bytesName: String { StateFileName.report(run) + Self.bytesSuffix }
    private var noteFile: StateFile<Note> { Self.noteFile(StateFileName.report(run)) }
    private var controlName: String { StateFileName.report(run) + Self.controlSuffix }

    private static let bytesSuffix = ".safetensors"
    private static let noteSuffix = ".json"
    private static let controlSuffix = ".control"

    private static func noteFile(_ stem: String) -> StateFile<Note> { .init(name: stem + noteSuffix) }

    /// The note about this version, if it is the last one of its run.
    private func note() throws -> Note? {
        guard let note = try files.read(noteFile), note.event.round == fresh.event.round,
            note.model == fresh.model
        else { return nil }
        return note
    }

    /// What there is.
    ///
    /// - Throws: `ClientError` with code `state_damaged` for a note that cannot be read, or of this device's files.
    func standing() throws -> Standing {
        guard let note = try note() else { return .none }
        guard note.event.hasTerms(of: fresh.event), note.terms == fresh.terms else {
            return .refused("this device has reported on this version under other terms, and makes no second report")
        }
        if let code = note.refusal {
            return .refused("the server refused this device's report on this version (\(code)); there is no second one")
        }
        guard let sha256 = note.sha256 else { return .begun(payer: note.event.assignment ?? "") }
        // Bytes that the disk does not give now are not gone: there is no second report.
        if try files.exists(bytesName), try files.digest(bytesName).base64EncodedString() == sha256 {
            return .made(note)
        }
        guard note.attempt != fresh.attempt else {
            return .refused("this device's report on this version is gone or damaged, and there is no second one")
        }
        return .none
    }

    /// Puts a damaged note out of the way.
    ///
    /// - Returns: Its new name.
    func setAside(in state: ClientState, at time: Date) throws -> String { try state.setAside(noteFile.name, at: time) }

    /// Notes that noise is about to be drawn.
    ///
    /// - Returns: The event that pays for it.
    /// - Throws: `ClientError` with code `already_running` where a report was made, or refused, since the work began: its bytes may
    ///   have left the device, so none are made beside them.
    func begin() throws -> ClientLedger.Event {
        switch try standing() {
        case .begun:
            if let note = try note() { return note.event }
        case .none: break
        case .made, .refused: throw ClientError.alreadyRunning
        }
        try files.write(noteFile, fresh)
        try removeBytes()
        return fresh.event
    }

    /// Takes the complete bytes.
    ///
    /// - Parameters:
    ///   - path: Where they are, synced.
    ///   - digest: Their SHA-256.
    ///   - control: The control variate that goes with them.
    /// - Returns: The note, which speaks of them now.
    /// - Throws: `ClientError` of this device's files.
    func complete(_ path: String, digest: Data, control: Data?) throws -> Note {
        guard var note = try note() else {
            throw ClientError(
                code: "state_damaged",
                message: "\(files.path(noteFile.name)) is missing: a report has begun"
            )
        }
        try files.rename(path, to: bytesName)
        if let control { try files.write(controlName, data: control) }
        note.sha256 = digest.base64EncodedString()
        note.hasControl = control == nil ? nil : true
        note.until = fresh.until
        note.attempt = fresh.attempt
        try files.write(noteFile, note)
        return note
    }

    /// Notes that a report is sent again.
    func renew(_ note: Note) throws {
        var next = note
        next.until = max(note.until, fresh.until)
        next.attempt = fresh.attempt
        if next != note { try files.write(noteFile, next) }
    }

    /// The control variate that goes with the bytes.
    func control() throws -> Data? { try files.contents(controlName) }

    private func removeBytes() throws {
        try files.remove(bytesName)
        try files.remove(controlName)
    }

    /// Notes that the server has refused a report for what it is; another one is not made.
    static func refuse(run: RunID, sha256: String, code: String, files: StateFiles) throws {
        let stem = StateFileName.report(run)
        guard var note = try files.read(noteFile(stem)), note.sha256 == sha256 else { return }
        if note.refusal == nil {
            note.refusal = code
            try files.write(noteFile(stem), note)
        }
        try files.remove(stem + bytesSuffix)
        try files.remove(stem + controlSuffix)
    }

    /// Frees what is kept for rounds that have been over for long, or for runs that many others have followed.
    static func prune(_ files: StateFiles, now: Date) {
        let names = ((try? FileManager.default.contentsOfDirectory(atPath: files.directory)) ?? [])
            .filter { $0.hasPrefix(StateFileName.reportPrefix) && $0.hasSuffix(noteSuffix) }
        let notes = names.compactMap { name in
            (try? files.read(StateFile<Note>(name: name))).flatMap { $0 }
                .map { (stem: name.dropLast(noteSuffix.count), until: $0.until) }
        }
        .sorted { ($0.until, $0.stem) > ($1.until, $1.stem) }
        for (place, note) in notes.enumerated() where place >= runLimit || note.until < now.timeIntervalSince1970 {
            for suffix in [bytesSuffix, controlSuffix, noteSuffix] { try? files.remove(note.stem + suffix) }
        }
    }
}
