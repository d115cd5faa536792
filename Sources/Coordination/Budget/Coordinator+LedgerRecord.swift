import Foundation
import Logging
import WireFormat

#if canImport(Glibc)
import Glibc
#endif

/// Why the ledger's second record does not hold what the ledger does.
struct LedgerRecordTrouble: Sendable {
    var reason: String
    var since: Date
    /// When it is tried again.
    var until: Date
    var pause: Double
    /// Whether the record was never read since the server's start: it may know of more than the ledger.
    var isUnread: Bool

    var code: String { isUnread ? "ledger_record_unread" : "ledger_record_unwritable" }

    /// What a round that wants to open is told.
    var error: CoordinationError {
        CoordinationError(
            .unavailable,
            code,
            "\(reason): private runs wait until it can be kept, and go on by themselves"
        )
    }
}

/// The ledger's second record, which fails closed: no private work is handed out that it does not know of.
extension Coordinator {
    /// Seconds between two tries to write it.
    private static let recordPauses = 0.5...10.0

    /// Compares the record with the ledger at start, and brings it up.
    ///
    /// A record that is a prefix of the ledger's chain is what a stop between a transaction and the record leaves. One that is ahead, of
    /// another history, damaged, or not there is an alarm: privacy may have been spent that the database forgot. Every ledger has a
    /// record, since a start makes it before the first row.
    func openLedgerRecord() throws {
        ledgerAlarm = nil
        ledgerLost = []
        ledgerLostHeads = []
        ledgerLostBudgets = [:]
        ledgerCommonSequence = 0
        let path = configuration.ledgerHeadPath
        do {
            guard let head = try LedgerHead.read(path: path) else { return try openWithoutRecord(path) }
            noteRecordRead()
            hasLedgerRecord = true
            if let contradiction = head.contradiction(of: ledger) {
                raiseAlarm(contradiction, head)
            } else if head.sequence < restoredRowCount() {
                raiseAlarm(
                    "this directory was made of a backup, and the ledger's second record is older than that: it does not say whether "
                        + "privacy was spent after it",
                    nil
                )
            } else if head.isBehind(ledger) {
                logger.notice(
                    "The ledger's second record is brought up",
                    metadata: ["from": "\(head.sequence)", "to": "\(ledger.rows.count)"]
                )
            }
        } catch let error as CoordinationError where error.storage != nil {
            // It may be ahead: nothing is written over it before it was read, and until then it is an alarm that may pass.
            isLedgerRecordUnread = true
            return trouble(error)
        } catch let error as CoordinationError where error.code == LedgerHead.damaged {
            noteRecordRead()
            hasLedgerRecord = true
            raiseAlarm(error.message, nil)
        }
        writeLedgerHead()
    }

    /// Notes that the record's place has been looked at, whatever is there.
    private func noteRecordRead() {
        guard isLedgerRecordUnread else { return }
        isLedgerRecordUnread = false
        storage.noteSuccess(.ledgerRecord)
        guard let trouble = ledgerRecordTrouble else { return }
        ledgerRecordTrouble = nil
        let waited = Int(now.timeIntervalSince(trouble.since).rounded())
        logger.notice("The ledger's second record has been read", metadata: ["waited_s": "\(waited)"])
    }

    private func openWithoutRecord(_ path: String) throws {
        // Something was there that could not be read: it is not the first time.
        let mayMake = configuration.mayMakeLedgerHead && !isLedgerRecordUnread
        noteRecordRead()
        guard !ledger.rows.isEmpty else { return writeLedgerHead() }
        let isConfigured = path != configuration.defaultLedgerHeadPath
        // The note says more than the command line: what the backup does not know was never written down here.
        if access(configuration.restoredNotePath, F_OK) == 0 {
            raiseAlarm(
                "this directory was made of a backup, and no second record of the ledger says whether privacy was spent after that",
                nil
            )
        } else if mayMake {
            logger.notice("The ledger's second record is made for the first time", metadata: ["path": "\(path)"])
        } else {
            let name = isConfigured ? "the one that ledger_head names" : "ledger.head in the data directory"
            raiseAlarm(
                "the ledger's second record, \(name), is not there: put it back and start again. If there never was one, start once "
                    + "with --new-ledger-head",
                nil
            )
        }
        writeLedgerHead()
    }

    /// How many rows the ledger of the backup had that this directory was made of; 0 where it was made of none.
    private func restoredRowCount() -> Int {
        struct Note: Decodable { var ledgerRows: Int? }
        let data = FileManager.default.contents(atPath: configuration.restoredNotePath)
        return data.flatMap { try? WireCoding.decode(Note.self, from: $0) }?.ledgerRows ?? 0
    }

    private func raiseAlarm(_ reason: String, _ head: LedgerHead?) {
        ledgerAlarm = reason
        isLedgerRecordMissing = head == nil
        ledgerLost = head?.lost(from: ledger) ?? []
        ledgerLostHeads = head?.lostHeads(from: ledger) ?? []
        ledgerLostBudgets = Dictionary(
            (head?.budgets ?? []).map { ($0.population, $0.epsilon) },
            uniquingKeysWith: min
        )
        ledgerCommonSequence = head?.commonSequence(with: ledger) ?? 0
        logger.critical(
            "The privacy ledger and its second record disagree",
            metadata: ["reason": "\(reason)", "path": "\(configuration.ledgerHeadPath)"]
        )
    }

