import Foundation
import MartletTransport
import StrictJSON
import WireFormat

/// What a server refused, or what somebody else answered in its place.
public struct OperatorError: Error, Sendable, CustomStringConvertible {
    /// The status of the answer.
    public let status: Int
    /// The server's word for the refusal, such as `not_found`; `nil` where no Martlet server answered.
    public let code: String?
    /// What was wrong, in one printable sentence; `nil` where no Martlet server answered.
    public let detail: String?
    /// What was wrong, and with which fields, in printable lines.
    public let description: String

    init(_ response: TransportResponse, url: String) {
        let problem = try? WireCoding.decode(ProblemDocument.self, from: response.body)
        status = response.status
        code = problem.map { PrintableText.escaped($0.code, limit: 200) }
        detail = problem.map { PrintableText.escaped($0.detail, limit: 4000) }
        var text =
            problem.map { PrintableText.escaped("\($0.title): \($0.detail) (\($0.code))", limit: 4000) }
            ?? Self.foreign(response, url)
        for field in (problem?.errors ?? []).prefix(100) where !field.pointer.isEmpty {
            text += "\n  " + PrintableText.escaped("\(field.pointer): \(field.detail)", limit: 1000)
        }
        description = text
    }

    /// What an answer that is no problem document is: its own words where they are a line of plain text, else what stands in between.
    private static func foreign(_ response: TransportResponse, _ url: String) -> String {
        let note = note(in: response.body)
        return note.isEmpty
            ? ClientError(answer: response, url: url).message : "the server answered \(response.status)\(note)"
    }

    /// What an answer that is no problem document says in a line of plain text, such as "this port speaks HTTPS".
    private static func note(in body: Data) -> String {
        let text = String(decoding: body.prefix(200), as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
        let isPlain = !text.isEmpty && text.utf8.allSatisfy { $0 >= 0x20 && $0 < 0x7f } && !text.hasPrefix("<")
        return isPlain ? ": \(text)" : ""
    }
}
