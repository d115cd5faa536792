import Foundation
import MartletClient
import Synchronization
import TestSupport
import Testing
import WireFormat

#if canImport(Glibc)
import Glibc
#endif

/// The state directory: one process, whole files, and errors that name the device and not the network.
@Suite(.timeLimit(.minutes(10)))
struct DeviceStateTests {
    @Test func aSecondHolderIsToldWhoHasTheDirectory() throws {
        let directory = try TemporaryDirectory()
        var first: ClientState? = try ClientState(directory: directory.path)
        let error = #expect(throws: ClientError.self) { _ = try ClientState(directory: directory.path) }
        #expect(error?.code == "state_locked" && error?.message.contains("\(getpid())") == true)
        withExtendedLifetime(first) {}
        first = nil
        _ = try ClientState(directory: directory.path)
    }

    @Test func aDirectoryThatCannotBeMadeIsNamedPlainly() throws {
        let directory = try TemporaryDirectory()
        try Data().write(to: URL(fileURLWithPath: directory.path + "/file"))
        let error = #expect(throws: ClientError.self) { _ = try ClientState(directory: directory.path + "/file/state") }
        #expect(error?.code == "storage" && error?.message.contains("NSCocoa") == false, "\(String(describing: error))")
    }

    private func write(_ text: String, _ name: String, _ device: RehearsalDevice) throws {
        try Data(text.utf8).write(to: URL(fileURLWithPath: device.path + "/" + name))
    }

    @Test(arguments: ["{", "{}", ""])
    func aDamagedNoteOfAnUploadIsPutAsideWithAWord(_ text: String) async throws {
        let (device, server, trainer) = (try RehearsalDevice(), RehearsalServer(), RehearsalTrainer())
        _ = try await device.client(server, trainer).participateOnce(waitSeconds: 0)
        try write(text, "pending.json", device)
        let client = try device.client(server, trainer)
        #expect(try await client.participateOnce(waitSeconds: 0) == .accepted(run: "run_1", round: 2))
        #expect(try device.files().contains { $0.hasPrefix("pending.json.damaged-") })
        let notices = device.notices.withLock { $0 }
        #expect(notices.count == 1 && notices.first?.message.contains("pending.json") == true, "\(notices)")
    }

