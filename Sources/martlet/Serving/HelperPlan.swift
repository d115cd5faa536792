import Coordination
import Crypto
import Foundation
import HelperClient
import MartletClient
import MartletTransport

/// The helper that the settings name: where it is, who asks, and the key that its grants are checked by.
struct HelperPlan: Sendable {
    var url: String
    var tokenPath: String
    var key: Curve25519.Signing.PublicKey
    var authorityPath: String?

    /// Judges the settings; `nil` if they name no helper.
    init?(_ settings: Settings, _ problems: inout [String]) {
        guard let url = settings.optional("helper_url") else {
            for name in ["helper_token_file", "helper_key", "helper_ca"] where settings.optional(name) != nil {
                problems.append("\(name) needs helper_url too")
            }
            return nil
        }
        do { _ = try ServerOrigin(url) } catch { problems.append("helper_url: \(error)") }
        let isLocal = URL(string: url)?.host.map { ServerPlan.isLoopback($0) } ?? false
        if !url.lowercased().hasPrefix("https://"), !isLocal {
            problems.append("helper_url must begin with https://: the token would cross the network in plain text")
        }
        guard let tokenPath = settings.optional("helper_token_file"), let keyPath = settings.optional("helper_key")
        else {
            problems.append("helper_url needs helper_token_file and helper_key too")
            return nil
        }
        if case .failure(let problem) = ServerPlan.secret(tokenPath) {
            problems.append("helper_token_file: \(problem.description)")
        }
        guard let key = try? HelperKey(file: keyPath).verifyingKey else {
            problems.append(
                "helper_key: \(keyPath) must hold the helper's key as PEM, as martlet helper keys prints it"
            )
            return nil
        }
        (self.url, self.tokenPath, self.key) = (url, tokenPath, key)
        authorityPath = settings.optional("helper_ca")
    }

    /// The helper as the coordinator asks it; its token is read each time, so that a new one needs no start.
    ///
    /// - Throws: `ClientError` for a URL that is none.
    func setting() throws -> HelperSetting {
        let tokenPath = tokenPath
        let connection = try HelperConnection(
            url: url,
            transport: CurlTransport(
                connectionLimit: 4,
                security: TransportSecurity(authorityPath: authorityPath)
            )
        ) {
            switch ServerPlan.secret(tokenPath) {
            case .success(let token): return token
            case .failure:
                throw ClientError(code: "helper_token_missing", message: "helper_token_file cannot be read")
            }
        }
        return HelperSetting(party: connection, key: key)
    }
}
