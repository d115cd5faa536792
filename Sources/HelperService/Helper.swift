package import Coordination
package import Crypto
import Dispatch
import Foundation
package import Logging
package import WireFormat

#if canImport(Glibc)
import Glibc
#endif

/// The second party of sums that nobody can look into alone: it holds the keys of sessions, adds up masks, and takes its noise off.
///
/// All state is in the database and in files; this actor orders what is done to them. Whatever is answered was stored before.
/// A transaction that fails leaves memory in doubt, so the next call reads everything again.
package actor Helper {
    package let configuration: HelperConfiguration
    package nonisolated let metrics: MetricsRegistry
    let store: HelperStore
    let logger: Logger
    let signingKey: Curve25519.Signing.PrivateKey
    /// Where the sums of each domain are made, one after the other, each on all cores; domains share the cores.
    private var sumQueues: [String: DispatchQueue] = [:]

    var domains: [String: DomainRecord] = [:]
    var domainOrder: [String] = []
    var tokens: [String: HelperToken] = [:]
    var ledger = DomainLedger()
    var sessionCounts: [String: [HelperSessionState: Int]] = [:]
    /// Sums that are being made, by session; ``settled(_:)`` alone waits for them.
    var sums: [String: Task<Void, any Error>] = [:]
    /// Files of sums that are being made and in no transaction yet, with their domain and bytes.
    var sumsInWork: [String: (domain: String, byteCount: Int)] = [:]
    /// How many lists of a session were refused after its seeds were opened.
    var refusedLists: [String: Int] = [:]
    /// How many sums were committed in a scope since the start.
    var committedSums: [ParticipationScope: Int] = [:]
    /// When granted sessions end by the machine's uptime, however its clock is set.
    var deadlines: [String: Double] = [:]
    /// The latest time that was seen.
    private var latestTime = Date(timeIntervalSince1970: 0)
    /// Sessions whose key, and files of sums, that may have to be erased yet.
    var keysToErase: Set<String> = []
    var sumsToErase: Set<String> = []
    /// Whether the directories of keys and sums are to be held against the database.
    private var mustReconcile = false
    private var mustReload = false
    /// Whether what is open has to be ended, since the ledger is in doubt.
    private var mustEndOpen = false
    private var isEndingOpen = false
    private var storageCheckedAt = -Double.infinity

    /// Opens what a directory holds, verifies it, and ends what a stop has left over.
    ///
    /// - Parameters:
    ///   - configuration: Where everything is.
    ///   - logger: Where is logged what no answer says.
    ///   - metrics: What is measured.
    /// - Throws: `CoordinationError` or `StoreFailure` where the data cannot be trusted or used.
    package init(
        configuration: HelperConfiguration,
        logger: Logger,
        metrics: MetricsRegistry = .helper()
    ) async throws {
        self.configuration = configuration
        self.logger = logger
        self.metrics = metrics
        for directory in [configuration.dataDirectory, configuration.keyDirectory, configuration.sumDirectory] {
            try FileManager.default.createDirectory(
                atPath: directory,
                withIntermediateDirectories: true,
                attributes: [.posixPermissions: 0o700]
            )
        }
        let store = try HelperStore(path: configuration.databasePath, fault: configuration.storeFault)
        self.store = store
        let state = try store.load()
        let key = try HelperKeyFile.open(configuration.signingKeyPath, mayMake: state.domains.isEmpty)
        signingKey = key
        let publicKey = key.publicKey.rawRepresentation.base64EncodedString()
        guard state.domains.isEmpty || state.publicKey == nil || state.publicKey == publicKey else {
            throw CoordinationError(
                .unavailable,
                "helper_key_changed",
                "the helper's key \(configuration.signingKeyPath) is not the one that devices have pinned: put that back from a backup"
            )
        }
        try take(state)
        let isRecordNew = try ledger.openRecord(configuration) { try store.chainHead(at: $0) }
        if state.publicKey != publicKey { try commit([.publicKey(publicKey)]) }
        if let halt = ledger.halt {
            logger.error("The privacy ledger is in doubt: no session is granted", metadata: ["reason": "\(halt)"])
        }
        // Without an earlier record nothing says that this database was not restored.
        if isRecordNew || ledger.alarm.map({ !$0.isMissing }) ?? false { mustEndOpen = true }
        try endOpenSessions()
        try endWhatAStopLeft()
        try checkClock()
        try reconcile()
        measure()
    }

    var now: Date { configuration.now() }

    /// The key by which devices know this helper.
    package nonisolated var publicKey: Curve25519.Signing.PublicKey { signingKey.publicKey }

    // MARK: - Memory and transactions

    private func take(_ state: HelperState) throws {
        domains = Dictionary(uniqueKeysWithValues: state.domains.map { ($0.name, $0) })
        domainOrder = state.domains.map(\.name)
        tokens = Dictionary(uniqueKeysWithValues: state.tokens.map { ($0.hash, $0) })
        sessionCounts = state.sessionCounts
        latestTime = max(latestTime, state.latestTime)
        try ledger.open(state)
    }

    /// Makes memory what is stored, where a transaction has failed since, and files what memory says.
    ///
    /// - Throws: `StoreFailure` while the database cannot be asked.
    func settle() throws {
        guard mustReload || store.isInDoubt else { return }
        mustReload = true
        try store.settle()
        try take(store.load())
        mustReload = false
        mustReconcile = true
        bringUpRecord()
        eraseWhatIsOwed()
    }

    /// Brings the second record up, and ends what is open if it contradicts.
    func bringUpRecord() {
        ledger.writeRecord(configuration) { [store] in try store.chainHead(at: $0) }
        meetAlarm()
    }

    /// Refuses what a ledger in doubt may not be charged with.
    ///
    /// - Throws: `CoordinationError` `ledger_rolled_back`, `ledger_record_unwritable`.
    func requireTrust() throws {
        defer { meetAlarm() }
        try ledger.requireTrust(configuration) { [store] in try store.chainHead(at: $0) }
    }

    /// Stores changes, with the request's row of the audit log, and then brings up the ledger's second record.
    ///
    /// - Throws: `StoreFailure`; memory is read again before anything else is done.
    func commit(_ changes: [HelperChange]) throws {
        let trail = AuditTrail.current
        let row = trail?.take(at: now, refusal: nil)
        let start = ContinuousClock.now
        latestTime = max(latestTime, now)
        var all = changes + [.latestTime(latestTime)]
        for case .session(let session) in changes { all.append(.transition(ledger.note(session))) }
        if let row { all.append(.audit(row)) }
        Failpoint.reach()
        do {
            try store.commit(all)
        } catch {
            if row != nil { trail?.untake() }
            mustReload = true
            metrics.add("martlet_store_commit_failures_total")
            throw error
        }
        Failpoint.reach()
        metrics.observe("martlet_store_commit_duration_seconds", (ContinuousClock.now - start) / .seconds(1))
        bringUpRecord()
    }

    // MARK: - A ledger in doubt

    /// Ends what is open as soon as the ledger contradicts its second record: at start, while running, and before it is acknowledged.
    ///
    /// A record that is only not there is waited for: sessions neither go on nor end until it is back or the alarm is acknowledged.
    private func meetAlarm() {
        guard let alarm = ledger.alarm, !isEndingOpen else { return }
        if !alarm.isMissing { mustEndOpen = true }
        do { try endOpenSessions() } catch {
            logger.error("Sessions could not be ended yet", metadata: ["error": "\(error)"])
        }
    }

    /// Ends granted sessions with their charge, and drops sums that are kept: another history may have opened the same seeds.
    private func endOpenSessions() throws {
        guard mustEndOpen, !isEndingOpen else { return }
        isEndingOpen = true
        defer { isEndingOpen = false }
        for session in try store.sessions(in: .granted) {
            logger.warning("A session that may have gone on elsewhere was ended; its charge stays")
            try end(session, as: .expired, charge: .committed)
        }
        for session in try store.sessions(in: .summed) { try drop(session) }
        mustEndOpen = false
    }

    // MARK: - Files

    /// Holds keys and sums against the database where that is owed; it is tried again every second.
    func eraseWhatIsOwed() {
        guard mustReconcile || !keysToErase.isEmpty || !sumsToErase.isEmpty else { return }
        do { try reconcile() } catch {
            logger.error("Keys or sums could not be erased yet", metadata: ["error": "\(error)"])
        }
    }

    /// Erases every key whose session is not granted, and every sum that no session names and nobody is making.
    ///
    /// Directories are left alone: a file system of its own has `lost+found`.
    private func reconcile() throws {
        mustReconcile = true
        let keys = Set(try store.sessions(in: .granted).map { $0.id + ".key" })
        try erase(in: configuration.keyDirectory) { keys.contains($0) }
        let sums = Set(try store.sessions(in: .summed).compactMap(\.sumFile))
        try erase(in: configuration.sumDirectory) { sums.contains($0) || sumsInWork[$0] != nil }
        mustReconcile = false
        keysToErase = []
        sumsToErase = []
    }

    private func erase(in directory: String, unless isKept: (String) -> Bool) throws {
        guard let names = try DurableFiles.names(in: directory) else {
            throw StorageFailure(.open, path: directory, role: .file, code: ENOENT).error
        }
        for name in names where !isKept(name) {
            let path = directory + "/" + name
            if try !SecretFile.isDirectory(path) { try SecretFile.erase(path) }
        }
        // What was removed before may not be on the disk yet.
        try DurableFiles.remove([], in: directory)
    }

    // MARK: - The clock

    /// Whether a session has run out: by the clock, or by the uptime, whatever the clock says.
    func isOver(_ session: SessionRecord) -> Bool {
        session.expiresAt <= now || deadlines[session.id].map { $0 <= configuration.uptime() } ?? false
    }

    /// Ends granted sessions if the clock was set back: nothing tells how old their keys are.
    func checkClock() throws {
        let time = now
        if time < latestTime.addingTimeInterval(-HelperConfiguration.clockToleranceSeconds) {
            logger.warning("The clock was set back: open sessions were ended")
            for session in try store.sessions(in: .granted) where sums[session.id] == nil {
                try end(session, as: .expired, charge: .released)
            }
            guard sums.isEmpty else { return }
            latestTime = time
            try commit([])
        } else if time > latestTime.addingTimeInterval(600) {
            try commit([])
        }
    }

    /// The queue on which a domain's sums are made.
    func sumQueue(_ domain: String) -> DispatchQueue {
        if let known = sumQueues[domain] { return known }
        let queue = DispatchQueue(label: "martlet.helper.sums")
        sumQueues[domain] = queue
        return queue
    }

    // MARK: - The audit log

    /// Leaves the row of a request that changed nothing.
    ///
    /// - Parameters:
    ///   - trail: The request's.
    ///   - code: The code of its refusal; `nil` where it was done.
    package func audit(_ trail: AuditTrail, refusal code: String?) {
        guard (try? settle()) != nil, let row = trail.take(at: now, refusal: code) else { return }
        try? store.commit([.audit(row)])
    }

    /// Counts a session that changes its state.
    func count(_ domain: String, from old: HelperSessionState?, to new: HelperSessionState) {
        if let old { sessionCounts[domain, default: [:]][old, default: 0] -= 1 }
        sessionCounts[domain, default: [:]][new, default: 0] += 1
        metrics.add("martlet_helper_sessions_total", 1, ["state": new.rawValue])
        measure()
    }

    func openSessionCount(_ domain: String) -> Int {
        (sessionCounts[domain] ?? [:]).reduce(0) { $0 + ($1.key.isOpen ? $1.value : 0) }
    }

    func sessionCount(_ domain: String) -> Int { (sessionCounts[domain] ?? [:]).values.reduce(0, +) }

    // MARK: - Who asks

    /// The bearer of a token; `nil` for one that is not known or has expired.
    package func principal(token text: String) throws -> HelperPrincipal? {
        try settle()
        guard let token = tokens[Secrets.hash(ofToken: text)], token.expiresAt.map({ $0 > now }) ?? true else {
            return nil
        }
        switch token.bearer {
        case .staff(let role):
            AuditTrail.current?.identify(tokenID: token.id, name: role.rawValue, role: role)
            return .staff(role)
        case .server(let caller):
            AuditTrail.current?.identify(tokenID: token.id, name: caller.server, role: .operator)
            return .server(caller)
        }
    }

    /// Takes a token of the staff that the settings give, in place of an earlier one of its role.
    package func ensureToken(_ text: String, role: StaffRole) throws {
        try settle()
        let hash = Secrets.hash(ofToken: text)
        guard tokens[hash]?.bearer != .staff(role) else { return }
        let token = HelperToken(hash: hash, id: Secrets.identifier("tok"), bearer: .staff(role), createdAt: now)
        let earlier = tokens.values.filter { $0.bearer == .staff(role) }
        try commit(earlier.map { HelperChange.deleteToken(id: $0.id) } + [HelperChange.token(token)])
        for token in earlier { tokens[token.hash] = nil }
        tokens[hash] = token
    }

    /// Whether somebody may administrate the helper yet.
    package var hasAdministrator: Bool { tokens.values.contains { $0.bearer == .staff(.admin) } }

    // MARK: - The helper as a whole

    /// Whether disk and database can be written; they are tried once a second at most, since anybody may ask.
    ///
    /// - Throws: `StoreFailure` or `CoordinationError` `storage_failed`.
    package func checkStorage() throws -> String {
        try settle()
        let uptime = configuration.uptime()
        if uptime >= storageCheckedAt + 1 {
            try store.commit([])
            storageCheckedAt = uptime
            if ledger.trouble != nil { bringUpRecord() }
        }
        return ledger.recordWord
    }

    /// Tries again what the disk has refused so far; called every second.
    func retryWhatIsOwed() throws {
        try endOpenSessions()
        eraseWhatIsOwed()
        if ledger.trouble != nil { bringUpRecord() }
    }

    package func status() throws -> HelperStatusView {
        try settle()
        return HelperStatusView(
            version: ProductVersion.current,
            ledgerRecord: ledger.recordWord,
            halt: ledger.halt,
            ledgerHead: ledger.ledger.head,
            domains: domainOrder.compactMap { name in domains[name].map { view($0) } }
        )
    }

    /// Everything that is measured, in Prometheus' text.
    package func metricsExposition() -> String {
        measure()
        for name in domainOrder { _ = domains[name].map { view($0) } }
        ProcessMeasurements.measure(into: metrics)
        return metrics.exposition()
    }

    func measure() {
        metrics.set("martlet_ledger_alarm", ledger.alarm == nil ? 0 : 1)
        metrics.set("martlet_ledger_record_behind", ledger.trouble == nil ? 0 : 1)
        let open = domainOrder.reduce(0) { $0 + openSessionCount($1) }
        metrics.set("martlet_helper_sessions_open", Double(open))
    }

    package func audit(before sequence: Int, limit: Int) throws -> [AuditEntry] {
        try settle()
        return try store.audit(before: sequence, limit: limit).map {
            AuditEntry(
                sequence: $0.sequence ?? 0,
                at: $0.at.wireTimestamp,
                actor: $0.actor,
                actorName: $0.actorName,
                role: $0.role,
                address: $0.address,
                action: $0.action,
                target: $0.target,
                outcome: $0.outcome,
                code: $0.code,
                requestId: $0.requestId
            )
        }
    }

    /// Ends the alarm: charges again what was lost, and keeps the record that is overruled.
    package func acknowledge(reason: String) throws -> HelperStatusView {
        try settle()
        // What was open when the ledger came into doubt never goes on.
        if ledger.alarm != nil {
            mustEndOpen = true
            try endOpenSessions()
        }
        let count = ledger.ledger.rows.count
        do {
            let found = try ledger.acknowledge(reason: reason, domainOrder.compactMap { domains[$0] }, at: now)
            try commit(found.changes)
            for domain in found.domains { domains[domain.name] = domain }
            ledger.noteLost(try store.load())
        } catch {
            ledger.truncate(to: count)
            throw error
        }
        try ledger.overrule(configuration, at: now)
        logger.notice("A roll-back of the privacy ledger was acknowledged", metadata: ["reason": "\(reason)"])
        return try status()
    }
}

