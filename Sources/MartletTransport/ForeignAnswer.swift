import Foundation
import StrictJSON
import WireFormat

/// Says who answers in the server's place, in words that help to find and mend it.
enum ForeignAnswer {
    /// What an answer that is none of a Martlet server says about what stands in between.
    static func sentence(_ response: TransportResponse, url: String) -> String {
        let host = URL(string: url)?.host ?? "the server"
        let type = response.mediaType.isEmpty ? "no media type" : PrintableText.escaped(response.mediaType, limit: 60)
        let cause: String
        switch response.status {
        case 300..<400:
            let target = response.headers["location"].map(place) ?? "nowhere"
            cause =
                "a redirect (\(response.status)) to \(target), which a Martlet server never sends: a login page of the "
                + "network, or another address of the server, which belongs into the client's --server"
        case 401, 403:
            cause = "\(response.status) (\(type)), which is not the server's: a firewall or gateway refuses the request"
        case 407: cause = "407: a proxy on the way wants a name and a password"
        case 413:
            cause =
                "413, which is not the server's: something in front of it takes no bodies of this size; its operator must "
                + "raise the limit (nginx: client_max_body_size)"
        case 504:
            cause =
                "504: a proxy in front of the server has waited for its answer in vain; the server is away, or the proxy's "
                + "read time-out is shorter than a long poll (nginx: proxy_read_timeout, 60 s and more)"
        case 502, 503:
            cause = "\(response.status), which is not the server's: a proxy in front of it cannot reach it"
        case 200..<300:
            cause =
                "\(response.status) with something that is no answer of a Martlet server (\(type)): perhaps a login page of "
                + "the network"
        default: cause = "\(response.status) (\(type)), which is not an answer of a Martlet server"
        }
        return "something between this device and \(host) answers \(cause)" + (proxyNote(url).map { "; " + $0 } ?? "")
    }

    /// Which proxy requests to a URL go through, by the environment that libcurl looks at; without its password.
    static func proxyNote(
        _ url: String,
        environment: [String: String] = ProcessInfo.processInfo.environment
    ) -> String? {
        let names = url.hasPrefix("https:") ? ["https_proxy", "HTTPS_PROXY"] : ["http_proxy"]
        for name in names + ["all_proxy", "ALL_PROXY"] {
            guard let value = environment[name], !value.isEmpty else { continue }
            return "\(name) is set to \(place(value))"
        }
        return nil
    }

    /// Scheme, host and path of a URL that came from elsewhere: no secrets of its query, nothing that moves a terminal's cursor.
    static func place(_ text: String) -> String {
        let plain = String(text.prefix { $0 != "?" && $0 != "#" })
        var parts = plain.components(separatedBy: "://")
        if let last = parts.popLast() {
            let slash = last.firstIndex(of: "/") ?? last.endIndex
            let authority = last[..<slash].split(separator: "@").last ?? ""
            parts.append(String(authority) + String(last[slash...]))
        }
        let safe = parts.joined(separator: "://").unicodeScalars.filter { (33...126).contains($0.value) }
        return String(String.UnicodeScalarView(safe).prefix(200))
    }
}
