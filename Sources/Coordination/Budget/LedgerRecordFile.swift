import Foundation
import Logging

#if canImport(Glibc)
import Glibc
#endif

/// The file of the ledger's second record, which fails closed: no private work is handed out that it does not know of.
struct LedgerRecordFile: Sendable {
    let configuration: CoordinatorConfiguration
    let storage: StorageHealth
    let logger: Logger

    private var path: String { configuration.ledgerHeadPath }

    /// Compares the record with the ledger at start, and brings it up.
    ///
    /// A record that is a prefix of the ledger's chain is what a stop between a transaction and the record leaves. One that is ahead, of
    /// another history, damaged, or not there is an alarm: privacy may have been spent that the database forgot. Every ledger has a
    /// record, since a start makes it before the first row.
    func open(_ budgets: inout PrivacyBudgets, at time: Date) throws {
        budgets.trust.alarm = nil
        let note: RestoredNote?
        do throws(CoordinationError) {
            note = try RestoredNote.read(path: configuration.restoredNotePath)
        } catch {
            // Whether this directory was made of a backup is not known: until it is, that is an alarm that may pass.
            budgets.trust.noteUnread()
            return noteTrouble(error, &budgets.trust, at: time)
        }
        if note != nil { budgets.trust.noteRestored() }
        let found: LedgerHead?
        do throws(CoordinationError) {
            found = try LedgerHead.read(path: path)
        } catch {
            if error.storage != nil {
                // It may be ahead: nothing is written over it before it was read, and until then it is an alarm that may pass.
                budgets.trust.noteUnread()
                return noteTrouble(error, &budgets.trust, at: time)
            }
            guard error.code == LedgerHead.damaged else { throw error }
            noteRead(&budgets.trust, at: time)
            budgets.trust.hasRecord = true
            return raiseAlarm(error.message, nil, &budgets)
        }
        guard let head = found else { return openWithoutRecord(isRestored: note != nil, &budgets, at: time) }
        noteRead(&budgets.trust, at: time)
        budgets.trust.hasRecord = true
        if let contradiction = head.contradiction(of: budgets.ledger) {
            raiseAlarm(contradiction, head, &budgets)
        } else if let note, note.isDamaged, !budgets.ledger.rows.isEmpty {
            raiseAlarm(
                "this directory was made of a backup, and the note of that, restored.json, is damaged: it does not say whether the "
                    + "ledger's second record is older than the backup",
                nil,
                &budgets
            )
        } else if let note, head.sequence < note.rowCount {
            raiseAlarm(
                "this directory was made of a backup, and the ledger's second record is older than that: it does not say whether "
                    + "privacy was spent after it",
                nil,
                &budgets
            )
        } else if head.isBehind(budgets.ledger) {
            logger.notice(
                "The ledger's second record is brought up",
                metadata: ["from": "\(head.sequence)", "to": "\(budgets.ledger.rows.count)"]
            )
        }
        write(&budgets, at: time)
    }

    private func openWithoutRecord(isRestored: Bool, _ budgets: inout PrivacyBudgets, at time: Date) {
        // Something was there that could not be read: it is not the first time.
        let mayMake = configuration.mayMakeLedgerHead && !budgets.trust.isUnread
        noteRead(&budgets.trust, at: time)
        guard !budgets.ledger.rows.isEmpty else { return write(&budgets, at: time) }
        // The note says more than the command line: what the backup does not know was never written down here.
        if isRestored {
            raiseAlarm(
                "this directory was made of a backup, and no second record of the ledger says whether privacy was spent after that",
                nil,
                &budgets
            )
        } else if mayMake {
            logger.notice("The ledger's second record is made for the first time", metadata: ["path": "\(path)"])
        } else {
            let isConfigured = path != configuration.defaultLedgerHeadPath
            let name = isConfigured ? "the one that ledger_head names" : "ledger.head in the data directory"
            raiseAlarm(
                "the ledger's second record, \(name), is not there: put it back and start again. If there never was one, start once "
                    + "with --new-ledger-head",
                nil,
                &budgets
            )
        }
        write(&budgets, at: time)
    }

