/// A helper's domain, by its name.
package struct DomainReference: TextParameter {
    package static var placeholder: String { "domain" }
    package let text: String
    package init(_ text: String) { self.text = text }
}

/// A session of a helper, by the SHA-256 of its document.
package struct SessionReference: TextParameter {
    package static var placeholder: String { "session" }
    package let text: String
    package init(_ text: String) { self.text = text }
}

/// Everything that a helper can be asked.
///
/// A helper's clients are servers, each with a token of one domain. `openapi-helper.yaml` describes the same endpoints; a test holds
/// the two together.
package enum HelperEndpoints {
    // MARK: - The helper as a whole

    package static let health = Endpoint<Anybody, NoDocument, HealthView>(.get, "/healthz", .anybody)
    package static let readiness = Endpoint<Anybody, NoDocument, HealthView>(.get, "/readyz", .anybody)
    package static let metrics = Endpoint<Staff, NoDocument, Octets>(.get, "/metrics", .viewer)
    package static let key = Endpoint<Anybody, NoDocument, HelperKeyView>(.get, "/v1/helper/key", .anybody)
    package static let status = Endpoint<Staff, NoDocument, HelperStatusView>(.get, "/v1/helper/status", .viewer)
    package static let audit = Endpoint<Staff, NoDocument, Page<AuditEntry>>(.get, "/v1/helper/audit", .viewer)
    package static let acknowledge = Endpoint<Staff, HelperAcknowledgement, HelperStatusView>(
        .post,
        "/v1/helper/ledger/acknowledgement",
        .admin
    )

    // MARK: - Domains

    package static let createDomain = Endpoint<Staff, HelperDomainRequest, HelperDomainView>(
        .post,
        "/v1/helper/domains",
        .admin
    )
    package static let domains = Endpoint<Staff, NoDocument, Page<HelperDomainView>>(
        .get,
        "/v1/helper/domains",
        .viewer
    )
    package static let domain = Endpoint<TokenHolders, NoDocument, HelperDomainView, DomainReference>(
        .get,
        "/v1/helper/domains/{domain}",
        .populationReader
    )
    package static let changeDomain = Endpoint<Staff, HelperDomainChange, HelperDomainView, DomainReference>(
        .patch,
        "/v1/helper/domains/{domain}",
        .admin
    )
    package static let ledger = Endpoint<TokenHolders, NoDocument, LedgerAuditDocument, DomainReference>(
        .get,
        "/v1/helper/domains/{domain}/ledger",
        .populationReader
    )
    package static let createToken = Endpoint<Staff, HelperTokenRequest, HelperTokenView, DomainReference>(
        .post,
        "/v1/helper/domains/{domain}/tokens",
        .admin
    )
    package static let tokens = Endpoint<Staff, NoDocument, Page<HelperTokenView>, DomainReference>(
        .get,
        "/v1/helper/domains/{domain}/tokens",
        .admin
    )
    package static let revokeToken = Endpoint<Staff, NoDocument, NoDocument, TokenReference>(
        .delete,
        "/v1/helper/tokens/{token}",
        .admin
    )

    // MARK: - Sessions

    package static let createSession = Endpoint<Clients, HelperSessionRequest, HelperSessionView>(
        .post,
        "/v1/helper/sessions",
        .client
    )
    package static let session = Endpoint<Clients, NoDocument, HelperSessionView, SessionReference>(
        .get,
        "/v1/helper/sessions/{session}",
        .client
    )
    package static let cancelSession = Endpoint<Clients, NoDocument, NoDocument, SessionReference>(
        .delete,
        "/v1/helper/sessions/{session}",
        .client
    )
    package static let makeSum = Endpoint<Clients, Octets, Octets, SessionReference>(
        .post,
        "/v1/helper/sessions/{session}/sum",
        .client
    )
    package static let sum = Endpoint<Clients, NoDocument, Octets, SessionReference>(
        .get,
        "/v1/helper/sessions/{session}/sum",
        .client
    )
    package static let deleteSum = Endpoint<Clients, NoDocument, NoDocument, SessionReference>(
        .delete,
        "/v1/helper/sessions/{session}/sum",
        .client
    )

    /// Every row of the table.
    package static let all: [EndpointRow] = [
        health.row, readiness.row, metrics.row, key.row, status.row, audit.row, acknowledge.row, createDomain.row,
        domains.row, domain.row, changeDomain.row, ledger.row, createToken.row, tokens.row, revokeToken.row,
        createSession.row, session.row, cancelSession.row, makeSum.row, sum.row, deleteSum.row,
    ]
}