    /// Brings the second record up to the durable ledger; called at start, after every transaction that appended to it, and until it
    /// succeeds.
    ///
    /// What is there is read before: a record that is ahead is never overwritten.
    func writeLedgerHead() {
        guard ledgerAlarm == nil else { return }
        guard !isLedgerRecordUnread else {
            // It was never read: what it says comes first.
            do { try openLedgerRecord() } catch { trouble(error) }
            return
        }
        let path = configuration.ledgerHeadPath
        do {
            if overrulesRecord {
                overruleLedgerRecord()
                if ledgerRecordTrouble == nil { overrulesRecord = false }
                return
            }
            if let head = try LedgerHead.read(path: path) {
                if let contradiction = head.contradiction(of: ledger) { return raiseAlarm(contradiction, head) }
                // Nothing is to be lost yet.
                if ledger.rows.isEmpty, ledgerRecordTrouble == nil { return }
            } else if hasLedgerRecord {
                throw StorageFailure(.open, path: path, role: .ledgerRecord, code: ENOENT).error
            }
            try LedgerHead(ledger).write(path: path)
            hasLedgerRecord = true
            storage.noteSuccess(.ledgerRecord)
            if let trouble = ledgerRecordTrouble {
                ledgerRecordTrouble = nil
                let waited = Int(now.timeIntervalSince(trouble.since).rounded())
                logger.notice("The ledger's second record is kept again", metadata: ["waited_s": "\(waited)"])
            }
        } catch let error as CoordinationError where error.code == LedgerHead.damaged {
            raiseAlarm(error.message, nil)
        } catch {
            trouble(error)
        }
    }

    private func trouble(_ error: any Error) {
        let failure = StorageFailure(error)
        if let failure { storage.note(failure) }
        let known = ledgerRecordTrouble
        let pause = min(Self.recordPauses.upperBound, known.map { $0.pause * 2 } ?? Self.recordPauses.lowerBound)
        ledgerRecordTrouble = LedgerRecordTrouble(
            reason: failure?.sentence ?? Self.sentence(of: error),
            since: known?.since ?? now,
            until: now.addingTimeInterval(pause),
            pause: pause,
            isUnread: isLedgerRecordUnread
        )
        guard known == nil else { return }
        logger.error(
            isLedgerRecordUnread
                ? "The ledger's second record cannot be read: private runs wait"
                : "The ledger's second record cannot be kept: private runs wait",
            metadata: [
                "path": "\(failure?.path ?? configuration.ledgerHeadPath)",
                "reason": "\(ledgerRecordTrouble?.reason ?? "")",
            ]
        )
    }

    /// Tries again to keep the record, when it is time.
    func retryLedgerRecord() {
        guard let trouble = ledgerRecordTrouble, isDue(trouble.until, setAhead: trouble.pause) else { return }
        writeLedgerHead()
    }

    /// Keeps the record that an acknowledgement overrules, under a name that nothing overwrites.
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed`; the alarm stays then.
    func keepOverruledRecord() throws {
        let path = configuration.ledgerHeadPath
        guard access(path, F_OK) == 0 else {
            guard errno == ENOENT || errno == ENOTDIR else { throw BlobStore.failure(.open, path, .ledgerRecord) }
            return
        }
        let data = try BlobStore.read(path, role: .ledgerRecord)
        let stamp = now.formatted(.iso8601.year().month().day().time(includingFractionalSeconds: false))
            .filter(\.isNumber)
        let name = path + ".overruled-" + stamp
        // Two acknowledgements may come in one second.
        var (free, count) = (name, 1)
        while access(free, F_OK) == 0 {
            count += 1
            free = "\(name)-\(count)"
        }
        try BlobStore.writeDurably(data, to: free, role: .ledgerRecord)
    }

    /// Puts what the ledger says in the place of a record that was acknowledged, and kept under another name.
    func overruleLedgerRecord() {
        do {
            try LedgerHead(ledger).write(path: configuration.ledgerHeadPath)
            hasLedgerRecord = true
            ledgerRecordTrouble = nil
        } catch {
            // The next start would raise the alarm again; until then it is tried as any record is.
            overrulesRecord = true
            trouble(error)
        }
    }

    /// What is the matter with the second record, for operators; `nil` where nothing is.
    func ledgerProblems() -> [ProblemView] {
        if let ledgerAlarm {
            return [
                ProblemView(
                    code: "ledger_alarm",
                    severity: "error",
                    detail:
                        "The privacy ledger and its second record disagree: \(ledgerAlarm). Private runs stand still until the newest "
                        + "database is put back, or an administrator acknowledges it (POST /v1/ledger/acknowledgement), which charges "
                        + "again what was lost."
                )
            ]
        }
        guard let trouble = ledgerRecordTrouble else { return [] }
        let also =
            trouble.isUnread
            ? " It was never read since the server's start, and may know of charges that the database has forgotten."
            : ""
        let seconds = max(0, Int(now.timeIntervalSince(trouble.since)))
        return [
            ProblemView(
                code: trouble.code,
                severity: "error",
                detail:
                    "\(trouble.reason.prefix(1).uppercased() + trouble.reason.dropFirst()).\(also) Private runs have waited for \(seconds) s; "
                    + "they go on by themselves, and lose nothing."
            )
        ]
    }

    /// The second record's state in a word: `kept`, `unwritable`, `unread`, or `alarm`.
    package var ledgerRecordState: String {
        if ledgerAlarm != nil { return "alarm" }
        if isLedgerRecordUnread { return "unread" }
        return ledgerRecordTrouble != nil ? "unwritable" : "kept"
    }
}
