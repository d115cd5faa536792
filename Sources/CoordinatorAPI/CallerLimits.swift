import Coordination
import Foundation
package import HTTPServing
import HTTPTypes

/// How often one address and one client may call, and whose word about addresses counts.
package struct CallerLimits: Sendable {
    /// Requests of one address (IPv6: of one /64).
    package var address: RateLimiter?
    /// Requests of one client, whatever address they come from.
    package var client: RateLimiter?
    /// Requests of one address that showed no valid token.
    package var guesses: RateLimiter?
    /// New tokens in place of old ones of one caller, repeats of one registration, and changes that a client makes to its own name,
    /// labels and capabilities: each is a transaction that everybody waits for, whatever address it comes from, and nobody needs many.
    package var renewals: RateLimiter? = RateLimiter(.init(perSecond: 1, burst: 10))
    /// Refused requests of one operator's token that have a row each in the audit log; the rest are counted.
    package var refusals: RateLimiter? = RateLimiter(.init(perSecond: 0.1, burst: 60))
    /// Addresses that are not limited.
    package var exempt: NetworkList?
    /// The largest body other than models and updates.
    package var documentBytes = 1 << 20
    /// The proxies whose `Forwarded` and `X-Forwarded-For` are believed.
    package var proxies: NetworkList?

    package init() {}

    /// Whether a caller is not limited; one behind a proxy that does not say who it is never is, whatever the proxy's address.
    package func isExempt(_ address: String) -> Bool {
        guard let exempt, let parsed = NetworkAddress(address), exempt.contains(parsed) else { return false }
        return !(proxies?.contains(parsed) ?? false)
    }
}

/// Too many requests; the answer says when to come again.
package struct RateLimitError: Error {
    /// By what requests are counted.
    package enum Scope: String, Sendable {
        case address, guesses, client, renewals
    }

    package var scope: Scope
    package var retryAfter: Double

    package init(scope: Scope, retryAfter: Double) {
        self.scope = scope
        self.retryAfter = retryAfter
    }
}

extension CoordinatorAPI {
    /// Finds out who is at the other end, and turns away who asks too often.
    @Sendable func admit(_ request: inout ServerRequest) throws {
        request.documentByteLimit = limits.documentBytes
        if let proxies = limits.proxies, !proxies.isEmpty {
            request.remoteAddress = ForwardedAddress.client(
                peer: request.remoteAddress,
                forwarded: Self.field("Forwarded", request),
                legacy: Self.field("X-Forwarded-For", request),
                proxies: proxies
            )
        } else if limits.isExempt(request.remoteAddress), Self.field("X-Forwarded-For", request) != nil {
            requestLog.noteProxy(request.remoteAddress)
        }
        guard let limiter = limits.address, !limits.isExempt(request.remoteAddress) else { return }
        try charge(limiter, Self.party(request.remoteAddress), scope: .address)
    }

    /// Counts a request without a valid token.
    func noteGuess(_ request: ServerRequest) throws {
        guard let limiter = limits.guesses, !limits.isExempt(request.remoteAddress) else { return }
        try charge(limiter, Self.party(request.remoteAddress), scope: .guesses)
    }

    /// Counts a client's request.
    func noteClient(_ id: String, _ request: ServerRequest) throws {
        guard let limiter = limits.client, !limits.isExempt(request.remoteAddress) else { return }
        try charge(limiter, id, scope: .client)
    }

    /// Counts a request that costs a transaction, such as a new token in place of one that there is.
    func noteRenewal(_ key: String) throws {
        guard let limiter = limits.renewals else { return }
        try charge(limiter, key, scope: .renewals)
    }

    private func charge(_ limiter: RateLimiter, _ key: String, scope: RateLimitError.Scope) throws {
        guard let wait = limiter.take(key) else { return }
        coordinator.metrics.add("martlet_rate_limited_total", 1, ["scope": scope.rawValue])
        throw RateLimitError(scope: scope, retryAfter: wait)
    }

    private static func party(_ address: String) -> String { NetworkAddress(address)?.party ?? address }

    private static func field(_ name: String, _ request: ServerRequest) -> String? {
        HTTPField.Name(name).flatMap { request.headers[$0] }
    }
}
