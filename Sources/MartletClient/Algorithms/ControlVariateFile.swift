import CLibrary
import Foundation
import MartletTransport
import Tensors
import WireFormat

/// Where a device keeps cᵢ of one run (SCAFFOLD), and beside it the next one while its round is open.
///
/// The server's c moves when a round commits. cᵢ must move with it: an update that was refused, or accepted in an attempt
/// that was abandoned, leaves both as they were.
struct ControlVariateFile: Sendable {
    let run: RunID
    let files: StateFiles

    /// What an update that has not been acknowledged would make of cᵢ.
    static let unsent = "control.next"

    private var stem: String { StateFileName.control(run) }
    private var settled: String { stem + ".safetensors" }
    private var waiting: String { stem + ".waiting" }
    private var note: StateFile<[String]> { .init(name: stem + ".json") }

    /// cᵢ; zero before the first round that counted, and where the file is damaged.
    ///
    /// - Throws: `ClientError` where the disk does not give it now: zeros would take its place for good.
    func value(layout: ParameterLayout) throws -> ParameterVector {
        guard try files.exists(settled) else { return ParameterVector(zeros: layout) }
        let path = files.path(settled)
        do throws(SafetensorsError) { return try SafetensorsFile(path: path, followsLinks: false).readAll() } catch {
            guard error.isOfContents else {
                throw LocalFailure.error(error, path) ?? LocalFailure.error("read", path, EIO)
            }
            return ParameterVector(zeros: layout)
        }
    }

    /// The server has accepted the update: its cᵢ waits for the round's end.
    func accept(assignment: String) throws {
        // The note first: after a kill in between the same update is acknowledged again.
        try files.write(note, [assignment])
        try files.move(Self.unsent, to: waiting)
    }

    /// Takes what waits, or drops it, by what became of its round.
    ///
    /// - Parameter isCommitted: Asks the server about an assignment; `nil` while its round is open. A client gets no work
    ///   of a run while its update in an earlier attempt is undecided.
    /// - Returns: Whether the note was damaged: then nobody knows what became of the update, and its cᵢ is dropped. The
    ///   server's c has moved without it at worst, as it does for a device that never comes back.
    /// - Throws: What asking throws; the file system's error.
    func settle(_ isCommitted: @Sendable (_ assignment: String) async throws -> Bool?) async throws -> Bool {
        let noted: [String]?
        do { noted = try files.read(note) } catch let error as ClientError
            where error.isStateDamaged
        {
            try files.remove(waiting)
            try files.remove(note.name)
            return true
        }
        guard let assignment = noted?.first,
            let isCommitted = try await isCommitted(assignment)
        else { return false }
        if isCommitted { try files.move(waiting, to: settled) } else { try files.remove(waiting) }
        try files.remove(note.name)
        return false
    }
}
