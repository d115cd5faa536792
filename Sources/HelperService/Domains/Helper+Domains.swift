import Coordination
import Foundation
package import WireFormat

extension Helper {
    // MARK: - Domains

    package func createDomain(_ request: HelperDomainRequest) throws -> HelperDomainView {
        try settle()
        guard domains[request.name] == nil else {
            throw CoordinationError(
                .conflict,
                HelperCode.domainExists.rawValue,
                "there is a domain '\(request.name)': its ledger goes on, whatever it is asked"
            )
        }
        let domain = DomainRecord(name: request.name, policy: request.policy, budget: request.budget, createdAt: now)
        var changes: [HelperChange] = [.domain(domain)]
        let count = ledger.ledger.rows.count
        do {
            if let budget = request.budget {
                let note = LedgerNote(kind: .budget, epsilon: budget.epsilon, delta: budget.delta, accountant: .auto)
                changes.append(.ledger(try ledger.append(note, domain: domain.name, at: now)))
            }
            changes += try ledger.chargeLost(domain, at: now)
            try commit(changes)
        } catch {
            ledger.truncate(to: count)
            throw error
        }
        ledger.noteCharged(domain.name)
        domains[domain.name] = domain
        domainOrder.append(domain.name)
        return view(domain)
    }

    /// Changes a policy, and a budget's ε: lower at will, higher with a reason that stays in the ledger.
    package func changeDomain(_ name: String, _ change: HelperDomainChange) throws -> HelperDomainView {
        try settle()
        var domain = try found(name)
        domain.policy = try change.policy(over: domain.policy, hasBudget: domain.budget != nil)
        var changes: [HelperChange] = []
        let count = ledger.ledger.rows.count
        do {
            if let epsilon = change.epsilon, epsilon != domain.budget?.epsilon {
                guard let budget = domain.budget else {
                    throw CoordinationError(
                        .conflict,
                        "population_without_budget",
                        "'\(name)' has no budget, and sums without noise were made: create another domain"
                    )
                }
                guard epsilon < budget.epsilon || !(change.reason ?? "").isEmpty else {
                    throw CoordinationError(
                        .conflict,
                        HelperCode.reasonRequired.rawValue,
                        "raising epsilon from \(budget.epsilon) to \(epsilon) weakens what was promised: give a reason, it stays "
                            + "in the ledger"
                    )
                }
                domain.budget?.epsilon = epsilon
                let note = LedgerNote(
                    kind: .budget,
                    epsilon: epsilon,
                    delta: budget.delta,
                    accountant: .auto,
                    previousEpsilon: budget.epsilon,
                    reason: change.reason
                )
                changes.append(.ledger(try ledger.append(note, domain: name, at: now)))
            }
            try commit([.domain(domain)] + changes)
        } catch {
            ledger.truncate(to: count)
            throw error
        }
        domains[name] = domain
        return view(domain)
    }

    package func domainViews() throws -> [HelperDomainView] {
        try settle()
        return domainOrder.compactMap { name in domains[name].map { view($0) } }
    }

    package func domainView(_ name: String) throws -> HelperDomainView {
        try settle()
        return view(try found(name))
    }

    package nonisolated func ledgerAudit(_ name: String) async throws -> LedgerAuditDocument {
        // A line for each row of the ledger is made where nobody waits for it.
        try await auditMaterial(name).document
    }

    private func auditMaterial(_ name: String) throws -> DomainLedger.AuditMaterial {
        try settle()
        return try ledger.audit(try found(name))
    }

    func found(_ name: String) throws -> DomainRecord {
        guard let domain = domains[name] else {
            throw CoordinationError(.notFound, HelperCode.notFound.rawValue, "no domain '\(name.prefix(128))' here")
        }
        return domain
    }

    func view(_ domain: DomainRecord) -> HelperDomainView {
        let budget = domain.budget.map { budget in
            let spent = ledger.total(domain.name, budget, committedOnly: true)
            let all = ledger.total(domain.name, budget)
            metrics.set("martlet_privacy_epsilon_limit", budget.epsilon, ["domain": domain.name])
            metrics.set("martlet_privacy_epsilon_spent", spent, ["domain": domain.name])
            metrics.set("martlet_privacy_epsilon_reserved", all - spent, ["domain": domain.name])
            return HelperDomainView.Budget(
                epsilon: budget.epsilon,
                delta: budget.delta,
                spentEpsilon: spent,
                reservedEpsilon: all - spent,
                remainingEpsilon: max(0, budget.epsilon - all)
            )
        }
        return HelperDomainView(
            name: domain.name,
            createdAt: domain.createdAt.wireTimestamp,
            policy: domain.policy,
            budget: budget,
            openSessions: openSessionCount(domain.name),
            sessions: sessionCount(domain.name)
        )
    }

    // MARK: - Tokens

    /// Makes a server's token; its text is in this answer and nowhere else.
    package func createToken(domain: String, _ request: HelperTokenRequest) throws -> HelperTokenView {
        try settle()
        _ = try found(domain)
        let text = Secrets.token()
        let token = HelperToken(
            hash: Secrets.hash(ofToken: text),
            id: Secrets.identifier("tok"),
            bearer: .server(ServerCaller(domain: domain, server: request.server)),
            createdAt: now,
            expiresAt: request.expiresInS.map { now.addingTimeInterval($0) }
        )
        try commit([.token(token)])
        tokens[token.hash] = token
        var view = tokenView(token)
        view?.token = text
        guard let view else { preconditionFailure("a server's token has a server") }
        return view
    }

    package func tokenViews(domain: String) throws -> [HelperTokenView] {
        try settle()
        _ = try found(domain)
        return tokens.values.compactMap { tokenView($0) }.filter { $0.domain == domain }
            .sorted { ($0.createdAt, $0.id) < ($1.createdAt, $1.id) }
    }

    package func revokeToken(_ id: String) throws {
        try settle()
        guard let token = tokens.values.first(where: { $0.id == id }), case .server = token.bearer else {
            throw CoordinationError(
                .notFound,
                HelperCode.notFound.rawValue,
                "no server's token '\(id.prefix(128))' here"
            )
        }
        try commit([.deleteToken(id: id)])
        tokens[token.hash] = nil
    }

    private func tokenView(_ token: HelperToken) -> HelperTokenView? {
        guard case .server(let caller) = token.bearer else { return nil }
        return HelperTokenView(
            id: token.id,
            domain: caller.domain,
            server: caller.server,
            createdAt: token.createdAt.wireTimestamp,
            expiresAt: token.expiresAt?.wireTimestamp
        )
    }
}
