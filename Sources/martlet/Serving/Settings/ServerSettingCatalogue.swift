extension SettingDefinition {
    /// Every setting of `martlet serve`, in the order in which they are shown.
    static let all: [SettingDefinition] = [
        .init("data_dir", .path, "", "Where everything is kept; made where it is missing."),
        .init("listen", .text, "127.0.0.1:8080", "HOST:PORT; port 0 takes a free one."),
        .init("insecure_no_auth", .flag, "false", "Everyone is an administrator; loopback addresses only."),
        .init(
            "admin_token_file",
            .path,
            "",
            "Holds an administrator's token that is to be valid, such as a Docker secret, instead of the one it held before; without it one is made at first start."
        ),
        .init(
            "viewer_token_file",
            .path,
            "",
            "Is to hold a viewer's token, for Prometheus; made where it is missing."
        ),
        .init(
            "ledger_head",
            .path,
            "",
            "The privacy ledger's second record, best on another disk; without it ledger.head in data_dir."
        ),
        .init("shutdown_grace_s", .seconds(0...3600), "10", "How long requests in progress may finish after SIGTERM."),
        .init(
            "log.level",
            .choice(["trace", "debug", "info", "notice", "warning", "error"]),
            "notice",
            "What is logged; requests are at info."
        ),
        .init(
            "log.format",
            .choice(LogFormat.allCases.map(\.rawValue)),
            "auto",
            "auto is text on a terminal and JSON elsewhere."
        ),
        .init("log.slow_request_s", .seconds(0.001...3600), "5", "A request that takes longer is logged as a warning."),
        .init("limits.connections", .integer(1...1_000_000), "8192", "Open connections; further ones are turned away."),
        .init(
            "limits.connections_per_address",
            .integer(1...1_000_000),
            "4096",
            "Open connections of one address (IPv6: of one /64); proxies have no limit."
        ),
        .init(
            "limits.first_byte_timeout_s",
            .seconds(0.1...3600),
            "20",
            "From a connection's beginning to its first request, a TLS handshake included."
        ),
        .init(
            "limits.least_bytes_per_s",
            .integer(1...1_000_000),
            "1024",
            "Bodies and answers that move more slowly are ended, after the first transfer time-out."
        ),
        .init("limits.head_bytes", .bytes(4096...(1 << 20)), "16KiB", "Request line and header fields."),
        .init("limits.head_fields", .integer(24...1000), "100", "Header fields."),
        .init("limits.head_timeout_s", .seconds(0.1...3600), "10", "From the first byte of a head to its last."),
        .init(
            "limits.transfer_timeout_s",
            .seconds(0.1...3600),
            "30",
            "Between two reads of a body or two writes of an answer."
        ),
        .init("limits.idle_timeout_s", .seconds(0.1...86_400), "60", "Between two requests of one connection."),
        .init("limits.model_bytes", .bytes(1024...(1 << 40)), "4GiB", "The largest model or update."),
        .init(
            "limits.upload_bytes",
            .bytes(1024...(1 << 40)),
            "2GiB",
            "Updates on their way in at the same time; further ones are told to come again before they send anything."
        ),
        .init(
            "limits.document_bytes",
            // What a client itself may send: less would refuse check-ins and failures of some.
            .bytes(65_536...(1 << 30)),
            "1MiB",
            "A request's body other than models and updates, such as a run file."
        ),
        .init(
            "limits.event_streams",
            .integer(0...1_000_000),
            "256",
            "Listeners of /v1/events; further ones may poll."
        ),
        .init("limits.long_polls", .integer(0...1_000_000), "10000", "Check-ins that wait at the server."),
        .init("limits.open_runs", .integer(1...10_000), "200", "Runs that have not ended; further ones are refused."),
        .init(
            "rate.address_per_s",
            .number(0...1e6),
            "100",
            "Requests of one address a second (IPv6: of one /64); 0 is no limit."
        ),
        .init("rate.address_burst", .number(1...1e7), "1000", "So many at once."),
        .init("rate.client_per_s", .number(0...1e6), "20", "Requests of one client a second; 0 is no limit."),
        .init("rate.client_burst", .number(1...1e7), "200", "So many at once."),
        .init(
            "rate.guesses_per_s",
            .number(0...1e6),
            "1",
            "Requests of one address without a valid token a second; 0 is no limit."
        ),
        .init("rate.guesses_burst", .number(1...1e7), "60", "So many at once."),
        .init("rate.exempt", .list, "127.0.0.0/8,::1", "Addresses and networks without rate limits."),
        .init(
            "rate.table_entries",
            .integer(16...10_000_000),
            "65536",
            "Addresses and clients that are remembered for the limits."
        ),
        .init(
            "behind_proxy",
            .list,
            "",
            "Proxies whose Forwarded and X-Forwarded-For are believed, as addresses and networks; 'none' for plain HTTP in a private network without one."
        ),
        .init(
            "tls.certificate",
            .path,
            "",
            "PEM: the certificate and its chain; with tls.key the server speaks HTTPS."
        ),
        .init("tls.key", .path, "", "PEM: the private key."),
        .init("tls.minimum_version", .choice(["1.2", "1.3"]), "1.2", "Older versions are refused."),
        .init(
            "tls.client_certificates",
            .choice(["none", "optional", "required"]),
            "none",
            "Whether clients show certificates."
        ),
        .init("tls.client_ca", .path, "", "PEM: the authorities of client certificates."),
    ]
}