    /// Brings the second record up to the durable ledger; called at start, after every transaction that appended to it, and until it
    /// succeeds.
    ///
    /// What is there is read before: a record that is ahead is never overwritten.
    func write(_ budgets: inout PrivacyBudgets, at time: Date) {
        guard budgets.trust.alarm == nil else { return }
        guard !budgets.trust.isUnread else {
            // It was never read: what it says comes first.
            do { try open(&budgets, at: time) } catch { noteTrouble(error, &budgets.trust, at: time) }
            return
        }
        do {
            if budgets.trust.overrulesRecord {
                overrule(&budgets, at: time)
                if budgets.trust.trouble == nil { budgets.trust.overrulesRecord = false }
                return
            }
            if let head = try LedgerHead.read(path: path) {
                if let contradiction = head.contradiction(of: budgets.ledger) {
                    return raiseAlarm(contradiction, head, &budgets)
                }
                // Nothing is to be lost yet.
                if budgets.ledger.rows.isEmpty, budgets.trust.trouble == nil { return }
            } else if budgets.trust.hasRecord {
                throw StorageFailure(.open, path: path, role: .ledgerRecord, code: ENOENT).error
            }
            try LedgerHead(budgets.ledger).write(path: path)
            storage.noteSuccess(.ledgerRecord)
            if let waited = budgets.trust.noteKept(at: time) {
                logger.notice("The ledger's second record is kept again", metadata: ["waited_s": "\(waited)"])
            }
        } catch let error as CoordinationError where error.code == LedgerHead.damaged {
            raiseAlarm(error.message, nil, &budgets)
        } catch {
            noteTrouble(error, &budgets.trust, at: time)
        }
    }

    /// Keeps the record that an acknowledgement overrules, under a name that nothing overwrites.
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed`; the alarm stays then.
    func keepOverruled(at time: Date) throws {
        guard let data = try DurableFiles.readIfPresent(path, role: .ledgerRecord) else { return }
        let stamp = time.formatted(.iso8601.year().month().day().time(includingFractionalSeconds: false))
            .filter(\.isNumber)
        let name = path + ".overruled-" + stamp
        // Two acknowledgements may come in one second.
        var (free, count) = (name, 1)
        while try DurableFiles.exists(free, role: .ledgerRecord) {
            count += 1
            free = "\(name)-\(count)"
        }
        try DurableFiles.write(data, to: free, role: .ledgerRecord)
    }

    /// Puts what the ledger says in the place of a record that was acknowledged, and kept under another name.
    func overrule(_ budgets: inout PrivacyBudgets, at time: Date) {
        do {
            try LedgerHead(budgets.ledger).write(path: path)
            _ = budgets.trust.noteKept(at: time)
        } catch {
            // The next start would raise the alarm again; until then it is tried as any record is.
            budgets.trust.overrulesRecord = true
            noteTrouble(error, &budgets.trust, at: time)
        }
    }

    // MARK: -

    private func noteRead(_ trust: inout LedgerTrust, at time: Date) {
        let (wasUnread, waited) = trust.noteRead(at: time)
        if wasUnread { storage.noteSuccess(.ledgerRecord) }
        guard let waited else { return }
        logger.notice("The ledger's second record has been read", metadata: ["waited_s": "\(waited)"])
    }

    private func raiseAlarm(_ reason: String, _ head: LedgerHead?, _ budgets: inout PrivacyBudgets) {
        budgets.trust.alarm = LedgerAlarm(reason, head, budgets.ledger)
        logger.critical(
            "The privacy ledger and its second record disagree",
            metadata: ["reason": "\(reason)", "path": "\(path)"]
        )
    }

    private func noteTrouble(_ error: any Error, _ trust: inout LedgerTrust, at time: Date) {
        let failure = StorageFailure(error)
        if let failure { storage.note(failure) }
        let reason = failure?.sentence ?? ErrorSentence.text(of: error)
        guard trust.noteTrouble(reason, at: time) else { return }
        logger.error(
            trust.isUnread
                ? "The ledger's second record cannot be read: private runs wait"
                : "The ledger's second record cannot be kept: private runs wait",
            metadata: ["path": "\(failure?.path ?? path)", "reason": "\(reason)"]
        )
    }
}
