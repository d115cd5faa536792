import Crypto
import Foundation
import LocalTraining
import SecureAggregation
import StrictJSON
import Synchronization
import Tensors
import TestSupport
import Testing
import UpdateCompression
import WireFormat

@testable import MartletClient

/// A device that pins a helper's key does no work without this helper's grant of exactly that work, and opens no data before.
@Suite(.timeLimit(.minutes(10)))
struct HelperRefusalTests {
    /// A lie about one field, signed by the helper: a server may ask for a session of anything.
    struct Lie: Sendable, CustomTestStringConvertible {
        var field: String
        var change: @Sendable (inout SessionDocument) -> Void
        var testDescription: String { field }
    }

    static let lies: [Lie] = [
        Lie(field: "purpose") { $0.purpose = .evaluation },
        Lie(field: "run") { $0.run = "run_2" },
        Lie(field: "round") { $0.round += 1 },
        Lie(field: "attempt") { $0.attempt += 1 },
        Lie(field: "model") { $0.model[31] ^= 1 },
        Lie(field: "instructions") { $0.instructions[0] ^= 1 },
        Lie(field: "b") { $0.width = .bits64 },
        Lie(field: "d") { $0.coordinateCount += 1 },
        Lie(field: "step") { $0.step = $0.step.nextUp },
        Lie(field: "B") { $0.coordinateBound -= 1 },
        Lie(field: "K") { $0.norm -= 1 },
        Lie(field: "Σ*") { $0.noiseDeviation = $0.noiseDeviation.nextDown },
        // n_max is the document's own, and B follows from it.
        Lie(field: "B") { ($0.maximum, $0.minimum) = (500, 20) },
        Lie(field: "Σ*") { ($0.noise, $0.noiseDeviation) = (.none, 0) },
        Lie(field: "measure") { ($0.noise, $0.noiseDeviation, $0.measure) = (.none, 0, .l1) },
        Lie(field: "minimum") { $0.minimum = 19 },
        Lie(field: "max_participations") { $0.maxParticipations = 0 },
        Lie(field: "public key") { $0.publicKey = [UInt8](repeating: 0xFF, count: 1216) },
        Lie(field: "expires") { $0.expires = 1_800_000_000 - 86_401 },
    ]

    /// What every refusal has in common: the server hears a code, and nothing was fetched or trained.
    private func expectRefusal(
        _ rehearsal: MaskedRehearsal,
        _ client: FederatedClient,
        _ trainer: RehearsalTrainer,
        _ words: String,
        _ context: String
    ) async throws {
        let outcome = try await client.participateOnce(waitSeconds: 0)
        #expect(outcome == .ended(code: "privacy_refused"), "\(context)")
        let reason = await client.lastRefusal ?? ""
        #expect(words.isEmpty || reason.contains(words), "\(context): \(reason)")
        #expect(trainer.counts.withLock { $0.isEmpty }, "\(context)")
        #expect(rehearsal.server.state.withLock { Array($0.failed.values) } == ["privacy_refused"], "\(context)")
        let requests = rehearsal.transcript.map(\.request)
        #expect(requests.count == 3 && !requests.contains { $0.hasSuffix("/model") }, "\(context): \(requests)")
        // The reason stays on the device.
        let report = try #require(rehearsal.transcript.last?.body)
        #expect(report == #"{"code":"privacy_refused"}"#, "\(context): \(report)")
    }

    @Test(arguments: lies) func aLieAboutAFieldIsRefusedBeforeAnythingIsFetched(_ lie: Lie) async throws {
        let rehearsal = MaskedRehearsal(bits: 32, changes: .init(document: lie.change))
        let (device, trainer) = (try RehearsalDevice(), RehearsalTrainer())
        let client = try device.masked(
            rehearsal,
            trainer,
            policy: .init(minimumCohort: lie.field == "minimum" ? 20 : 0)
        )
        // Of the two that change several fields, or break the document, the first rule that does not hold is named.
        let words = ["measure": "field", "max_participations": "max_participations", "minimum": "minimum_cohort"]
        try await expectRefusal(rehearsal, client, trainer, words[lie.field] ?? "field \(lie.field)", lie.field)
    }

