extension SettingDefinition {
    /// Every setting of `martlet serve`, in the order in which they are shown.
    static let all: [SettingDefinition] = [
        .init(
            "data_dir",
            .path,
            "",
            "The directory of everything that the server keeps. The server creates it if it is missing."
        ),
        .init("listen", .text, "127.0.0.1:8080", "The address to listen on, as HOST:PORT. Port 0 chooses a free port."),
        .init(
            "insecure_no_auth",
            .flag,
            "false",
            "Every caller is an administrator. Allowed on loopback addresses only."
        ),
        .init(
            "admin_token_file",
            .path,
            "",
            "A file with an administrator's token, such as a Docker secret. The token replaces the one that the file held before. Without this setting the first start makes a token."
        ),
        .init(
            "viewer_token_file",
            .path,
            "",
            "The file with a viewer's token for Prometheus. The server creates it if it is missing."
        ),
        .init(
            "ledger_head",
            .path,
            "",
            "The file of the privacy ledger's second record, best on another disk. Without this setting it is ledger.head in data_dir."
        ),
        .init(
            "helper_url",
            .text,
            "",
            "The helper of protected runs, such as https://helper.example.net. It must be in other hands than the server."
        ),
        .init(
            "helper_token_file",
            .path,
            "",
            "The file with this server's token of the helper's domain, as 'martlet helper domain token' prints it. It is read again for each request."
        ),
        .init(
            "helper_key",
            .path,
            "",
            "The PEM file of the helper's public key, as 'martlet helper keys' prints it. Grants are checked with it."
        ),
        .init("helper_ca", .path, "", "The PEM file of the authorities that sign the helper's certificate."),
        .init("shutdown_grace_s", .seconds(0...3600), "10", "How long requests in progress may go on after SIGTERM."),
        .init(
            "log.level",
            .choice(["trace", "debug", "info", "notice", "warning", "error"]),
            "notice",
            "The least severe messages that are logged. Requests are logged at info."
        ),
        .init(
            "log.format",
            .choice(LogFormat.allCases.map(\.rawValue)),
            "auto",
            "The format of log lines. auto is text on a terminal and JSON elsewhere."
        ),
        .init("log.slow_request_s", .seconds(0.001...3600), "5", "A request that takes longer is logged as a warning."),
        .init(
            "limits.connections",
            .integer(1...1_000_000),
            "8192",
            "The most open connections. At the limit, a new connection is closed, or replaces one of the address that has most."
        ),
        .init(
            "limits.connections_per_address",
            .integer(1...1_000_000),
            "4096",
            "The most open connections of one address (IPv6: of one /64). Proxies have no limit."
        ),
        .init(
            "limits.first_byte_timeout_s",
            .seconds(0.1...3600),
            "20",
            "How long a new connection may take until its first request begins, the TLS handshake included."
        ),
        .init(
            "limits.least_bytes_per_s",
            .integer(1...1_000_000),
            "1024",
            "The lowest rate of a body or an answer after the first transfer timeout. A slower transfer is ended."
        ),
        .init(
            "limits.head_bytes",
            .bytes(4096...(1 << 20)),
            "16KiB",
            "The largest head of a request: its request line and header fields."
        ),
        .init("limits.head_fields", .integer(24...1000), "100", "The most header fields of a request."),
        .init(
            "limits.head_timeout_s",
            .seconds(0.1...3600),
            "10",
            "How long the head of a request may take from its first byte to its last."
        ),
        .init(
            "limits.transfer_timeout_s",
            .seconds(0.1...3600),
            "30",
            "The longest wait between two reads of a body or two writes of an answer."
        ),
        .init(
            "limits.idle_timeout_s",
            .seconds(0.1...86_400),
            "60",
            "The longest wait between two requests of one connection."
        ),
        .init("limits.model_bytes", .bytes(1024...(1 << 40)), "4GiB", "The largest model or update."),
        .init(
            "limits.upload_bytes",
            .bytes(1024...(1 << 40)),
            "2GiB",
            "The most bytes of updates that are received at the same time. Further clients are told to come again before they send anything."
        ),
        .init(
            "limits.document_bytes",
            // What a client itself may send: less would refuse check-ins and failures of some.
            .bytes(65_536...(1 << 30)),
            "1MiB",
            "The largest body of any other request, such as a run file."
        ),
        .init(
            "limits.event_streams",
            .integer(0...1_000_000),
            "256",
            "The most listeners of /v1/events. Further listeners are refused and can poll."
        ),
        .init(
            "limits.long_polls",
            .integer(0...1_000_000),
            "10000",
            "The most check-ins that wait at the server for work."
        ),
        .init(
            "limits.open_runs",
            .integer(1...10_000),
            "200",
            "The most runs that have not ended. Further runs are refused."
        ),
        .init(
            "rate.address_per_s",
            .number(0...1e6),
            "100",
            "How many requests a second one address (IPv6: one /64) may make in the long run. 0 sets no limit."
        ),
        .init(
            "rate.address_burst",
            .number(1...1e7),
            "1000",
            "How many requests one address may make at once after a pause."
        ),
        .init(
            "rate.client_per_s",
            .number(0...1e6),
            "20",
            "How many requests a second one client may make in the long run. 0 sets no limit."
        ),
        .init(
            "rate.client_burst",
            .number(1...1e7),
            "200",
            "How many requests one client may make at once after a pause."
        ),
        .init(
            "rate.guesses_per_s",
            .number(0...1e6),
            "1",
            "How many requests a second without a valid token one address may make in the long run. 0 sets no limit."
        ),
        .init(
            "rate.guesses_burst",
            .number(1...1e7),
            "60",
            "How many requests without a valid token one address may make at once after a pause."
        ),
        .init("rate.exempt", .list, "127.0.0.0/8,::1", "Addresses and networks without rate limits."),
        .init(
            "rate.table_entries",
            .integer(16...10_000_000),
            "65536",
            "How many addresses or clients each rate limit remembers. Further ones share one limit."
        ),
        .init(
            "behind_proxy",
            .list,
            "",
            "Addresses and networks of proxies whose Forwarded and X-Forwarded-For fields are believed. 'none' allows plain HTTP in a private network without a proxy."
        ),
        .init(
            "tls.certificate",
            .path,
            "",
            "The PEM file of the certificate and its chain. With tls.key the server speaks HTTPS."
        ),
        .init("tls.key", .path, "", "The PEM file of the private key."),
        .init("tls.minimum_version", .choice(["1.2", "1.3"]), "1.2", "The oldest TLS version that is accepted."),
        .init(
            "tls.client_certificates",
            .choice(["none", "optional", "required"]),
            "none",
            "Whether clients may or must show a certificate."
        ),
        .init("tls.client_ca", .path, "", "The PEM file of the authorities that sign client certificates."),
    ]
}
