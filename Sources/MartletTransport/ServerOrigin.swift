import Foundation
import StrictJSON
package import WireFormat

/// The server that the device's owner has configured: the only place that requests go to, and tokens with them.
///
/// A path of the server's is a `ServerPath`, which cannot leave it; there is no other way from an answer to a URL.
package struct ServerOrigin: Sendable {
    /// Scheme, host and port, and where the server lies below a prefix that too; without a slash at its end.
    package let base: String

    /// Takes the owner's URL.
    ///
    /// - Throws: ``ClientError`` with code `server_url` for what is no `http://` or `https://` URL with a host, or has a user,
    ///   a query or a fragment.
    package init(_ text: String) throws {
        let base = text.hasSuffix("/") ? String(text.dropLast()) : text
        guard let url = URLComponents(string: base), ["http", "https"].contains(url.scheme?.lowercased()),
            !(url.host ?? "").isEmpty, url.user == nil, url.password == nil, url.query == nil, url.fragment == nil
        else {
            throw ClientError(
                code: "server_url",
                message:
                    "the server's URL must be like http://127.0.0.1:8080, not \(PrintableText.escaped(text, limit: 200))"
            )
        }
        self.base = base
    }

    /// The URL of a path of this server.
    package func url(_ path: ServerPath) -> String { base + path.text }
}
