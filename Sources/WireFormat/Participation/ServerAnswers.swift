package import StrictJSON

/// What a registration gave, as a client reads it.
package struct RegistrationAnswer: Equatable, Sendable {
    package var clientID: ClientID
    package var token: BearerToken

    /// - Throws: ``DocumentError`` naming every field that does not fit.
    package static func read(_ document: JSONValue) throws(DocumentError) -> Self {
        try FieldReader.readAnswer(document) { fields -> Self? in
            let id = fields.checked("client_id", as: ClientID.self)
            let token = fields.checked("token", as: BearerToken.self)
            guard let id, let token else { return nil }
            return Self(clientID: id, token: token)
        }
    }
}

/// What a check-in gave, as a client reads it.
package enum CheckInAnswer: Equatable, Sendable {
    /// Work that can be done.
    case work(Assignment)
    /// Work that cannot: it does not fit the protocol, and what is wrong with it. The id where at least that fits.
    case unfit(AssignmentID?, DocumentError)
    /// No work, and when to ask again; `nil` for never.
    case away(reason: String, wait: ClosedRange<PeerDuration>?)

    /// - Parameters:
    ///   - document: What the server sent.
    ///   - modelByteLimit: As for ``Assignment/read(_:modelByteLimit:)``.
    /// - Returns: The answer.
    /// - Throws: ``DocumentError`` naming every field that does not fit, but those of an assignment.
    package static func read(_ document: JSONValue, modelByteLimit: Int) throws(DocumentError) -> Self {
        if case .object(let fields) = document, let assignment = fields["assignment"], assignment != .null {
            do throws(DocumentError) {
                return .work(try Assignment.read(assignment, modelByteLimit: modelByteLimit))
            } catch {
                var id: AssignmentID?
                if case .object(let fields) = assignment, case .string(let text)? = fields["id"] { id = .init(text) }
                return .unfit(id, DocumentError(problems: error.problems.map { $0.under("/assignment") }))
            }
        }
        return try FieldReader.readAnswer(document) { fields -> Self? in
            let reason = fields.checked("reason", as: ReasonWord.self)
            var wait: ClosedRange<PeerDuration>?
            if fields.has("retry_window") {
                wait = fields.object("retry_window") { window in
                    guard let first = window.duration("min_s"), let last = window.duration("max_s") else { return nil }
                    if last < first { window.report("max_s", "is less than min_s") }
                    return first...max(first, last)
                }
            }
            return reason.map { .away(reason: $0.text, wait: wait) }
        }
    }
}

/// The answer to a sign of life, as a client reads it.
package struct HeartbeatAnswer: Equatable, Sendable {
    package var lease: PeerDuration
    package var deadline: PeerDuration

    /// - Throws: ``DocumentError`` naming every field that does not fit.
    package static func read(_ document: JSONValue) throws(DocumentError) -> Self {
        try FieldReader.readAnswer(document) { fields -> Self? in
            let lease = fields.duration("lease_s")
            let deadline = fields.duration("deadline_in_s")
            guard let lease, let deadline else { return nil }
            return Self(lease: lease, deadline: deadline)
        }
    }
}

/// The receipt of an accepted update, as a client reads it.
package struct ReceiptAnswer: Equatable, Sendable {
    package var assignment: AssignmentID
    package var state: PeerWord<AssignmentState>
    package var sha256: ContentHash
    package var byteCount: Int
    /// Where the population's privacy ledger stands; absent where it has none.
    package var ledgerHead: PopulationLedgerHead?

    /// - Throws: ``DocumentError`` naming every field that does not fit.
    package static func read(_ document: JSONValue) throws(DocumentError) -> Self {
        try FieldReader.readAnswer(document) { fields -> Self? in
            let assignment = fields.checked("assignment", as: AssignmentID.self)
            let state = fields.checked("state", as: ReasonWord.self)
            let sha256 = fields.checked("sha256", as: ContentHash.self)
            let byteCount = fields.integer("bytes", in: 0...(1 << 53))
            let ledgerHead =
                fields.has("ledger_head") ? fields.object("ledger_head", PopulationLedgerHead.init(reading:)) : nil
            guard let assignment, let state, let sha256 else { return nil }
            return Self(
                assignment: assignment,
                state: PeerWord(state.text),
                sha256: sha256,
                byteCount: byteCount,
                ledgerHead: ledgerHead
            )
        }
    }
}

/// A problem document (RFC 9457), as a client reads it: short texts that are safe to show.
package struct ProblemAnswer: Equatable, Sendable {
    /// The server's stable word for what is wrong.
    package var code: String
    /// One line without control characters.
    package var detail: String?

    /// Characters of a detail that are kept.
    package static let detailLimit = 500

    /// - Throws: ``DocumentError`` where there is no `code` that is a word.
    package static func read(_ document: JSONValue) throws(DocumentError) -> Self {
        try FieldReader.readAnswer(document) { fields -> Self? in
            let code = fields.checked("code", as: ReasonWord.self)
            let detail = fields.optionalString("detail", lengthLimit: .max)
            return code.map {
                Self(code: $0.text, detail: detail.map { PrintableText.escaped($0, limit: detailLimit) })
            }
        }
    }
}

/// A code, reason or state: a word that programs compare.
package struct ReasonWord: CheckedText {
    package let text: String
    package static let rule = "must have 1 to 64 lower-case letters, digits and '_'"

    package init?(_ text: String) {
        guard (1...64).contains(text.utf8.count),
            text.utf8.allSatisfy({ (97...122).contains($0) || (48...57).contains($0) || $0 == 95 })
        else { return nil }
        self.text = text
    }
}

extension DocumentError.Problem {
    /// The same problem of a document inside another one.
    func under(_ pointer: String) -> Self { Self(pointer: pointer + self.pointer, detail: detail) }
}
