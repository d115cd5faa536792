/// What a refusal means for the client that gets it.
///
/// A refusal is the server's only when it is a problem document (RFC 9457) with a code; whatever else stands between the two
/// may answer with any status and any text. Only the codes listed here are final. All others, and all answers that are no
/// problem documents, mean that the same request may have more luck later.
package enum RefusalVerdict: String, Sendable, CaseIterable {
    /// The server waits for this work no more, or does not know it: the finished bytes are of no use.
    case workIsOver = "work_is_over"
    /// The server has looked at the contents and refused them; it has given the place to others.
    case contentsAreRefused = "contents_are_refused"
    /// The work cannot be delivered, and the server waits for it until the client reports its failure.
    case workCannotBeDelivered = "work_cannot_be_delivered"
    /// The server knows this client no more, or no longer under this state: asking again changes nothing.
    case clientIsOut = "client_is_out"

    /// The verdict of a code; `nil` for one that ends nothing.
    package init?(code: String) {
        guard let found = Self.table.first(where: { $0.value.contains(code) })?.key else { return nil }
        self = found
    }

    /// All codes that end something.
    package static let table: [RefusalVerdict: Set<String>] = [
        .workIsOver: [
            "round_full", "round_closed", "lease_expired", "assignment_ended", "run_ended", "too_stale",
            "update_differs", "not_found",
        ],
        .contentsAreRefused: [
            "tensor_mismatch", "encoding_mismatch", "kind_mismatch", "base_mismatch", "metadata_invalid", "not_finite",
            "value_out_of_range", "indices_invalid", "scale_invalid", "too_few_examples", "invalid_counts",
            "invalid_vote", "base_missing", "weight_unit_mismatch", "length_mismatch",
        ],
        .workCannotBeDelivered: [
            "too_large", "unsupported_media_type", "invalid_document", "metrics_missing",
            "metrics_implausible",
        ],
        .clientIsOut: [
            "unauthorized", "token_expired", "client_revoked", "state_cloned", "forbidden", "enrollment_exhausted",
            "certificate_mismatch",
        ],
    ]
}
