package import Coordination
import Foundation
package import MartletTransport
import StrictJSON
package import WireFormat

/// A server's requests to its helper, over any `Transport`.
///
/// A helper is believed in nothing but what it signs: its answers have sizes and times, and are read strictly. No request is repeated
/// here; the coordinator asks again.
package struct HelperConnection: HelperParty {
    /// Seconds for an answer that is a document.
    private static let answerSeconds = 60.0
    /// Seconds for a sum to begin, which a helper makes after it has the list, and for each 16 KiB of it after that.
    private static let sumSeconds = 1800.0
    private static let slowestBytesPerSecond = 16_384.0
    /// Bytes of a document.
    private static let documentByteLimit = 64 << 10

    private let origin: ServerOrigin
    private let token: @Sendable () throws -> String
    private let transport: any Transport

    /// Names a helper and who asks.
    ///
    /// - Parameters:
    ///   - url: The helper's URL, such as `https://helper.example.net`.
    ///   - transport: Sends the requests.
    ///   - token: Gives the server's token of the domain, each time anew.
    /// - Throws: `ClientError` with code `server_url`.
    package init(url: String, transport: any Transport, token: @escaping @Sendable () throws -> String) throws {
        origin = try ServerOrigin(url)
        self.token = token
        self.transport = transport
    }

    package func createSession(_ request: HelperSessionRequest) async throws -> HelperSessionView {
        let target = HelperEndpoints.createSession()
        let body = TransportRequest.Body.bytes(try WireCoding.encode(request))
        let response = try await send(self.request(target, body, contentType: "application/json"))
        do {
            return try ServerAnswer.read(response, of: "session", HelperSessionView.read)
        } catch let error as ClientError {
            throw HelperFailure(code: error.code, message: error.message, isTemporary: true)
        }
    }

    package func cancelSession(_ session: String) async throws {
        _ = try await send(request(HelperEndpoints.cancelSession(try Self.reference(session))))
    }

    package func makeSum(_ session: String, list: [UInt8], byteCount: Int, to path: String) async throws {
        let target = HelperEndpoints.makeSum(try Self.reference(session))
        var request = request(target, .bytes(Data(list)), contentType: "application/octet-stream")
        try? FileManager.default.removeItem(atPath: path)
        request.destination = path
        request.byteLimit = byteCount
        request.timeoutSeconds = Self.sumSeconds
        request.answerSeconds = Self.sumSeconds
        request.longestSeconds = Self.sumSeconds + Double(byteCount + list.count) / Self.slowestBytesPerSecond
        let response = try await send(request)
        let attributes = try? FileManager.default.attributesOfItem(atPath: path)
        let found = (attributes?[.size] as? NSNumber)?.intValue ?? 0
        guard response.status == 200, found == byteCount else {
            throw HelperFailure(
                code: ClientError.serverInvalid,
                message: "its sum has \(found) bytes, and \(byteCount) are wanted",
                isTemporary: true
            )
        }
        guard let sha256 = FileDigestField.whole(of: response), try FileDigest.hexadecimal(path) == sha256 else {
            throw HelperFailure(
                code: ClientError.serverInvalid,
                message: "its sum is not what it says that it is (Repr-Digest)",
                isTemporary: true
            )
        }
    }

    package func deleteSum(_ session: String) async throws {
        _ = try await send(request(HelperEndpoints.deleteSum(try Self.reference(session))))
    }

    // MARK: -

    private static func reference(_ session: String) throws -> SessionReference {
        try SessionReference(segment: session)
    }

    private func request<Body, Answer>(
        _ target: RequestTarget<Body, Answer>,
        _ body: TransportRequest.Body = .none,
        contentType: String? = nil
    ) -> TransportRequest {
        var headers: [String: String] = [:]
        if let contentType { headers["Content-Type"] = contentType }
        var request = TransportRequest(
            method: target.method.rawValue,
            url: origin.base + target.target,
            headers: headers,
            body: body,
            timeoutSeconds: Self.answerSeconds
        )
        request.byteLimit = Self.documentByteLimit
        request.answerSeconds = Self.answerSeconds
        request.longestSeconds = 2 * Self.answerSeconds
        return request
    }

    private func send(_ request: TransportRequest) async throws -> TransportResponse {
        var request = request
        let response: TransportResponse
        do {
            request.headers["Authorization"] = "Bearer " + (try token())
            response = try await transport.send(request)
        } catch let error as ClientError {
            throw HelperFailure(code: error.code, message: error.message, isTemporary: true)
        }
        guard (200..<300).contains(response.status) else { throw Self.failure(response, url: request.url) }
        return response
    }

    /// Refusals that the same request gets again.
    private static let lasting: Set<String> = [
        HelperCode.sessionUnknown.rawValue, HelperCode.sessionSpent.rawValue, HelperCode.sessionExpired.rawValue,
        HelperCode.budgetExhausted.rawValue, HelperCode.policyRefused.rawValue, HelperCode.attemptConflict.rawValue,
        "cohort_too_small", "cohort_too_large", "duplicate_pseudonym", "seeds_unopened", "participation_cap",
        "invalid_list", "invalid_document", "noise_unknown", "out_of_range",
    ]

    private static func failure(_ response: TransportResponse, url: String) -> HelperFailure {
        let error = ClientError(answer: response, url: url)
        var entries: [Int] = []
        if let document = try? JSONValue.parse(Array(response.body)), case .object(let fields) = document,
            case .array(let items)? = fields["entries"]
        {
            entries = items.compactMap { if case .integer(let place) = $0, place >= 0 { place } else { nil } }
        }
        return HelperFailure(
            code: error.code,
            message: error.message,
            entries: entries,
            isTemporary: !lasting.contains(error.code)
        )
    }
}