extension MetricsRegistry {
    /// Everything that a helper measures.
    package static func helper() -> MetricsRegistry {
        let states = HelperSessionState.allCases.map { state -> KeyValuePairs<String, String> in
            ["state": state.rawValue]
        }
        let own: [Definition] = [
            .init(
                "martlet_helper_sessions_total",
                .counter,
                "Sessions that came to a state.",
                initial: states
            ),
            .init(
                "martlet_helper_sessions_open",
                .gauge,
                "Sessions that are granted or whose sum is kept.",
                initial: [[:]]
            ),
            .init(
                "martlet_helper_sum_duration_seconds",
                .histogram(durationBounds),
                "The making of a sum, its sync included."
            ),
            .init("martlet_privacy_epsilon_limit", .gauge, "A domain's budget."),
            .init("martlet_privacy_epsilon_spent", .gauge, "Epsilon of the sums that were made, by domain."),
            .init("martlet_privacy_epsilon_reserved", .gauge, "Epsilon reserved by granted sessions, by domain."),
            .init("martlet_ledger_alarm", .gauge, "1 while the privacy ledger and its second record disagree."),
            .init("martlet_ledger_record_behind", .gauge, "1 while the ledger's second record cannot be kept."),
            .init(
                "martlet_store_commit_duration_seconds",
                .histogram(latencyBounds),
                "A transaction, its sync included."
            ),
            .init("martlet_store_commit_failures_total", .counter, "Transactions that failed.", initial: [[:]]),
        ]
        return MetricsRegistry(own + http + process)
    }
}
