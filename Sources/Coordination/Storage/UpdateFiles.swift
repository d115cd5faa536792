import Foundation
import WireFormat

#if canImport(Glibc)
import Glibc
#endif

/// The files of updates in the spool: what arrives in parts, what is judged, and what was accepted with its receipt.
struct UpdateFiles: Sendable {
    let blobs: any BlobStore

    /// What follows an assignment's id in the name of the file that an upload gathers in.
    static let partialSuffix = ".partial"
    /// The same while the complete update is judged; a stop in between leaves it.
    static let judgedSuffix = ".judged"

    /// Where an upload in parts gathers: one file for the assignment.
    func partialPath(_ assignment: String) -> String { blobs.spoolPath(assignment + Self.partialSuffix) }

    /// Where an update lies while it is judged.
    func judgedPath(_ assignment: String) -> String { blobs.spoolPath(assignment + Self.judgedSuffix) }

    // MARK: - Acceptance

    /// Moves an update that was checked among the accepted ones, durably.
    ///
    /// - Parameters:
    ///   - path: Where it is.
    ///   - assignment: Whose it is.
    ///   - receipt: With privacy what is known of it; its name is durable with the update's, by the same sync of the directory.
    /// - Throws: ``CoordinationError`` with code `storage_failed`; nothing is among the accepted ones then.
    func accept(_ path: String, of assignment: String, receipt: SpooledReceipt?) throws {
        let names = [blobs.updatePath(of: assignment), blobs.receiptPath(of: assignment)]
        blobs.want(names)
        if let receipt { try receipt.write(to: blobs.receiptPath(of: assignment)) }
        do {
            try DurableFiles.rename(path, to: blobs.updatePath(of: assignment))
        } catch {
            // Nobody was told that it is here.
            blobs.removeAtOnce(names)
            throw error
        }
    }

    /// Gives an update back to where it came from: it was not counted.
    func giveBack(_ path: String, of assignment: String, hasReceipt: Bool) {
        rename(blobs.updatePath(of: assignment), path)
        if hasReceipt { blobs.removeAtOnce([blobs.receiptPath(of: assignment)]) }
    }

