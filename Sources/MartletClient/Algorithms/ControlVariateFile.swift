import Foundation
import Tensors

/// Where a device keeps cᵢ of one run (SCAFFOLD), and beside it the next one while its round is open.
///
/// The server's c moves when a round commits. cᵢ must move with it: an update that was refused, or accepted in an attempt
/// that was abandoned, leaves both as they were.
struct ControlVariateFile: Sendable {
    let run: String
    let state: ClientState

    /// What an update that has not been acknowledged would make of cᵢ.
    static let unsent = "control.next"

    private var stem: String { "control-" + run.filter { $0.isLetter || $0.isNumber || $0 == "_" || $0 == "-" } }
    private var settled: String { stem + ".safetensors" }
    private var waiting: String { stem + ".waiting" }
    private var note: String { stem + ".json" }

    /// cᵢ; zero before the first round that counted.
    func value(layout: ParameterLayout) -> ParameterVector {
        (try? SafetensorsFile(path: state.path(settled)).readAll()) ?? ParameterVector(zeros: layout)
    }

    /// The server has accepted the update: its cᵢ waits for the round's end.
    func accept(assignment: String) throws {
        // The note first: after a kill in between the same update is acknowledged again.
        try state.write(note, [assignment])
        try state.move(Self.unsent, to: waiting)
    }

    /// Takes what waits, or drops it, by what became of its round.
    ///
    /// - Parameter isCommitted: Asks the server about an assignment; `nil` while its round is open. A client gets no work
    ///   of a run while its update in an earlier attempt is undecided.
    /// - Throws: What asking throws; the file system's error.
    func settle(_ isCommitted: @Sendable (_ assignment: String) async throws -> Bool?) async throws {
        guard let assignment = state.read(note, [String].self)?.first,
            let isCommitted = try await isCommitted(assignment)
        else { return }
        if isCommitted { try state.move(waiting, to: settled) } else { state.remove(waiting) }
        state.remove(note)
    }
}
