import Foundation
import MartletClient
import StrictJSON
import TestSupport
import Testing

/// What a client says may quote a server, a model's configuration or a file.
@Suite(.timeLimit(.minutes(10)))
struct ClientErrorTests {
    private static let hostile = "'\u{202E}\u{1B}[31m\r\nx\u{2028}y\u{200B}' is not one of char, word"
    private static let shown = #"'\u{202E}\u{1B}[31m\u{D}\u{A}x\u{2028}y\u{200B}' is not one of char, word"#

    private struct QuotingError: LocalizedError {
        var errorDescription: String? { ClientErrorTests.hostile }
    }

    @Test func anErrorThatQuotesAPeerActsOnNoTerminal() {
        #expect(ClientError(code: "server_invalid", message: Self.hostile).message == Self.shown)
    }

    /// A trainer's error is told as it is, but for what acts on a terminal.
    @Test func theReasonOfAnEndActsOnNoTerminal() async throws {
        let (device, server) = (try RehearsalDevice(), RehearsalServer())
        let client = try device.client(server, RehearsalTrainer { _ in throw QuotingError() })
        var reasons: [String] = []
        for _ in 0..<3 {
            _ = try? await client.participateOnce(waitSeconds: 0)
            reasons += [await client.lastReason, await client.lastShortfall].compactMap(\.self)
        }
        #expect(reasons.contains { $0.contains("is not one of char, word") }, "\(reasons)")
        #expect(!reasons.contains { $0.unicodeScalars.contains(where: PrintableText.isUnsafe) })
    }
}