    /// What steers training or encoding, changed for one device after the helper has granted the session.
    struct Steering: Sendable, CustomTestStringConvertible {
        var name: String
        var change: @Sendable (inout AssignmentBody) -> Void
        var testDescription: String { name }
    }

    static let steering: [Steering] = [
        Steering(name: "learning rate") { $0.training.local.learningRate *= 2 },
        Steering(name: "epochs") { $0.training.local.epochs += 1 },
        Steering(name: "clipping norm") { $0.privacy.clipping.norm *= 2 },
        Steering(name: "noise multiplier") { $0.privacy.noiseMultiplier = 3 },
        Steering(name: "value bound") { $0.valueBound = 3 },
        Steering(name: "architecture") { $0.architecture.config = .object(["hidden": .integer(3)]) },
        Steering(name: "tensors") { $0.tensors = ParameterLayout([.init(name: "v", shape: [4])]) },
        Steering(name: "model") { $0.model.sha256 = String(repeating: "0", count: 64) },
        Steering(name: "bits") { $0.protection?.bits = 64 },
        Steering(name: "round") { $0.round += 1 },
        Steering(name: "run") { $0.run = "run_2" },
        Steering(name: "attempt") { $0.attempt += 1 },
        Steering(name: "kind evaluate") { $0.kind = .evaluate },
        Steering(name: "kind analyze") { $0.kind = .analyze },
        Steering(name: "encoding") { $0.training.encoding = .int8 },
    ]

    @Test(arguments: steering) func anInstructionOfOneDeviceAloneIsRefused(_ steering: Steering) async throws {
        let rehearsal = MaskedRehearsal(bits: 32, changes: .init(told: steering.change))
        let (device, trainer) = (try RehearsalDevice(), RehearsalTrainer())
        let client = try device.masked(rehearsal, trainer)
        try await expectRefusal(rehearsal, client, trainer, "", steering.name)
    }

    /// What the helper cannot judge the device does: these documents are right in every field.
    static let unmaskable: [Steering] = [
        Steering(name: "encoding topk") { $0.training.encoding = .topk },
        Steering(name: "clipping policy per_layer") { $0.privacy.clipping.policy = .perLayer },
        Steering(name: "kind evaluate") { $0.kind = .evaluate },
    ]

    @Test(arguments: unmaskable) func workWithPartsThatNoMaskHidesIsRefused(_ steering: Steering) async throws {
        let rehearsal = MaskedRehearsal(changes: .init(work: steering.change))
        let (device, trainer) = (try RehearsalDevice(), RehearsalTrainer())
        let client = try device.masked(rehearsal, trainer)
        try await expectRefusal(rehearsal, client, trainer, steering.name, steering.name)
    }

    @Test(arguments: [WorkKind.train, .evaluate, .analyze])
    func workWithoutAGrantOfThePinnedHelperIsRefused(_ kind: WorkKind) async throws {
        let stranger = Curve25519.Signing.PrivateKey()
        let cases: [(String, String, @Sendable (inout AssignmentBody) -> Void)] = [
            ("removed", "no grant", { ($0.kind, $0.protection) = (kind, nil) }),
            (
                "other key", "not the signature",
                { body in
                    body.kind = kind
                    let bytes = Data(base64Encoded: body.protection?.document ?? "").map(Array.init) ?? []
                    guard let document = try? SessionDocument(parsing: bytes),
                        let grant = try? SessionGrant.sign(document, with: stranger)
                    else {
                        Issue.record("no document")
                        return
                    }
                    body.protection?.grant = grant.base64EncodedString()
                }
            ),
            (
                "zeros", "not the signature",
                {
                    $0.kind = kind
                    $0.protection?.grant = Data(count: 64).base64EncodedString()
                }
            ),
        ]
        for (name, words, change) in cases {
            let rehearsal = MaskedRehearsal(changes: .init(told: change))
            let (device, trainer) = (try RehearsalDevice(), RehearsalTrainer())
            try await expectRefusal(rehearsal, try device.masked(rehearsal, trainer), trainer, words, "\(kind) \(name)")
        }
    }

