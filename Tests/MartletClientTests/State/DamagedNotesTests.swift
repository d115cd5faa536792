import Foundation
import LocalTraining
import MartletClient
import Synchronization
import TestSupport
import Testing
import WireFormat

/// Notes that are damaged or missing: the device goes on, and does not look like a copy of itself.
@Suite(.timeLimit(.minutes(10)))
struct DamagedNotesTests {
    /// The generations that a device says, by check-in.
    private final class Generations: Transport {
        let server = RehearsalServer(change: { work, number in work.stateGeneration = 10 + number })
        let said = Mutex<[Int?]>([])

        func send(_ request: TransportRequest) async throws -> TransportResponse {
            if request.url.hasSuffix("/checkins"), case .bytes(let body) = request.body {
                let document = try JSONSerialization.jsonObject(with: body) as? [String: Any]
                said.withLock { $0.append(document?["state_generation"] as? Int) }
            }
            return try await server.send(request)
        }
    }

    private func client(_ device: RehearsalDevice, _ transport: any Transport) throws -> FederatedClient {
        FederatedClient(
            server: "http://server",
            enrollmentToken: "enroll",
            state: try ClientState(directory: device.path),
            trainer: RehearsalTrainer(),
            transport: transport,
            models: try ModelCache(directory: device.directory.path + "/models"),
            notify: { notice in device.notices.withLock { $0.append(notice) } }
        )
    }

    /// The device said generation 0, and was put out as a copy (`state_cloned`).
    @Test(arguments: ["{", "", nil])
    func aDamagedLogOfAssignmentsKeepsTheGeneration(_ text: String?) async throws {
        let (device, server) = (try RehearsalDevice(), Generations())
        for _ in 0..<2 { _ = try await client(device, server).participateOnce(waitSeconds: 0) }
        let path = device.path + "/assignments.json"
        if let text {
            try Data(text.utf8).write(to: URL(fileURLWithPath: path))
        } else {
            try FileManager.default.removeItem(atPath: path)
        }
        for _ in 0..<2 { _ = try await client(device, server).participateOnce(waitSeconds: 0) }
        #expect(server.said.withLock { $0 } == [0, 11, 12, 13])
    }

    /// A state of before, in which the credential has no generation, says none rather than a wrong one.
    @Test func anUnknownGenerationIsNotSaid() async throws {
        let (device, server) = (try RehearsalDevice(), Generations())
        _ = try await client(device, server).participateOnce(waitSeconds: 0)
        let old = #"{"clientId": "clt_1", "token": "secret", "format": 2}"#
        try Data(old.utf8).write(to: URL(fileURLWithPath: device.path + "/credential.json"))
        try Data("{".utf8).write(to: URL(fileURLWithPath: device.path + "/assignments.json"))
        for _ in 0..<2 { _ = try await client(device, server).participateOnce(waitSeconds: 0) }
        #expect(server.said.withLock { $0 } == [0, nil, 12])
    }

    @Test func aDamagedCredentialHasAWayOut() async throws {
        let (device, server) = (try RehearsalDevice(), Generations())
        _ = try await client(device, server).participateOnce(waitSeconds: 0)
        try Data("{".utf8).write(to: URL(fileURLWithPath: device.path + "/credential.json"))
        let error = await #expect(throws: ClientError.self) {
            try await client(device, server).participateOnce(waitSeconds: 0)
        }
        #expect(error?.code == "state_damaged" && error?.message.contains("--register-again") == true)
    }

    /// A note that cannot be read blocked its run on this device for ever.
    @Test func aDamagedNoteOfAControlVariateIsDropped() async throws {
        let device = try RehearsalDevice()
        let server = RehearsalServer(mode: "none", change: { work, _ in work.training.algorithm = .scaffold })
        _ = try await device.client(server, RehearsalTrainer()).participateOnce(waitSeconds: 0)
        let note = try #require(try device.files().first { $0.hasPrefix("control-") && $0.hasSuffix(".json") })
        try Data("{".utf8).write(to: URL(fileURLWithPath: device.path + "/" + note))
        let client = try device.client(server, RehearsalTrainer())
        #expect(try await client.participateOnce(waitSeconds: 0) == .accepted(run: "run_1", round: 2))
        #expect(device.notices.withLock { $0.contains { $0.message.contains("control variate of run run_1") } })
    }
}
