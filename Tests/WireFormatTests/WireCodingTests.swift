import Foundation
import StrictJSON
import Testing
import WireFormat

struct WireCodingTests {
    private struct Body: Codable, Equatable {
        var runId: String
        var epsilon: Double
    }

    @Test func bodiesAreReadAsTheyAreWritten() throws {
        let body = Body(runId: "run_1", epsilon: .infinity)
        let data = try WireCoding.encode(body)
        #expect(String(decoding: data, as: UTF8.self) == #"{"epsilon":"Infinity","run_id":"run_1"}"#)
        #expect(try WireCoding.decode(Body.self, from: data) == body)
    }

    /// What Foundation's decoder takes beyond JSON has more than one meaning, and is refused.
    @Test(arguments: [
        #"{"run_id": "a", "run_id": "b", "epsilon": 1}"#, #"{"run_id": "a", "epsilon": 1,}"#,
        "\u{FEFF}{\"run_id\": \"a\", \"epsilon\": 1}",
    ])
    func documentsOfTwoMeaningsAreRefused(text: String) {
        #expect(throws: DecodingError.self) { try WireCoding.decode(Body.self, from: Data(text.utf8)) }
        let wide = text.data(using: .utf16LittleEndian) ?? Data()
        #expect(throws: DecodingError.self) { try WireCoding.decode(Body.self, from: wide) }
    }
}