    @Test(arguments: ["none", "central", "local"]) func noModeLetsADeviceWithAHelperWorkWithoutIt(
        _ mode: String
    ) async throws {
        let rehearsal = MaskedRehearsal(
            changes: .init(told: { body in
                body.protection = nil
                if mode == "none" { body.privacy.mode = .none }
                if mode == "local" { body.privacy.mode = .local }
            })
        )
        let (device, trainer) = (try RehearsalDevice(), RehearsalTrainer())
        try await expectRefusal(rehearsal, try device.masked(rehearsal, trainer), trainer, "no grant", mode)
    }

    @Test func aDeviceWithoutAPinnedKeyRefusesWorkThatAsksForAHelper() async throws {
        let rehearsal = MaskedRehearsal()
        let (device, trainer) = (try RehearsalDevice(), RehearsalTrainer())
        try await expectRefusal(rehearsal, try device.client(rehearsal, trainer), trainer, "--helper-key", "no key")
    }

    /// The check itself, without the rest of the client, so that every byte can be tried.
    @Test func everyByteOfDocumentAndGrantThatIsFlippedIsRefused() async throws {
        let body = Mutex<AssignmentBody?>(nil)
        let rehearsal = MaskedRehearsal(changes: .init(told: { told in body.withLock { [told] in $0 = told } }))
        let (device, trainer) = (try RehearsalDevice(), RehearsalTrainer())
        let client = try device.masked(rehearsal, trainer)
        #expect(try await client.participateOnce(waitSeconds: 0) == .accepted(run: "run_1", round: 1))
        let told = try #require(body.withLock { $0 })
        let work = try Assignment.read(JSONValue.parse(Array(WireCoding.encode(told))), modelByteLimit: 1 << 20)
        let check = HelperCheck(client.device)
        guard case .granted(let session) = try check.verdict(on: work) else {
            Issue.record("the unchanged assignment is refused")
            return
        }
        #expect(session.document.bytes == work.protection?.document)
        for (field, count) in [(\Assignment.Protection.document, session.document.bytes.count), (\.grant, 64)] {
            for place in 0..<count {
                var changed = work
                changed.protection?[keyPath: field][place] ^= UInt8(1 << (place % 8))
                guard case .refused = try check.verdict(on: changed) else {
                    Issue.record("byte \(place) of \(count)")
                    continue
                }
            }
        }
        // A longer and a shorter one.
        for count in [0, 1, session.document.bytes.count - 1] {
            var changed = work
            changed.protection?.document = Array(session.document.bytes.prefix(count))
            guard case .refused = try check.verdict(on: changed) else {
                Issue.record("\(count) bytes")
                continue
            }
        }
        var longer = work
        longer.protection?.document.append(0)
        guard case .refused = try check.verdict(on: longer) else {
            Issue.record("a byte more")
            return
        }
    }

    // MARK: - The owner's policy

    @Test func theOwnersPolicyBoundsNoiseCohortDomainsAndParticipations() async throws {
        let cases: [(ClientPrivacyPolicy, String)] = [
            (.init(minimumNoise: 2.01), "minimum_noise"), (.init(minimumCohort: 21), "minimum_cohort"),
            (.init(domains: ["other"]), "domains"), (.init(maxParticipations: 0), "taken part 0 times"),
        ]
        for (policy, words) in cases {
            let rehearsal = MaskedRehearsal(changes: .init(work: { $0.cohortMinimum = 100 }))
            let (device, trainer) = (try RehearsalDevice(), RehearsalTrainer())
            let client = try device.masked(rehearsal, trainer, policy: policy)
            try await expectRefusal(rehearsal, client, trainer, words, words)
        }
        let rehearsal = MaskedRehearsal(changes: .init(work: { $0.cohortMinimum = 100 }))
        let policy = ClientPrivacyPolicy(
            maxParticipations: 1,
            minimumCohort: 20,
            minimumNoise: 2,
            domains: ["keyboards", "more"]
        )
        let client = try RehearsalDevice().masked(rehearsal, RehearsalTrainer(), policy: policy)
        #expect(try await client.participateOnce(waitSeconds: 0) == .accepted(run: "run_1", round: 1))
    }

