import Crypto
import Foundation
import SecureAggregation
import StrictJSON
import Tensors
package import WireFormat

/// Where a protected round's session stands for this server.
package enum ProtectedSessionState: String, ClosedWord {
    /// The round collects.
    case open
    /// The round's own charge is committed, and the list may be with the helper.
    case summing
    /// A version was published; the helper's sum is to be deleted.
    case published
    /// The attempt ended without a version; the session is to be cancelled, or its sum deleted.
    case abandoned
    /// Nothing is owed to the helper.
    case ended

    /// Whether the helper is still to be told of the end.
    var isOwed: Bool { self == .published || self == .abandoned }
}

/// The helper's session of one attempt at a round.
package struct ProtectedSessionRecord: Codable, Equatable, Sendable {
    package var runId: String
    package var round: Int
    package var attempt: Int
    package var state: ProtectedSessionState
    /// SHA-256 of the document, hexadecimal.
    package var session: String
    /// D, base64.
    package var document: String
    /// The helper's signature of D, base64.
    package var grant: String
    /// JSON array of the assignments whose seeds do not open.
    package var excluded: String = "[]"
    /// How often the helper has refused the list for them.
    package var exclusionCount: Int = 0

    /// How often a list may be made shorter: a helper that refuses more is asked for no third one.
    static let exclusionLimit = 2

    package init(
        runId: String,
        round: Int,
        attempt: Int,
        state: ProtectedSessionState,
        session: String,
        document: String,
        grant: String
    ) {
        (self.runId, self.round, self.attempt, self.state) = (runId, round, attempt, state)
        (self.session, self.document, self.grant) = (session, document, grant)
    }
}

/// The pseudonym of a client's device at one helper's domain.
package struct PseudonymRecord: Codable, Equatable, Sendable {
    package var clientId: String
    package var domain: String
    /// 32 bytes, hexadecimal.
    package var pseudonym: String

    package init(clientId: String, domain: String, pseudonym: String) {
        (self.clientId, self.domain, self.pseudonym) = (clientId, domain, pseudonym)
    }
}

extension ProtectedSessionRecord {
    /// Whether it is of this attempt.
    func isOf(_ round: RoundRecord) -> Bool { (self.round, attempt) == (round.number, round.attempt) }

    /// The assignments that do not count.
    var excludedAssignments: Set<String> {
        Set((try? JSONDecoder().decode([String].self, from: Data(excluded.utf8))) ?? [])
    }

    /// The document, which was checked when it came.
    ///
    /// - Throws: ``CoordinationError`` `database_damaged`.
    func parsed() throws(CoordinationError) -> SessionDocument {
        do throws(SecureAggregationError) {
            return try SessionDocument(parsing: Array(Data(base64Encoded: document) ?? Data()))
        } catch {
            throw CoordinationError(.unavailable, "database_damaged", "a stored document is not as it was written")
        }
    }

    /// The same with more assignments left out.
    func excluding(_ assignments: some Sequence<String>) -> Self {
        var changed = self
        let all = excludedAssignments.union(assignments).sorted()
        changed.excluded = JSONValue.array(all.map { .string($0) }).text
        changed.exclusionCount += 1
        return changed
    }

    /// What a helper has granted, if it is what was asked for and signed with the helper's key.
    ///
    /// A helper may answer anything, so every field is compared.
    ///
    /// - Throws: ``HelperFailure`` that names what differs.
    init(
        verifying view: HelperSessionView,
        of request: HelperSessionRequest,
        domain: String,
        by key: Curve25519.Signing.PublicKey
    ) throws {
        func invalid(_ what: String) -> HelperFailure {
            HelperFailure(code: "helper_invalid", message: "its session \(what)", isTemporary: true)
        }
        guard view.state == .granted else { throw invalid("is \(view.state) already") }
        guard let bytes = Data(base64Encoded: view.document), let grant = Data(base64Encoded: view.grant) else {
            throw invalid("has no document")
        }
        let document: SessionDocument
        do throws(SecureAggregationError) {
            document = try SessionDocument(parsing: Array(bytes))
            try SessionGrant.verify(grant, of: document, by: key)
        } catch {
            throw invalid("does not hold: \(error.description)")
        }
        let differing = request.differences(from: document, domain: domain)
        guard differing.isEmpty else { throw invalid("has another \(differing.joined(separator: ", "))") }
        self.init(
            runId: request.run,
            round: request.round,
            attempt: request.attempt,
            state: .open,
            session: document.session.hexadecimal,
            document: bytes.base64EncodedString(),
            grant: grant.base64EncodedString()
        )
    }
}

extension HelperSessionRequest {
    /// Fields of a document that are not what was asked for.
    fileprivate func differences(from document: SessionDocument, domain: String) -> [String] {
        let found: [(String, Bool)] = [
            ("purpose", document.purpose == .training), ("domain", document.domain == domain),
            ("run", document.run == run), ("round", document.round == UInt32(clamping: round)),
            ("attempt", document.attempt == UInt32(clamping: attempt)),
            ("model", document.model.hexadecimal == model),
            ("instructions", document.instructions.hexadecimal == instructions),
            ("bits", Int(document.width.rawValue) == bits),
            ("coordinates", document.coordinateCount == UInt64(clamping: coordinates)),
            ("step", document.step.bitPattern == step.bitPattern),
            ("coordinate_bound", document.coordinateBound == UInt64(clamping: coordinateBound)),
            ("norm", document.norm == UInt64(clamping: norm)),
            ("noise_deviation", document.noiseDeviation.bitPattern == noiseDeviation.bitPattern),
            ("noise", document.noise == (noise == .none ? .none : noise == .gaussian ? .gaussian : .laplace)),
            ("measure", document.measure == (measure == .l1 ? .l1 : .l2)),
            ("minimum", document.minimum == UInt32(clamping: minimum)),
            ("maximum", document.maximum == UInt32(clamping: maximum)),
            ("max_participations", document.maxParticipations == UInt32(clamping: maxParticipations)),
        ]
        return found.filter { !$0.1 }.map(\.0)
    }
}
