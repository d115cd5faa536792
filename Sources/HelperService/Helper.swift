package import Coordination
package import Crypto
import Dispatch
import Foundation
package import Logging
package import WireFormat

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
    /// Sums are made one after the other, each on all cores.
    nonisolated let sumQueue = DispatchQueue(label: "martlet.helper.sums")

    var domains: [String: DomainRecord] = [:]
    var domainOrder: [String] = []
    var tokens: [String: HelperToken] = [:]
    var ledger = DomainLedger()
    var sessionCounts: [String: [HelperSessionState: Int]] = [:]
    /// Sums that are being made, by session.
    var sums: [String: Task<Void, any Error>] = [:]
    /// Files of sums whose transaction may or may not be stored.
    var doubtfulSums: Set<String> = []
    /// Sessions whose key may have to be erased yet.
    var keysToErase: Set<String> = []
    private var mustReload = false

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
        let store = try HelperStore(path: configuration.databasePath)
        self.store = store
        let isNew = try store.load().domains.isEmpty
        signingKey = try HelperKeyFile.open(configuration.signingKeyPath, mayMake: isNew)
        try reload()
        try ledger.openRecord(configuration)
        if let halt = ledger.halt {
            logger.error("The privacy ledger is in doubt: no session is granted", metadata: ["reason": "\(halt)"])
        }
        try endWhatAStopLeft()
        measure()
    }

    var now: Date { configuration.now() }

    /// The key by which devices know this helper.
    package nonisolated var publicKey: Curve25519.Signing.PublicKey { signingKey.publicKey }

    // MARK: - Memory and transactions

    private func reload() throws {
        let state = try store.load()
        domains = Dictionary(uniqueKeysWithValues: state.domains.map { ($0.name, $0) })
        domainOrder = state.domains.map(\.name)
        tokens = Dictionary(uniqueKeysWithValues: state.tokens.map { ($0.hash, $0) })
        sessionCounts = state.sessionCounts
        try ledger.open(state.ledger, state.domains)
    }

    /// Makes memory what is stored, where a transaction has failed since.
    ///
    /// - Throws: `StoreFailure` while the database cannot be asked.
    func settle() throws {
        guard mustReload else { return }
        try store.settle()
        try reload()
        mustReload = false
        ledger.writeRecord(configuration)
        for name in doubtfulSums { try removeSum(unlessKept: name) }
    }

    /// Stores changes, with the request's row of the audit log, and then brings up the ledger's second record.
    ///
    /// - Throws: `StoreFailure`; memory is read again before anything else is done.
    func commit(_ changes: [HelperChange]) throws {
        let trail = AuditTrail.current
        let row = trail?.take(at: now, refusal: nil)
        let start = ContinuousClock.now
        Failpoint.reach()
        do {
            try store.commit(row.map { changes + [HelperChange.audit($0)] } ?? changes)
        } catch {
            if row != nil { trail?.untake() }
            mustReload = true
            metrics.add("martlet_store_commit_failures_total")
            throw error
        }
        Failpoint.reach()
        metrics.observe("martlet_store_commit_duration_seconds", (ContinuousClock.now - start) / .seconds(1))
        ledger.writeRecord(configuration)
    }

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

    /// Whether disk and database can be written.
    ///
    /// - Throws: `StoreFailure` or `CoordinationError` `storage_failed`.
    package func checkStorage() throws -> String {
        try settle()
        do { try store.commit([]) } catch {
            mustReload = true
            throw error
        }
        if ledger.trouble != nil { ledger.writeRecord(configuration) }
        return ledger.recordWord
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
        let count = ledger.ledger.rows.count
        do {
            let rows = try ledger.acknowledge(reason: reason, domainOrder.compactMap { domains[$0] }, at: now)
            try commit(rows.map { HelperChange.ledger($0) })
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
