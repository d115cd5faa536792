import WireFormat

extension MetricsRegistry {
    /// Everything that the server measures.
    package static func server() -> MetricsRegistry {
        MetricsRegistry(rounds + privacy + storage + http + process)
    }

    /// A series without labels, there from the start.
    private static let one: [KeyValuePairs<String, String>] = [[:]]

    /// A series for each value of a label, there from the start.
    private static func each(_ label: String, _ values: [String]) -> [KeyValuePairs<String, String>] {
        values.map { [label: $0] }
    }

    private static let rounds: [Definition] = [
        .init(
            "martlet_rounds_total",
            .counter,
            "Round attempts that ended, by outcome (committed, abandoned).",
            initial: each("outcome", [RoundPhase.committed, .abandoned].map(\.rawValue))
        ),
        .init(
            "martlet_round_duration_seconds",
            .histogram(durationBounds),
            "From a round's opening to its end.",
            initial: one
        ),
        .init(
            "martlet_updates_total",
            .counter,
            "Assignments that ended, by outcome.",
            initial: each(
                "outcome",
                [AssignmentState.accepted, .rejected, .failed, .expired, .superseded].map(\.rawValue)
            )
        ),
        .init("martlet_update_refusals_total", .counter, "Rejected updates and reported failures, by code."),
        .init(
            "martlet_updates_capped_total",
            .counter,
            "Updates and measurements of which something counted less than was sent, by what (weight, length).",
            initial: each("bound", ["weight", "length"])
        ),
        .init("martlet_update_bytes_total", .counter, "Bytes of accepted updates.", initial: one),
        .init(
            "martlet_uploads_in_flight_bytes",
            .gauge,
            "Declared bytes of updates that are on their way in.",
            initial: one
        ),
        .init(
            "martlet_uploads_refused_total",
            .counter,
            "Updates turned away because too many were on their way.",
            initial: one
        ),
        .init(
            "martlet_uploads_given_way_total",
            .counter,
            "Updates on their way that lost their room to others, as the slowest.",
            initial: one
        ),
        .init("martlet_checkins_total", .counter, "Check-ins answered, by outcome."),
        .init(
            "martlet_aggregation_seconds",
            .histogram(durationBounds),
            "Seconds of aggregation by phase (measure, fold, noise, publish, total).",
            initial: each("phase", ["measure", "fold", "noise", "publish", "total"])
        ),
        .init("martlet_aggregations_running", .gauge, "Aggregations in progress.", initial: one),
        .init("martlet_clients", .gauge, "Clients, by population and state."),
        .init("martlet_runs", .gauge, "Runs, by state."),
        .init("martlet_assignments_open", .gauge, "Assignments whose update is awaited."),
        .init("martlet_long_polls", .gauge, "Check-ins that wait at the server."),
    ]

    private static let privacy: [Definition] = [
        .init("martlet_privacy_epsilon_limit", .gauge, "A population's budget."),
        .init("martlet_privacy_epsilon_spent", .gauge, "Epsilon of the committed rounds, by population."),
        .init("martlet_privacy_epsilon_reserved", .gauge, "Epsilon reserved by open rounds, by population."),
        .init("martlet_privacy_epsilon_remaining", .gauge, "Epsilon that is left, by population."),
        .init("martlet_privacy_delta", .gauge, "The budget's delta, by population."),
        .init(
            "martlet_ledger_alarm",
            .gauge,
            "1 while the privacy ledger and its second record disagree.",
            initial: one
        ),
        .init(
            "martlet_ledger_record_behind",
            .gauge,
            "1 while the ledger's second record cannot be kept.",
            initial: one
        ),
    ]

    private static let storage: [Definition] = [
        .init("martlet_store_commit_duration_seconds", .histogram(latencyBounds), "A transaction, its sync included."),
        .init("martlet_store_commit_failures_total", .counter, "Transactions that failed.", initial: one),
        .init(
            "martlet_storage_failures_total",
            .counter,
            "What the disk refused, by sort of file.",
            initial: each("role", StorageFailure.Role.allCases.map(\.label))
        ),
        .init("martlet_rounds_stalled", .gauge, "Closed rounds that wait for the disk.", initial: one),
        .init("martlet_sqlite_bytes", .gauge, "Size of the database's files (database, wal)."),
        .init("martlet_spool_files", .gauge, "Updates that wait for their round's end, and uploads in progress."),
        .init("martlet_spool_bytes", .gauge, "Their size."),
        .init("martlet_disk_free_bytes", .gauge, "Free space where the data directory is."),
        .init("martlet_disk_size_bytes", .gauge, "Size of that file system."),
    ]

    /// What a server of HTTP measures, whatever it serves.
    package static let http: [Definition] = [
        .init("martlet_http_requests_total", .counter, "Answers, by method, route and status."),
        .init(
            "martlet_http_request_duration_seconds",
            .histogram(latencyBounds),
            "From a request's head to its answer's head, by route."
        ),
        .init("martlet_http_received_bytes_total", .counter, "Declared bytes of request bodies.", initial: one),
        .init("martlet_http_sent_bytes_total", .counter, "Declared bytes of answers' bodies.", initial: one),
        .init("martlet_http_requests_in_flight", .gauge, "Requests whose handler has not answered yet."),
        .init("martlet_http_connections", .gauge, "Open connections."),
        .init(
            "martlet_http_connections_refused_total",
            .counter,
            "Connections turned away, by reason.",
            initial: each("reason", ["address", "limit", "shed"])
        ),
        .init(
            "martlet_http_malformed_requests_total",
            .counter,
            "Requests that could not be understood, by status.",
            initial: each("status", ["400"])
        ),
        .init(
            "martlet_http_timeouts_total",
            .counter,
            "Connections ended because the peer was too slow.",
            initial: one
        ),
        .init(
            "martlet_authentication_failures_total",
            .counter,
            "Requests with a missing, unknown, expired or revoked token.",
            initial: one
        ),
        .init(
            "martlet_rate_limited_total",
            .counter,
            "Requests refused by a rate limit, by scope (address, client, guesses, renewals).",
            initial: each("scope", ["address", "client", "guesses", "renewals"])
        ),
        .init(
            "martlet_tls_handshakes_total",
            .counter,
            "TLS handshakes, by outcome.",
            initial: each("outcome", ["done", "failed"])
        ),
        .init(
            "martlet_tls_certificate_expiry_timestamp_seconds",
            .gauge,
            "When the server's certificate ends, Unix time."
        ),
    ]

    /// What the kernel says about the process.
    package static let process: [Definition] = [
        .init("process_resident_memory_bytes", .gauge, "Resident memory."),
        .init("process_open_fds", .gauge, "Open file descriptors."),
        .init("process_max_fds", .gauge, "Limit of open file descriptors."),
        .init("process_cpu_seconds_total", .counter, "User and system time."),
        .init("process_start_time_seconds", .gauge, "Start, Unix time."),
        .init("martlet_build_info", .gauge, "1, with the version."),
    ]
}