    /// What is known about an accepted update: by its row, or with privacy by its file as long as that is there.
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed` if the disk does not give it now.
    func receipt(of record: AssignmentRecord) throws(CoordinationError) -> SpooledReceipt? {
        guard let sha256 = record.updateSha256 else {
            return try SpooledReceipt.read(path: blobs.receiptPath(of: record.id))
        }
        return SpooledReceipt(
            sha256: sha256,
            byteCount: record.updateBytes ?? 0,
            exampleCount: record.exampleCount ?? 1
        )
    }

    /// The answer to a client that asks about an update which was accepted.
    ///
    /// - Parameters:
    ///   - record: The assignment.
    ///   - head: Where the population's ledger stands.
    /// - Returns: The receipt; without hash and size once nothing is left of the update.
    /// - Throws: ``CoordinationError`` with code `storage_failed`.
    func acceptedReceipt(_ record: AssignmentRecord, _ head: PopulationLedgerHead?) throws -> UpdateReceipt {
        try receipt(of: record).map { UpdateReceipt(record, $0, head) }
            ?? UpdateReceipt(assignment: record.id, state: record.state, sha256: "", bytes: 0, compared: false)
    }

    /// The answer to an update for an assignment that has one: the same for the same bytes; other bytes are refused as long
    /// as anything is left to compare them with, and after that every repeat is told that the work is done.
    ///
    /// - Throws: ``CoordinationError`` with code `update_differs`, or `storage_failed` if nothing can be compared now.
    func repeatedReceipt(
        _ record: AssignmentRecord,
        sha256: String,
        byteCount: Int,
        _ head: PopulationLedgerHead?
    ) throws -> UpdateReceipt {
        guard let facts = try receipt(of: record) else {
            return UpdateReceipt(
                assignment: record.id,
                state: record.state,
                sha256: sha256,
                bytes: byteCount,
                compared: false
            )
        }
        guard facts.sha256 == sha256 else {
            throw CoordinationError(
                .conflict,
                "update_differs",
                "another update was accepted for this assignment already"
            )
        }
        return UpdateReceipt(record, facts, head)
    }

    // MARK: - The sum

    /// The updates of a closed round, as the arithmetic reads them.
    ///
    /// - Parameters:
    ///   - counted: The assignments that count.
    ///   - run: The run.
    ///   - round: The round.
    ///   - squaredNorms: What admission measured.
    /// - Returns: One for each assignment.
    func updates(
        _ counted: [AssignmentRecord],
        _ run: RunState,
        _ round: RoundRecord,
        _ squaredNorms: [String: Double]
    ) -> [AggregationJob.Update] {
        let isPrivate = run.specification.isPrivate
        let isBuffered = run.terms(of: round).isBuffered
        return counted.map { record in
            AggregationJob.Update(
                assignment: record,
                path: blobs.updatePath(of: record.id),
                staleness: isBuffered ? max(0, round.number - record.round) : 0,
                squaredNorm: squaredNorms[record.id],
                receiptPath: isPrivate ? blobs.receiptPath(of: record.id) : nil
            )
        }
    }

    /// The measurements of a closed evaluation with privacy.
    func reports(_ counted: [AssignmentRecord]) -> [EvaluationRelease.Report] {
        counted.map { .init(path: blobs.updatePath(of: $0.id), receiptPath: blobs.receiptPath(of: $0.id)) }
    }

    // MARK: - Removal

    /// Removes accepted updates with their receipts at once.
    func remove(_ assignments: some Sequence<String>) {
        blobs.removeAtOnce(assignments.flatMap { [blobs.updatePath(of: $0), blobs.receiptPath(of: $0)] })
    }

    /// Removes the updates of an attempt that is over, soon.
    ///
    /// - Parameters:
    ///   - accepted: Assignments whose updates were accepted.
    ///   - ended: All assignments that have ended. With privacy all that is known of anybody's update goes with the round and does not
    ///     wait for the next sweep: what had arrived of others', and what a failed transaction left of one that was not accepted.
    ///   - isPrivate: Whether the run promises privacy.
    func discard(accepted: [String], ended: [String], isPrivate: Bool) {
        guard isPrivate else { return blobs.discard(accepted.map { blobs.updatePath(of: $0) }) }
        blobs.discard(
            Set(accepted + ended).flatMap {
                [blobs.updatePath(of: $0), blobs.receiptPath(of: $0), partialPath($0), judgedPath($0)]
            }
        )
    }

    /// Removes, soon, what has come of an update that is not wanted any more.
    ///
    /// - Parameters:
    ///   - assignment: The assignment.
    ///   - files: Those that requests were writing to.
    func discardUpload(_ assignment: String, _ files: Set<String>) {
        blobs.discard(Array(files) + [partialPath(assignment), judgedPath(assignment)])
    }

    /// Removes what the arithmetic of an attempt has left.
    func discardResult(run: String, round: Int, attempt: Int) {
        let path = blobs.resultPath(run: run, round: round, attempt: attempt)
        blobs.discard(AggregationJob.resultSuffixes.map { path + $0 })
    }

    /// Removes parts of uploads that nobody will finish.
    ///
    /// - Parameter isWanted: Whether an assignment may still be fulfilled.
    /// - Throws: ``CoordinationError`` with code `storage_failed` where the disk does not say which there are.
    func sweep(isWanted: (_ assignment: String) -> Bool) throws(CoordinationError) {
        try forEach(Self.partialSuffix) { path, assignment in
            if !isWanted(assignment) { blobs.removeAtOnce([path]) }
        }
    }

    /// Makes the files of uploads that a stop interrupted ready to be continued.
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed` where the disk does not say which there are.
    func recover(isWanted: (_ assignment: String) -> Bool) throws(CoordinationError) {
        try forEach(Self.judgedSuffix) { path, assignment in
            if isWanted(assignment) { rename(path, partialPath(assignment)) } else { blobs.removeAtOnce([path]) }
        }
        try sweep(isWanted: isWanted)
    }

    private func forEach(
        _ suffix: String,
        _ body: (_ path: String, _ assignment: String) -> Void
    ) throws(CoordinationError) {
        for name in try DurableFiles.names(in: blobs.spoolDirectory) ?? [] where name.hasSuffix(suffix) {
            body(blobs.spoolPath(name), String(name.dropLast(suffix.count)))
        }
    }
}

extension UpdateReceipt {
    /// The receipt of an accepted update.
    init(_ record: AssignmentRecord, _ facts: SpooledReceipt, _ head: PopulationLedgerHead?) {
        self.init(assignment: record.id, state: record.state, sha256: facts.sha256, bytes: facts.byteCount)
        ledgerHead = head
    }
}
