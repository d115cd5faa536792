import Foundation
import LocalTraining
import MartletClient
import Synchronization
import Tensors
import TestSupport
import Testing
import WireFormat

/// Whatever answers in the server's place costs time, and no assignment.
@Suite(.timeLimit(.minutes(10)))
struct ForeignAnswerTests {
    private static let all = Interference.allCases.filter { ![.answerLost, .repeated].contains($0) }

    /// A download whose answer was JSON, an image or a portal of a megabyte ended the assignment.
    @Test(arguments: all)
    func noAnswerInTheServersPlaceEndsADownload(_ fault: Interference) async throws {
        let count = Counter()
        let server = RehearsalServer { _, key in key == "GET model" && count.increase() <= 5 ? fault : nil }
        let (device, trainer) = (try RehearsalDevice(), RehearsalTrainer())
        let client = try device.client(server, trainer, attemptLimit: 20)
        #expect(try await client.participateOnce(waitSeconds: 0) == .accepted(run: "run_1", round: 1))
        #expect(server.state.withLock { $0.failed.isEmpty && $0.issued == 1 })
        let told = device.notices.withLock { $0.map(\.kind) }
        #expect(told.first == .outageBegan || fault == .busy, "\(told)")
    }

    /// What had come of a model stays, byte for byte, whatever comes in its place.
    @Test(arguments: all)
    func whatHasComeStays(_ fault: Interference) throws {
        guard let answer = fault.answer(), answer.status == 200 else { return }
        let directory = try TemporaryDirectory()
        let path = directory.path + "/model"
        try Data([1, 2, 3]).write(to: URL(fileURLWithPath: path))
        var request = TransportRequest(method: "GET", url: "http://server/model", destination: path)
        request.byteLimit = 1 << 20
        request.fileSHA256 = String(repeating: "ab", count: 32)
        var body = AnswerBody(request)
        let failure = answer.body.withUnsafeBytes { raw -> ClientError? in
            do throws(ClientError) {
                try body.take(raw, status: 200, headers: answer.headers)
                return nil
            } catch { return error }
        }
        if let failure {
            // More than an explanation may have: no more final for that.
            #expect(failure.code == ClientError.foreignAnswer && failure.isTemporary)
        } else {
            #expect(body.memory == answer.body)
        }
        #expect(try Data(contentsOf: URL(fileURLWithPath: path)) == Data([1, 2, 3]))
    }

    @Test func aFileIsNamedByDigestOrTag() {
        let hash = String(repeating: "ab", count: 32)
        let digest = "sha-256=:\(Data(repeating: 0xAB, count: 32).base64EncodedString()):"
        func names(_ headers: [String: String], _ status: Int = 200) -> Bool {
            TransportResponse(status: status, headers: headers).names(sha256: hash)
        }
        #expect(names(["repr-digest": digest]) && names(["content-digest": digest]))
        #expect(names(["etag": "\"\(hash)\""]) && names(["etag": "W/\"\(hash)\""]))
        // A part's own digest is another one.
        #expect(!names(["content-digest": digest], 206) && names(["repr-digest": digest], 206))
        #expect(!names([:]) && !names(["etag": "\"x\""]) && !names(["repr-digest": "sha-256=:AAAA:"]))
        let other = "sha-256=:\(Data(repeating: 1, count: 32).base64EncodedString()):"
        #expect(!names(["repr-digest": other, "etag": "\"\(hash)\""]))
    }

    // MARK: - Transports of an app's own

    private enum Mine: Error, CaseIterable {
        case own, system, foundation, cancelled

        var error: any Error {
            switch self {
            case .own: self
            case .system: NSError(domain: NSPOSIXErrorDomain, code: 28)
            case .foundation: NSError(domain: NSCocoaErrorDomain, code: 640)
            case .cancelled: NSError(domain: NSURLErrorDomain, code: -999)
            }
        }
    }

    /// An error that is none of ours ended `run()`, and one of the system was taken for a full disk.
    @Test(arguments: 0..<4, ["POST clients", "POST checkins", "GET model", "PUT update"])
    func anErrorOfATransportIsTheNetworks(_ index: Int, _ request: String) async throws {
        let fault = Mine.allCases[index]
        let count = Counter()
        let server = HangingServer(RehearsalServer()) { key in
            if key == request, count.increase() <= 12 { throw fault.error }
        }
        let device = try RehearsalDevice()
        let client = FederatedClient(
            server: "http://server",
            enrollmentToken: "enroll",
            state: try ClientState(directory: device.path),
            trainer: RehearsalTrainer(),
            transport: server,
            models: try ModelCache(directory: device.directory.path + "/models"),
            retry: RetryPolicy(attemptLimit: 3, sleep: { _ in try Task.checkCancellation() }),
            notify: { notice in device.notices.withLock { $0.append(notice) } }
        )
        try await Task {
            try await client.run { outcome, _ in
                if case .accepted = outcome { withUnsafeCurrentTask { $0?.cancel() } }
            }
        }.value
        #expect(server.server.state.withLock { $0.accepted.count == 1 && $0.failed.isEmpty })
        let told = device.notices.withLock { $0.map(\.message) }
        #expect(told.allSatisfy { !$0.contains("no space") } && told.first?.contains("no answer") == true, "\(told)")
    }
}
