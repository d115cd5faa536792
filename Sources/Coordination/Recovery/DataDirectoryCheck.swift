import Foundation
import StrictJSON
import WireFormat

#if canImport(Glibc)
import Glibc
#endif

/// What a check of a data directory found.
package struct Finding: Codable, Equatable, Sendable {
    package enum Severity: String, Codable, CaseIterable, Sendable {
        /// A server would not start, or has lost something.
        case error
        case warning, notice, ok
    }

    package var severity: Severity
    /// Stable and machine-readable, such as `blob_missing`.
    package var code: String
    /// What is the matter, where.
    package var message: String
    /// What to do.
    package var remedy: String?

    package init(_ severity: Severity, _ code: String, _ message: String, remedy: String? = nil) {
        self.severity = severity
        self.code = code
        self.message = message
        self.remedy = remedy
    }
}

extension Finding {
    /// The code of a database that a newer version wrote.
    package static let schemaTooNew = "schema_too_new"

    /// Errors first.
    package static func order(_ finding: Finding) -> Int {
        Severity.allCases.firstIndex(of: finding.severity) ?? 0
    }
}

/// Holds the files of a data directory against what the database says of them.
package struct DataDirectoryCheck: Sendable {
    private let state: StoredState
    private let blobs: any BlobStore
    private let ledgerHeadPath: String?
    /// A backup holds no updates of private runs, and misses none.
    private let isBackup: Bool

    /// Prepares a check.
    ///
    /// - Parameters:
    ///   - state: The whole state, as the store has it.
    ///   - blobs: The directory's files.
    ///   - ledgerHeadPath: The ledger's second record; `nil` where none belongs, as in a backup.
    ///   - isBackup: Whether the directory is a backup and no server's.
    package init(state: StoredState, blobs: any BlobStore, ledgerHeadPath: String? = nil, isBackup: Bool = false) {
        self.isBackup = isBackup
        self.state = state
        self.blobs = blobs
        self.ledgerHeadPath = ledgerHeadPath
    }

    /// The assignments whose acknowledged update is not on disk as it was received, and is still needed.
    ///
    /// Of open rounds only, since a closed round's updates are gone by design. Every such file is hashed; one that the disk does not
    /// give now is not lost. An attempt whose result stands needs no updates any more.
    package func lostUpdates() -> [AssignmentRecord] {
        let privateRuns = isBackup ? privateRuns : []
        let lost = awaited().filter { record in
            guard !privateRuns.contains(record.runId) else { return false }
            do throws(CoordinationError) {
                var known = record.updateSha256
                if known == nil { known = try SpooledReceipt.read(path: blobs.receiptPath(of: record.id))?.sha256 }
                return try SpooledFile.measure(blobs.updatePath(of: record.id)).sha256 != known
            } catch {
                return error.storage?.isMissing == true
            }
        }
        guard !lost.isEmpty else { return [] }
        let finished = Set(results().filter(\.stands).map(\.run))
        return lost.filter { !finished.contains($0.runId) }
    }

    /// What of the spool belongs into a backup: updates that an open round waits for, and results that wait for their commit.
    ///
    /// Nothing of private runs and of protected ones, whose updates are not noised yet, or masked, and are deleted with their round. A result is named with all its files,
    /// or not at all: without it the sum is made again, of the updates.
    package func spoolNamesForBackup() -> [String] {
        let privateRuns = privateRuns
        let updates = awaited().filter { !privateRuns.contains($0.runId) }.map { $0.id + ".update" }
        return updates + results().filter { $0.stands && !privateRuns.contains($0.run) }.flatMap(\.names)
    }

    /// Names of files in the spool of a backup that belong to a result which is not whole, or not of this database's moment.
    package func unusableResultNames() throws(CoordinationError) -> [String] {
        let standing = Set(results().filter(\.stands).flatMap(\.names))
        return try blobs.listSpool().filter { $0.contains(".result") && !standing.contains($0) }
    }

    /// A closed attempt whose sum is being made, or waits for its commit.
    private struct Result {
        var run: String
        /// The names of its files in the spool, the manifest last; empty if it has no result that stands.
        var names: [String]
        var stands: Bool { !names.isEmpty }
    }

    private func results() -> [Result] {
        let closed = latestRounds.values.filter { $0.phase == .aggregating && !$0.isEvaluation }
        guard !closed.isEmpty else { return [] }
        let accepted = Dictionary(grouping: awaited(), by: \.runId)
        return closed.sorted { $0.runId < $1.runId }.map { round in
            Result(run: round.runId, names: resultNames(of: round, accepted[round.runId] ?? []))
        }
    }

    /// The files of a round's result, if it is whole and was made of what the database says.
    private func resultNames(of round: RoundRecord, _ accepted: [AssignmentRecord]) -> [String] {
        let path = blobs.resultPath(run: round.runId, round: round.number, attempt: round.attempt)
        let base = state.modelVersions.filter { $0.runId == round.runId }.max { $0.version < $1.version }
        do throws(CoordinationError) {
            guard let manifest = try ResultManifest.read(result: path), manifest.base == base?.sha256,
                manifest.inputs == ResultManifest.digest(of: accepted)
            else { return [] }
            let kept = [AggregationJob.noiseSuffix: blobs.noiseStatePath(run: round.runId, version: round.number)]
            guard let places = try manifest.wholeFiles(result: path, orElse: kept) else { return [] }
            let files = manifest.files.map(\.suffix).filter { places[$0] == path + $0 }
            return (files + [ResultManifest.suffix]).map { (path as NSString).lastPathComponent + $0 }
        } catch {
            // The disk does not give it: nothing is believed that was not read.
            return []
        }
    }

    /// The latest attempt of each run.
    private var latestRounds: [String: RoundRecord] {
        Dictionary(state.rounds.map { ($0.runId, $0) }) { _, last in last }
    }

    /// Runs that promise privacy, or that updates are masked in.
    private var privateRuns: Set<String> {
        Set(state.runs.filter { specification(of: $0)?.hidesData ?? true }.map(\.id))
    }

    private func specification(of run: RunRecord) -> RunSpecification? {
        let document = try? JSONValue.parse(Array(run.specification.utf8))
        return document.flatMap { try? RunSpecification.readStored($0) }
    }

    /// Names in the spool that nothing waits for: a stop came before they were used or removed.
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed` where the disk does not say which there are.
    package func leftovers() throws(CoordinationError) -> [String] {
        // What has arrived of an upload whose assignment is open is gone on with.
        let gathering = state.assignments.filter(\.state.isLive).flatMap {
            [$0.id + UpdateFiles.partialSuffix, $0.id + UpdateFiles.judgedSuffix]
        }
        let known = Set(awaited().flatMap { [$0.id + ".update", $0.id + SpooledReceipt.suffix] } + gathering)
        // What the sum of a closed attempt has come to is judged when it goes on.
        let closed = state.rounds.filter { $0.phase == .aggregating }
        let results = Set(closed.map { "\($0.runId)-\($0.number)-\($0.attempt)" })
        return try blobs.listSpool().filter { name in
            if let result = name.range(of: ".result"), !name.contains(".part-") {
                return !results.contains(String(name[..<result.lowerBound]))
            }
            return !known.contains(name)
        }
    }

    /// Everything that a start checks, and what else an operator wants to know.
    ///
    /// - Parameter isDeep: Whether every model file is hashed; else its size is compared.
    /// - Returns: One finding for each thing that was looked at, errors first.
    package func findings(isDeep: Bool) -> [Finding] {
        (ledger() + models(isDeep: isDeep) + updates() + counters() + spool() + directories()).sorted { left, right in
            Finding.order(left) < Finding.order(right)
        }
    }

    // MARK: -

    private func ledger() -> [Finding] {
        do {
            let ledger = try PrivacyLedger(verifying: state.ledger)
            let found = "the privacy ledger's \(state.ledger.count) rows follow from each other"
            return try [Finding(.ok, "ledger", found)] + ledgerHead(ledger)
        } catch {
            return [
                Finding(
                    .error,
                    error.code,
                    error.message,
                    remedy: "restore the database from a backup: a ledger that was edited cannot be trusted"
                )
            ]
        }
    }

    private func ledgerHead(_ ledger: PrivacyLedger) throws(CoordinationError) -> [Finding] {
        guard let ledgerHeadPath else { return [] }
        let head: LedgerHead?
        do {
            head = try LedgerHead.read(path: ledgerHeadPath)
        } catch {
            return [
                Finding(
                    .error,
                    error.code,
                    error.storage.map { "\($0.sentence): \(ledgerHeadPath)" } ?? error.message,
                    remedy: error.code == LedgerHead.damaged
                        ? "put a whole copy in its place; else private runs wait for an acknowledgement (POST "
                            + "/v1/ledger/acknowledgement)"
                        : "private runs wait until the ledger's second record can be read"
                )
            ]
        }
        guard let head else {
            // Nothing was charged, and nothing says otherwise.
            guard !state.ledger.isEmpty else { return [] }
            return [
                Finding(
                    .error,
                    "ledger_head_missing",
                    "the privacy ledger's second record is not there (\(ledgerHeadPath)): a roll-back could not be noticed",
                    remedy: "put it back where there is one; else private runs wait for an acknowledgement (POST "
                        + "/v1/ledger/acknowledgement). If there never was one, start once with --new-ledger-head"
                )
            ]
        }
        guard let contradiction = head.contradiction(of: ledger) else {
            return [Finding(.ok, "ledger_head", "the ledger's second record agrees with it")]
        }
        return [
            Finding(
                .error,
                "ledger_rolled_back",
                contradiction,
                remedy:
                    "use the newest database; or start the server and POST /v1/ledger/acknowledgement with a reason: it "
                    + "charges what was lost again, and no private round opens before"
            )
        ]
    }

    /// Every file that a version needs: the model, what the optimiser remembers, the control variate.
    private func models(isDeep: Bool) -> [Finding] {
        var findings: [Finding] = []
        var intact: Set<String> = []
        var files: [(name: String, sha256: String?, bytes: Int?)] = []
        for version in state.modelVersions {
            let owner = "of version \(version.version) of run \(version.runId)"
            files.append(("the model file \(owner)", version.sha256, version.bytes))
            files.append(("the optimiser's memory \(owner)", version.optimizerSha256, nil))
            files.append(("the control variate \(owner)", version.controlSha256, nil))
        }
        for (name, sha256, bytes) in files {
            guard let sha256, !intact.contains(sha256) else { continue }
            let path = blobs.path(sha256: sha256)
            let (size, actual): (Int?, String?)
            do throws(CoordinationError) {
                size = try DurableFiles.byteCount(path, role: .model)
                actual = isDeep && size != nil && size == bytes ?? size ? try SpooledFile.measure(path).sha256 : nil
            } catch {
                findings.append(Self.unread(error, "\(name) is not known to be whole: \(path)"))
                continue
            }
            if size == nil {
                findings.append(
                    Finding(
                        .error,
                        "blob_missing",
                        "\(name) is missing: \(path)",
                        remedy: "copy it from a backup; its name is its SHA-256"
                    )
                )
            } else if size != bytes ?? size || (isDeep && actual != sha256) {
                findings.append(
                    Finding(
                        .error,
                        "blob_damaged",
                        "\(name) is not what was written: \(path)",
                        remedy: "replace it from a backup; its name is its SHA-256"
                    )
                )
            } else {
                intact.insert(sha256)
            }
        }
        guard findings.isEmpty else { return findings }
        let how = isDeep ? "are there, and their hashes are right" : "are there"
        return [
            Finding(
                .ok,
                "models",
                "the \(intact.count) files of all \(state.modelVersions.count) model versions \(how)"
            )
        ]
    }

    private func updates() -> [Finding] {
        let awaited = awaited()
        let lost = lostUpdates()
        guard lost.isEmpty else {
            return lost.map { record in
                Finding(
                    .error,
                    "update_lost",
                    "the acknowledged update of assignment \(record.id) (round \(record.round) of run \(record.runId)) is "
                        + "missing from the spool or damaged",
                    remedy:
                        "put spool/\(record.id).update back from a backup, or start the server: it abandons the attempt"
                )
            }
        }
        return [Finding(.ok, "updates", "all \(awaited.count) acknowledged updates of open rounds are in the spool")]
    }

    private func counters() -> [Finding] {
        var accepted: [String: Int] = [:]
        for record in state.assignments where record.state == .accepted {
            let (number, attempt) = (record.countedRound ?? record.round, record.countedAttempt ?? record.attempt)
            accepted["\(record.runId)/\(number)/\(attempt)", default: 0] += 1
        }
        let wrong = state.rounds.filter { $0.accepted != accepted["\($0.runId)/\($0.number)/\($0.attempt)"] ?? 0 }
        guard wrong.isEmpty else {
            return wrong.map { round in
                Finding(
                    .error,
                    "count_differs",
                    "round \(round.number) attempt \(round.attempt) of run \(round.runId) says \(round.accepted) updates, "
                        + "its assignments \(accepted["\(round.runId)/\(round.number)/\(round.attempt)"] ?? 0)",
                    remedy: "the database was changed from outside: restore it from a backup"
                )
            }
        }
        return [Finding(.ok, "rounds", "the \(state.rounds.count) rounds count what their assignments say")]
    }

    private func spool() -> [Finding] {
        let stray: [String]
        do throws(CoordinationError) {
            stray = try leftovers()
        } catch {
            return [Self.unread(error, "the spool")]
        }
        guard !stray.isEmpty else { return [] }
        return [
            Finding(
                .notice,
                "spool_leftovers",
                "\(stray.count) files of the spool are of no use any more: a stop came before they were removed",
                remedy: "nothing: the next start removes them"
            )
        ]
    }

    /// Whether names in the directory can be brought to the disk.
    private func directories() -> [Finding] {
        guard let problem = blobs.directorySyncProblem() else { return [] }
        let isUnsupported = [EINVAL, ENOTSUP].contains(problem.code)
        return [
            Finding(
                isUnsupported ? .warning : .error,
                isUnsupported ? "directory_sync_unsupported" : "storage_failed",
                isUnsupported
                    ? "the file system cannot bring a directory's names to the disk: after a power cut files may be gone that were "
                        + "acknowledged" : problem.sentence,
                remedy: isUnsupported
                    ? "put the data directory on a local file system such as ext4 or XFS"
                    : problem.advice
            )
        ]
    }

    /// Accepted updates that a result still waits for.
    private func awaited() -> [AssignmentRecord] {
        var open: [String: RoundRecord] = [:]
        for round in state.rounds { open[round.runId] = round.phase.isFinal ? nil : round }
        // Measurements are files where they are noised before anything of them is kept.
        let measuring = Set(
            state.runs.filter { run in
                open[run.id]?.isEvaluation == true && specification(of: run)?.hasPrivateEvaluation ?? false
            }.map(\.id)
        )
        return state.assignments.filter { record in
            guard record.state == .accepted, !record.isEvaluation || measuring.contains(record.runId),
                let round = open[record.runId]
            else { return false }
            return record.counts(in: round)
        }
    }

    /// What the disk does not say is neither there nor missing.
    private static func unread(_ error: CoordinationError, _ what: String) -> Finding {
        Finding(
            .error,
            error.code,
            "\(what): \(error.storage?.sentence ?? error.message)",
            remedy: error.storage?.advice
        )
    }
}