    /// The update that the note speaks of is gone or another: it cannot be sent, and is not made again.
    @Test(arguments: [true, false])
    func anUpdateThatIsNotWhatWasWrittenIsNotSent(_ isMissing: Bool) async throws {
        let device = try RehearsalDevice()
        let trainer = RehearsalTrainer()
        let server = RehearsalServer { number, key in key == "PUT update" && number < 8 ? .badGateway : nil }
        await #expect(throws: ClientError.self) {
            try await device.client(server, trainer, attemptLimit: 2).participateOnce(waitSeconds: 0)
        }
        let name = "report-run_1.safetensors"
        if isMissing { unlink(device.path + "/" + name) } else { try write("another", name, device) }
        let client = try device.client(server, trainer)
        #expect(try await client.participateOnce(waitSeconds: 0) == .ended(code: "state_damaged"))
        // The server's place is free, and the device does the work no second time.
        #expect(server.state.withLock { $0.failed } == ["asg_1": "training_failed"])
        #expect(trainer.counts.withLock { $0 } == [1: 1])
        #expect(server.state.withLock { $0.sent["asg_1"]?.count } == 1)
        #expect(try await client.participateOnce(waitSeconds: 0) == .accepted(run: "run_1", round: 2))
    }

    @Test func aLedgerThatIsGoneStopsTheDeviceAndAnOldStateGetsOneOnce() async throws {
        let (device, server, trainer) = (try RehearsalDevice(), RehearsalServer(), RehearsalTrainer())
        _ = try await device.client(server, trainer).participateOnce(waitSeconds: 0)
        unlink(device.path + "/ledger.json")
        let error = await #expect(throws: ClientError.self) {
            try await device.client(server, trainer).participateOnce(waitSeconds: 0)
        }
        #expect(error?.code == "state_damaged" && error?.endsClient == true)
        // As an older version left it.
        try write(#"{"clientId": "clt_1", "token": "secret"}"#, "credential.json", device)
        _ = try await device.client(server, trainer).participateOnce(waitSeconds: 0)
        #expect(device.notices.withLock { $0.filter { $0.kind == .state }.count } == 1)
        _ = try await device.client(server, trainer).participateOnce(waitSeconds: 0)
        #expect(device.notices.withLock { $0.filter { $0.kind == .state }.count } == 1)
        #expect(try device.ledger() == ["asg_2", "asg_3"])
    }

    /// Registering anew is the way out of a copied state; what was spent stays spent.
    @Test func registeringAgainKeepsTheLedger() async throws {
        let (device, server, trainer) = (try RehearsalDevice(), RehearsalServer(), RehearsalTrainer())
        _ = try await device.client(server, trainer).participateOnce(waitSeconds: 0)
        try ClientState(directory: device.path).forgetRegistration()
        #expect(!(try device.files()).contains("credential.json"))
        _ = try await device.client(server, trainer).participateOnce(waitSeconds: 0)
        #expect(try device.ledger() == ["asg_1", "asg_2"])
    }

    /// The owner's word against it holds for the command, for the library, and where the credential is gone.
    @Test func aPolicyCanRefuseToRegisterAgain() async throws {
        let (device, server, trainer) = (try RehearsalDevice(), RehearsalServer(), RehearsalTrainer())
        let policy = ClientPrivacyPolicy(mayRegisterAgain: false)
        func client() throws -> FederatedClient {
            FederatedClient(
                server: "http://server",
                enrollmentToken: "enroll",
                state: try ClientState(directory: device.path),
                trainer: trainer,
                transport: server,
                models: try ModelCache(directory: device.path + "/models"),
                policy: policy
            )
        }
        // The first time is no second one, also after a stop before the answer.
        try ClientState(directory: device.path).forgetRegistration(by: policy)
        _ = try await client().participateOnce(waitSeconds: 0)
        #expect(try device.ledger() == ["asg_1"])
        let error = #expect(throws: ClientError.self) {
            try ClientState(directory: device.path).forgetRegistration(by: policy)
        }
        #expect(error?.code == "registration_refused" && error?.endsClient == true)
        #expect(try device.files().contains("credential.json"))
        // By hand.
        unlink(device.path + "/credential.json")
        unlink(device.path + "/registration.json")
        let refused = await #expect(throws: ClientError.self) { try await client().participateOnce(waitSeconds: 0) }
        #expect(refused?.code == "registration_refused")
        #expect(refused?.message.contains("may_register_again") == true)
        #expect(try device.ledger() == ["asg_1"])
    }

    /// Every write fails from some point on, as on a full disk; each failure is named, and nothing left without its event.
    @Test(.slow) func aFullDiskIsNamedAtEachStepAndWaitedOut() async throws {
        for point in 1...60 {
            let (device, server, trainer) = (try RehearsalDevice(), RehearsalServer(), RehearsalTrainer())
            let (reached, isFull) = (Counter(), Counter(1))
            var codes: Set<String> = []
            do {
                let client = try device.client(server, trainer) {
                    guard reached.increase() >= point, isFull.value == 1 else {
                        return
                    }
                    throw ClientError(code: "disk_full", message: "no space")
                }
                for _ in 0..<4 {
                    do {
                        if case .ended(let code) = try await client.participateOnce(waitSeconds: 0) {
                            codes.insert(code.code)
                        }
                    } catch let error as ClientError {
                        codes.insert(error.code)
                    }
                }
                isFull.value = 0
                for _ in 0..<3 { _ = try await client.participateOnce(waitSeconds: 0) }
            }
            #expect(codes.isSubset(of: ["disk_full"]), "point \(point): \(codes)")
            let ledger = try device.ledger()
            let (sent, accepted) = server.state.withLock { ($0.sent, $0.accepted) }
            #expect(ledger.count == Set(ledger).count && Set(sent.keys).isSubset(of: ledger), "point \(point)")
            #expect(sent.values.allSatisfy { $0.count == 1 } && accepted.count >= 2, "point \(point)")
        }
    }
}
