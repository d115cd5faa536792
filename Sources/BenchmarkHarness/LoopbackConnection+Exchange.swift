package import Foundation
package import WireFormat

extension LoopbackConnection {
    /// Sends a request with a body in memory and reads the whole answer.
    ///
    /// - Returns: The answer's body.
    /// - Throws: ``BenchmarkError`` with the answer's text for any status but 2xx.
    package func exchange(
        _ method: String,
        _ path: String,
        token: String,
        contentType: String = "application/json",
        wait seconds: Int? = nil,
        body: Data = Data()
    ) throws -> Data {
        var fields = [
            "Authorization": "Bearer \(token)", "Content-Type": contentType, "Content-Length": "\(body.count)",
        ]
        if let seconds { fields["Prefer"] = "wait=\(seconds)" }
        try send("\(method) \(path) HTTP/1.1\r\n", fields, body: body)
        let (status, length) = try head()
        let answer = try read(length)
        guard (200..<300).contains(status) else {
            throw BenchmarkError("\(method) \(path) was answered \(status): \(String(decoding: answer, as: UTF8.self))")
        }
        return answer
    }

    /// The same by the table of endpoints.
    package func exchange<Body, Answer>(
        _ target: RequestTarget<Body, Answer>,
        token: String,
        contentType: String = "application/json",
        wait seconds: Int? = nil,
        body: Data = Data()
    ) throws -> Data {
        try exchange(
            target.method.rawValue,
            target.target,
            token: token,
            contentType: contentType,
            wait: seconds,
            body: body
        )
    }

    /// The same with a JSON object for an answer.
    package func json<Body, Answer>(
        _ target: RequestTarget<Body, Answer>,
        token: String,
        wait seconds: Int? = nil,
        _ body: String = "{}"
    ) throws -> [String: Any] {
        let answer = try exchange(target, token: token, wait: seconds, body: Data(body.utf8))
        return (try? JSONSerialization.jsonObject(with: answer)) as? [String: Any] ?? [:]
    }
}
