import Coordination
import CoordinatorAPI
import Foundation
import HTTPServing
import Logging

/// The settings, judged together and turned into what the server's parts take.
struct ServerPlan: Sendable {
    var dataDirectory: String
    var http: ServerConfiguration
    var coordination: CoordinatorConfiguration
    var limits = CallerLimits()
    var tls: TLSConfiguration?
    var isOpen: Bool
    var logLevel: Logger.Level
    var logsJSON: Bool
    var slowRequest: Duration
    var adminToken: String?
    var viewerTokenFile: String?
    var gracePeriod: Duration
    var helper: HelperPlan?

    /// Judges the settings.
    ///
    /// - Parameters:
    ///   - settings: The effective settings.
    ///   - needsDirectory: Whether settings without a data directory are wrong, as they are for a server.
    /// - Throws: ``Settings/Invalid`` naming every problem.
    init(_ settings: Settings, needsDirectory: Bool = true) throws {
        var problems: [String] = []
        dataDirectory = settings.text("data_dir")
        if needsDirectory && dataDirectory.isEmpty { problems.append("data_dir is needed: give --data-dir DIR") }
        var host = "127.0.0.1"
        var port = 0
        if let address = Self.address(settings.text("listen")) {
            (host, port) = address
        } else {
            problems.append("listen must be HOST:PORT, such as 127.0.0.1:8080, not '\(settings.text("listen"))'")
        }
        isOpen = settings.flag("insecure_no_auth")
        if isOpen && !Self.isLoopback(host) {
            problems.append("insecure_no_auth is for loopback addresses only, not \(host)")
        }
        let proxies = settings.list("behind_proxy")
        tls = Self.tls(settings, &problems)
        if tls == nil && proxies.isEmpty && !Self.isLoopback(host) {
            problems.append(
                "listen \(host) can be reached from other machines, and tokens would cross the network in plain text: give "
                    + "--tls-certificate and --tls-key, or --behind-proxy with the proxy that does TLS, or listen on 127.0.0.1"
            )
        }
        limits = Self.limits(settings, proxies: proxies == ["none"] ? [] : proxies, &problems)
        http = ServerConfiguration(host: host, port: port)
        http.connectionLimit = settings.integer("limits.connections")
        http.connectionsPerAddressLimit = settings.integer("limits.connections_per_address")
        http.unlimitedPeers = limits.proxies
        http.firstByteTimeout = settings.duration("limits.first_byte_timeout_s")
        http.leastBytesPerSecond = settings.integer("limits.least_bytes_per_s")
        http.headByteLimit = settings.bytes("limits.head_bytes")
        http.headerFieldLimit = settings.integer("limits.head_fields")
        http.headTimeout = settings.duration("limits.head_timeout_s")
        http.transferTimeout = settings.duration("limits.transfer_timeout_s")
        http.idleTimeout = settings.duration("limits.idle_timeout_s")
        coordination = CoordinatorConfiguration(dataDirectory: dataDirectory)
        let clientRate = settings.number("rate.client_per_s")
        coordination.clientRequestsPerSecond = clientRate > 0 ? clientRate : nil
        coordination.modelByteLimit = settings.bytes("limits.model_bytes")
        coordination.uploadByteLimit = settings.bytes("limits.upload_bytes")
        if let path = settings.optional("ledger_head") { coordination.ledgerHeadPath = path }
        limits.documentBytes = settings.bytes("limits.document_bytes")
        coordination.eventListenerLimit = settings.integer("limits.event_streams")
        coordination.waiterLimit = settings.integer("limits.long_polls")
        coordination.openRunLimit = settings.integer("limits.open_runs")
        logLevel = settings.word("log.level")
        logsJSON =
            switch settings.word("log.format", as: LogFormat.self) {
            case .json: true
            case .auto: isatty(2) == 0
            case .text: false
            }
        slowRequest = settings.duration("log.slow_request_s")
        viewerTokenFile = settings.optional("viewer_token_file")
        gracePeriod = settings.duration("shutdown_grace_s")
        helper = HelperPlan(settings, &problems)
        if let path = settings.optional("admin_token_file") {
            switch Self.secret(path) {
            case .success(let token): adminToken = token
            case .failure(let problem): problems.append("admin_token_file: \(problem.description)")
            }
        }
        guard problems.isEmpty else { throw Settings.Invalid(problems: problems) }
    }

