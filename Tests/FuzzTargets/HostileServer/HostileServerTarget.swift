import Foundation
import LocalTraining
import MartletClient
import StrictJSON
import Synchronization
package import Tensors
import TestSupport
import WireFormat

/// The client SDK against a hostile server: each case is one participation in which some answers are changed.
///
/// The client must not trap, must ask nobody else, must write nothing outside its state directory and little inside it, must
/// wait no time that no clock has, and must say nothing that acts on a terminal.
package struct HostileServerTarget: FuzzTarget {
    package static let name = "server"
    package static let testCaseCount = 300
    static let modelByteLimit = 64 << 10

    private let directory: TemporaryDirectory
    private let servers: [HonestServer]
    private let canary = "untouched"
    package private(set) var messageCount = 0

    package init() async throws {
        directory = try TemporaryDirectory()
        servers = try HonestServer.all()
        try Data(canary.utf8).write(to: URL(fileURLWithPath: directory.path + "/canary"))
    }

    /// The built-in trainer with less time: how long a training may last is no question of safety.
    private struct QuickTrainer: LocalTrainer {
        var canRehearse: Bool { true }
        let inner = DeviceTrainer(texts: ["bad cab", "face a cafe", "a decade had a cab", "dad fed a bee"])

        private func quick(_ instructions: TrainingInstructions) -> TrainingInstructions {
            var quick = instructions
            quick.maxSteps = min(instructions.maxSteps, 2)
            quick.maxSeconds = min(instructions.maxSeconds, 0.2)
            quick.maxExamples = min(instructions.maxExamples, 50)
            return quick
        }

        func train(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingResult {
            try inner.train(model: model, instructions: quick(instructions))
        }

        func gradient(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingResult {
            try inner.gradient(model: model, instructions: quick(instructions))
        }

        func evaluate(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingMetrics {
            try inner.evaluate(model: model, instructions: quick(instructions))
        }
    }

    package mutating func run(_ generator: inout Xoshiro256StarStar) async throws -> Bool {
        let state = directory.path + "/state"
        try? FileManager.default.removeItem(atPath: state)
        let answers = HostileAnswers(generator.pick(servers), state: state, &generator)
        let waits = Mutex<[Double]>([])
        let jitter = Double(generator.nextIndex(below: 100)) / 100
        let client = FederatedClient(
            server: HostileAnswers.origin,
            enrollmentToken: "mlt_enroll",
            state: try ClientState(directory: state),
            trainer: QuickTrainer(),
            transport: answers,
            models: try ModelCache(directory: state + "/models"),
            limits: ClientLimits(modelBytes: Self.modelByteLimit, documentBytes: Self.modelByteLimit),
            retry: RetryPolicy(
                attemptLimit: 3,
                sleep: { seconds in waits.withLock { $0.append(seconds) } },
                uniform: { jitter }
            )
        )
        var texts: [String] = []
        var isTaken = false
        // The second time what the first one has left is there.
        for _ in 0..<2 {
            do {
                switch try await client.participateOnce(waitSeconds: 0) {
                case .accepted(let run, _):
                    isTaken = true
                    texts.append(run)
                case .noWork(let reason, let seconds):
                    waits.withLock { $0.append(seconds) }
                    texts.append(reason.code)
                case .ended(let reason): texts.append(reason.code)
                case .finished: break
                }
            } catch {
                texts.append("\(error)")
            }
            if let refusal = await client.lastRefusal { texts.append(refusal) }
            if let reason = await client.lastReason { texts.append(reason) }
        }
        func claim(_ isTrue: Bool, _ what: @autoclosure () -> String) throws {
            try expect(isTrue, what(), Array(texts.joined(separator: "\n").utf8))
        }
        messageCount += answers.requestCount
        try claim(answers.finding == nil, answers.finding ?? "")
        for text in texts {
            try claim(text.unicodeScalars.count < 4000, "a text has \(text.unicodeScalars.count) characters")
            try claim(!text.unicodeScalars.contains(where: PrintableText.isUnsafe), "a text acts on the terminal")
        }
        for seconds in waits.withLock({ $0 }) {
            try claim(seconds >= 0 && seconds <= PeerDuration.limitSeconds, "waits \(seconds) s")
        }
        try checkFiles(state, claim)
        return isTaken && !answers.changedAnything || isTaken && generator.oneIn(2)
    }

    private func checkFiles(_ state: String, _ claim: (Bool, @autoclosure () -> String) throws -> Void) throws {
        let manager = FileManager.default
        let outside = try manager.contentsOfDirectory(atPath: directory.path).sorted()
        try claim(outside == ["canary", "state"], "beside the state directory there is \(outside)")
        let kept = manager.contents(atPath: directory.path + "/canary")
        try claim(kept == Data(canary.utf8), "a file outside the state directory was changed")
        try claim(!manager.fileExists(atPath: "/tmp/martlet-fuzz-escape"), "a file was written to /tmp")
        var (count, size) = (0, 0)
        for case let name as String in manager.enumerator(atPath: state) ?? .init() {
            let attributes = try manager.attributesOfItem(atPath: state + "/" + name)
            let type = attributes[.type] as? FileAttributeType
            try claim(type == .typeRegular || type == .typeDirectory, "\(name) is a \(type?.rawValue ?? "?")")
            let isPlain = name.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F && $0 != UInt8(ascii: "%") }
            try claim(isPlain && !name.contains("/."), "a file is called \(name.debugDescription)")
            count += 1
            size += attributes[.size] as? Int ?? 0
        }
        try claim(count <= 40 && size <= 20 * Self.modelByteLimit, "\(count) files with \(size) bytes")
    }
}
