import ArgumentParser
import Foundation

/// The flags of the server; every other setting has `--set NAME=VALUE`, its environment variable and its place in the file.
struct ServerOptions: ParsableArguments {
    @Option(help: "Where everything is kept; made where it is missing.", completion: .directory)
    var dataDir: String?
    @Option(help: "HOST:PORT; port 0 takes a free one. Default 127.0.0.1:8080.") var listen: String?
    @Flag(help: "Everyone is an administrator; loopback addresses only.") var insecureNoAuth = false
    @Option(help: "PEM: the server's certificate and its chain.", completion: .file()) var tlsCertificate: String?
    @Option(help: "PEM: the certificate's key.", completion: .file()) var tlsKey: String?
    @Option(help: "PEM: authorities of client certificates; clients may then show one.", completion: .file())
    var tlsClientCa: String?
    @Option(
        help:
            "Proxies whose Forwarded fields are believed (10.0.0.0/8,…), or none: plain HTTP is then allowed everywhere."
    )
    var behindProxy: String?
    @Option(help: "trace, debug, info, notice, warning, error.") var logLevel: String?
    @Option(help: "text, json, or auto: text on a terminal.") var logFormat: String?
    @Option(help: "A YAML file of settings (or MARTLET_CONFIG).", completion: .file()) var config: String?
    @Option(name: .customLong("set"), help: "NAME=VALUE for any setting; 'martlet config check' shows them all.")
    var assignments: [String] = []

    /// The effective settings.
    func settings() throws -> Settings {
        var flags: [(key: String, value: String, flag: String)] = []
        for text in assignments {
            let sides = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard sides.count == 2 else { throw ValidationError("--set takes NAME=VALUE, not '\(text)'") }
            flags.append((String(sides[0]), String(sides[1]), "--set"))
        }
        for (key, value, flag) in named() { if let value { flags.append((key, value, flag)) } }
        return try Settings(flags: flags, environment: ProcessInfo.processInfo.environment, file: config)
    }

    private func named() -> [(String, String?, String)] {
        [
            ("data_dir", dataDir, "--data-dir"), ("listen", listen, "--listen"),
            ("insecure_no_auth", insecureNoAuth ? "true" : nil, "--insecure-no-auth"),
            ("tls.certificate", tlsCertificate, "--tls-certificate"), ("tls.key", tlsKey, "--tls-key"),
            ("tls.client_ca", tlsClientCa, "--tls-client-ca"), ("behind_proxy", behindProxy, "--behind-proxy"),
            ("log.level", logLevel, "--log-level"), ("log.format", logFormat, "--log-format"),
        ]
    }
}