    /// TLS, when a certificate is named; the files are read, so that a wrong one is found here.
    private static func tls(_ settings: Settings, _ problems: inout [String]) -> TLSConfiguration? {
        guard let certificate = settings.optional("tls.certificate"), let key = settings.optional("tls.key") else {
            if settings.optional("tls.certificate") != nil {
                problems.append("tls.certificate needs tls.key too: give --tls-key")
            } else if settings.optional("tls.key") != nil {
                problems.append("tls.key needs tls.certificate too: give --tls-certificate")
            } else if settings.optional("tls.client_ca") != nil {
                problems.append(
                    "tls.client_ca needs tls.certificate and tls.key too: give --tls-certificate and --tls-key"
                )
            }
            return nil
        }
        let authority = settings.optional("tls.client_ca")
        var wanted: TLSConfiguration.ClientCertificates = settings.word("tls.client_certificates")
        if authority != nil && wanted == .none { wanted = .optional }
        let configuration = TLSConfiguration(
            certificatePath: certificate,
            keyPath: key,
            clientAuthorityPath: authority,
            clientCertificates: wanted,
            requiresVersion13: settings.text("tls.minimum_version") == "1.3"
        )
        do throws(TLSError) { _ = try TLSContext(configuration) } catch { problems.append("tls: \(error.description)") }
        return configuration
    }

    /// Asking for work, four files with their repeats, the ledger's links, signs of life, and an update in parts.
    private static let leastBurst = 20.0

    private static func limits(_ settings: Settings, proxies: [String], _ problems: inout [String]) -> CallerLimits {
        func limiter(_ name: String) -> RateLimiter? {
            let rate = settings.number("rate.\(name)_per_s")
            guard rate > 0 else { return nil }
            if name != "guesses", settings.number("rate.\(name)_burst") < leastBurst {
                problems.append(
                    "rate.\(name)_burst must be at least \(Int(leastBurst)): one client's work in one round is so many requests"
                )
            }
            return RateLimiter(
                .init(perSecond: rate, burst: settings.number("rate.\(name)_burst")),
                capacity: settings.integer("rate.table_entries")
            )
        }
        var limits = CallerLimits()
        limits.address = limiter("address")
        limits.client = limiter("client")
        limits.guesses = limiter("guesses")
        limits.exempt = NetworkList(settings.list("rate.exempt"))
        if limits.exempt == nil { problems.append("rate.exempt must hold addresses and networks such as 10.0.0.0/8") }
        limits.proxies = NetworkList(proxies)
        if limits.proxies == nil {
            problems.append("behind_proxy must hold addresses and networks such as 10.0.0.0/8, or be none")
        }
        return limits
    }

    static func isLoopback(_ host: String) -> Bool {
        // Numbers only: 127.0.0.example is somebody's name.
        host == "localhost" || host == "::1" || NetworkAddress(host)?.party.hasPrefix("127.") ?? false
    }

    private static func address(_ text: String) -> (String, Int)? {
        guard let colon = text.lastIndex(of: ":"), let port = Int(text[text.index(after: colon)...]),
            (0...65_535).contains(port)
        else { return nil }
        let host = text[..<colon].trimmingCharacters(in: CharacterSet(charactersIn: "[]"))
        return host.isEmpty ? nil : (host, port)
    }

    /// A secret from its file, without the line break at its end.
    static func secret(_ path: String) -> Result<String, Failure> {
        guard let data = FileManager.default.contents(atPath: path) else {
            return .failure(Failure("\(path) cannot be read: \(DocumentFile.reason(path))"))
        }
        let text = String(decoding: data, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
        guard text.utf8.count >= 32, text.utf8.allSatisfy({ $0 > 32 && $0 < 127 }) else {
            return .failure(Failure("\(path) must hold one token of at least 32 printable characters"))
        }
        return .success(text)
    }
}

/// How the server writes its log.
enum LogFormat: String, CaseIterable {
    /// Text on a terminal, else JSON.
    case auto
    case text, json
}
