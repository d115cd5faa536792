import WireFormat

/// With privacy mode `local` the bytes that a client sends are the release: what has begun to come is paid for, and no second one
/// may follow it in the same attempt.
extension Coordinator {
    /// Keeps durably, before the first byte is read, that a client with local privacy has begun to send: each byte is a
    /// release, which its attempt pays for whatever becomes of the update.
    func noteReceived(_ record: AssignmentRecord) throws {
        guard let run = runs[record.runId], run.specification.privacy.mode == .local, !record.isEvaluation,
            var round = run.round, !round.phase.isFinal, !round.hasReceived,
            run.isBuffered || (round.number == record.round && round.attempt == record.attempt)
        else { return }
        round.hasReceived = true
        try commit([.round(round)])
    }

    /// Holds a client to the update that it has begun to send in the open attempt, in however many turns: the same bytes are the
    /// same release, and others would be a second one.
    ///
    /// The request's digest stands for the bytes, so that others are refused before one of them is read. A client that does
    /// not say it gets no further turn.
    ///
    /// - Throws: ``CoordinationError`` with code `update_differs`; the assignment has ended then.
    func holdToRelease(_ record: AssignmentRecord, _ digest: [UInt8]?) throws {
        guard runs[record.runId]?.specification.privacy.mode == .local, !record.isEvaluation else { return }
        // Further work of a buffer may start from another version, whose update has other bytes.
        guard runs[record.runId]?.isBuffered == false, let digest else {
            runs[record.runId]?.members.bar(record.clientId)
            return
        }
        guard runs[record.runId]?.members.noteRelease(digest, of: record.clientId) == false else { return }
        try rejectUpdate(assignment: record.id, client: record.clientId, code: "update_differs")
        throw CoordinationError(
            .conflict,
            "update_differs",
            "this client has begun to send another update in this attempt, and with mode local a second one would be a second "
                + "release: further turns take the same bytes"
        )
    }
}