    @Test func aSessionWithoutNoiseIsRefusedWhereTheOwnerWantsSome() async throws {
        let rehearsal = MaskedRehearsal(mode: "none", bits: 32)
        let (device, trainer) = (try RehearsalDevice(), RehearsalTrainer())
        let client = try device.masked(rehearsal, trainer, policy: .init(minimumNoise: 0.1))
        try await expectRefusal(rehearsal, client, trainer, "minimum_noise", "none")
    }

    @Test func theDocumentsParticipationsAreHeldByTheDevicesOwnLedger() async throws {
        let rehearsal = MaskedRehearsal(changes: .init(document: { $0.maxParticipations = 2 }))
        let client = try RehearsalDevice().masked(rehearsal, RehearsalTrainer())
        #expect(try await client.participateOnce(waitSeconds: 0) == .accepted(run: "run_1", round: 1))
        #expect(try await client.participateOnce(waitSeconds: 0) == .accepted(run: "run_1", round: 2))
        #expect(try await client.participateOnce(waitSeconds: 0) == .ended(code: "privacy_refused"))
        #expect(await client.lastRefusal?.contains("max_participations") == true)
        // Another attempt at a round has a session of its own, of which the helper may make a sum.
        rehearsal.server.state.withLock { ($0.round, $0.attempt, $0.repeatsRound) = (2, 2, true) }
        #expect(try await client.participateOnce(waitSeconds: 0) == .ended(code: "privacy_refused"))
    }

    @Test(arguments: ["domain", "server"]) func aServerStaysInTheFirstDomainThatItNamed(_ field: String) async throws {
        let other = Mutex(false)
        let rehearsal = MaskedRehearsal(
            changes: .init(document: { document in
                guard other.withLock({ $0 }) else { return }
                if field == "domain" { document.domain = "phones" } else { document.server = "srv_2" }
            })
        )
        let device = try RehearsalDevice()
        do {
            let client = try device.masked(rehearsal, RehearsalTrainer())
            #expect(try await client.participateOnce(waitSeconds: 0) == .accepted(run: "run_1", round: 1))
        }
        other.withLock { $0 = true }
        do {
            // The next process knows of it too.
            let client = try device.masked(rehearsal, RehearsalTrainer())
            #expect(try await client.participateOnce(waitSeconds: 0) == .ended(code: "privacy_refused"))
            #expect(await client.lastRefusal?.contains("field \(field)") == true)
        }
        guard field == "domain" else { return }
        let client = try device.masked(rehearsal, RehearsalTrainer(), policy: .init(domains: ["keyboards", "phones"]))
        #expect(try await client.participateOnce(waitSeconds: 0) == .accepted(run: "run_1", round: 3))
        let files = try device.files().filter { $0.hasPrefix("pseudonym-") }
        #expect(files.count == 2, "\(files)")
    }

    @Test func aPolicyFileNamesNoiseAndDomains() throws {
        func read(_ text: String) throws -> ClientPrivacyPolicy {
            try ClientPrivacyPolicy.read(JSONValue.parse(Array(text.utf8)))
        }
        let policy = try read(#"{"minimum_noise": 0.8, "domains": ["keyboards"]}"#)
        #expect(policy.minimumNoise == 0.8 && policy.domains == ["keyboards"])
        #expect(try read("{}") == ClientPrivacyPolicy())
        for text in [#"{"minimum_noise": -1}"#, #"{"domains": []}"#, #"{"domains": "keyboards"}"#] {
            #expect(throws: DocumentError.self, "\(text)") { try read(text) }
        }
        // What an earlier version wrote.
        let old = #"{"acceptedModes":["none"],"maxParticipations":1,"maxEpsilon":2,"delta":1e-6,"minimumCohort":3}"#
        let decoded = try JSONDecoder().decode(ClientPrivacyPolicy.self, from: Data(old.utf8))
        #expect(decoded.minimumNoise == 0 && decoded.domains == nil && decoded.minimumCohort == 3)
    }
}
